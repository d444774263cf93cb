"""Pictures as SVG that takes the page's own colours, so that they suit light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.facts import quantile

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""name -> (values, how often each occurs)"""

# Colours that stand for the page's variables; they are replaced in the SVG.
_VARIABLES = {
    "#010203": "--ink",
    "#040506": "--soft",
    "#070809": "--series-1",
    "#0a0b0c": "--series-2",
    "#0d0e0f": "--series-3",
    "#101112": "--grade-0",
    "#131415": "--grade-1",
    "#161718": "--grade-2",
    "#191a1b": "--grade-3",
}
_COLOUR = {variable: colour for colour, variable in _VARIABLES.items()}
_STYLES = ("-", "--", ":")  # told apart without colour, and where one lies upon another
_BINS = 30
_WIDTH = 4.6  # inches at 9 points: a phone shows it in its own size
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _COLOUR["--ink"],
    "axes.edgecolor": _COLOUR["--soft"],
    "axes.labelcolor": _COLOUR["--ink"],
    "xtick.color": _COLOUR["--soft"],
    "ytick.color": _COLOUR["--soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def histogram(series: Series, label: str, top: float | None = None) -> str:
    """Step histograms of a few series over one axis, as shares of their rows.

    top: the axis' end. Without, values are whole numbers, and the last bar holds all past the 99.5 % quantile.
    """
    high = top or max(1.0, *(quantile(values, counts, 0.995) for values, counts in series.values()))
    edges = np.linspace(0, high, _BINS + 1)
    if top is None:
        width = math.ceil((high + 1) / _BINS)
        edges = np.arange(0, high + width + 1, width) - 0.5
    with mpl.rc_context(_RC):
        figure, axes = _figure(2.2)
        handles = []
        for i, (name, (values, counts)) in enumerate(series.items()):
            weights = counts / max(1, counts.sum())
            line: Any = {"color": _COLOUR[f"--series-{i + 1}"], "linestyle": _STYLES[i], "lw": 1.6}
            axes.hist(np.clip(values, 0, high), edges.tolist(), weights=weights, histtype="step", **line)
            handles.append(Line2D([], [], label=name, **line))
        axes.set_xlim(0, edges[-1] * 1.01)
        axes.set_xlabel(label)
        axes.set_ylabel("share of rows")
        axes.legend(handles=handles, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
        return _svg(figure, f"Histogram of {label}: {', '.join(series)}")


def grade_shares(grades: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """For each of the nine cells, the shares of the grades 0 to 3 as one stacked bar. grades: (3, 3, 4) counts."""
    counts = grades.reshape(9, 4)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    at = np.arange(9) + 0.5 * (np.arange(9) // 3)  # a gap between contexts
    with mpl.rc_context(_RC):
        figure, axes = _figure(3.0)
        left = np.zeros(9)
        for grade in range(4):
            colour = _COLOUR[f"--grade-{grade}"]
            axes.barh(at, shares[:, grade], left=left, color=colour, label=f"{grade}", height=0.8)
            left += shares[:, grade]
        axes.set_yticks(at, [f"{r} · {c}" for r in rows for c in columns])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of judged rows")
        axes.legend(title="grade", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return _svg(figure, "Shares of the judge's grades in each cell")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height))
    return figure, figure.subplots()


def _svg(figure: Figure, title: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
