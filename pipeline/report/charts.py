"""Pictures as SVG that takes the page's own colours, so that they suit light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

# Colours that stand for the page's variables; they are replaced in the SVG.
_INK, _SOFT = "#010203", "#040506"
_SERIES = ("#1f6f8b", "#c8742b", "#6b8f3a")
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def histogram(series: Mapping[str, np.ndarray], label: str, bins: int = 30, top: float | None = None) -> str:
    """Step histograms of a few series over one axis, as shares of their rows."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(6.4, 2.4))
        axes = figure.subplots()
        everything = np.concatenate([v for v in series.values() if len(v)] or [np.zeros(1)])
        high = top if top is not None else max(1.0, float(np.percentile(everything, 99.5)))
        edges: list[float] = np.linspace(0, high, bins + 1).tolist()
        for (name, values), colour in zip(series.items(), _SERIES, strict=False):
            weights = np.full(len(values), 1 / max(1, len(values)))
            axes.hist(
                np.clip(values, 0, high), edges, weights=weights, histtype="step", color=colour, label=name, lw=1.6
            )
        axes.set_xlabel(label)
        axes.set_ylabel("share of rows")
        axes.legend(loc="upper right")
        return _svg(figure, f"Histogram: {', '.join(series)}")


def grade_shares(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """For each of the nine cells, the shares of the grades 0 to 3 as one stacked bar. matrix: (n, 3, 3)."""
    shades = ("#d9dee2", "#a9c4cf", "#5f9bb0", "#1f6f8b")
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(6.4, 2.7))
        axes = figure.subplots()
        names = [f"{r} · {c}" for r in rows for c in columns]
        cells = matrix.reshape(len(matrix), 9)
        left = np.zeros(9)
        for grade, shade in enumerate(shades):
            share = (cells == grade).mean(axis=0) if len(cells) else np.zeros(9)
            axes.barh(names, share, left=left, color=shade, label=f"grade {grade}", height=0.75)
            left += share
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of judged rows")
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return _svg(figure, "Shares of the judge's grades in each cell")


def _svg(figure: Figure, title: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(_INK, "var(--ink)").replace(_SOFT, "var(--soft)")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
