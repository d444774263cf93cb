"""Results for people: a markdown table, and a plot of p-MRR per dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.figures import SUPPORTED

GROUPED = ("dimension", "form", "wording_group")
"""Columns whose values get figures of their own."""

NOT_SUPPORTED = "≈"
"""Beside a figure whose difference from the first model's a paired test does not support."""


def markdown(result: Mapping[str, Any]) -> str:
    """The result file as tables: overall, then p-MRR and accuracy per dimension, form and group of wordings."""
    models: dict[str, Any] = result["models"]
    lines = [
        f"{result['data']['tuples']:,} tuples of the {result['data']['split']} split, ranked among "
        f"{result['data']['passages']:,} passages. Means over queries with 95 % bootstrap intervals; "
        f"{NOT_SUPPORTED} marks a difference from {next(iter(models))} that a paired randomisation test does not "
        "support (p ≥ 0.05).",
        "",
        *table(["metric", *models], [_row(name, models) for name in _metrics(models)]),
    ]
    for group in GROUPED:
        if len(next(iter(models.values()))[group]) == 1:
            continue  # a real model's data have no groups of wordings
        for metric in ("accuracy (I+,Q+)", "p-MRR"):
            lines += ["", f"{metric} per {group.replace('_', ' ')}", ""]
            names = list(next(iter(models.values()))[group])
            rows = [[name, *(_shown(entry[group][name][metric]) for entry in models.values())] for name in names]
            lines += table([group, *models], rows)
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a markdown table, figures to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]


def plot(result: Mapping[str, Any], file: Path) -> None:
    """p-MRR per dimension with its intervals, all models side by side."""
    import matplotlib  # noqa: PLC0415, half a second that only the plot needs

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    models: dict[str, Any] = result["models"]
    dimensions = list(next(iter(models.values()))["dimension"])
    figure, axes = pyplot.subplots(figsize=(7, 1 + 0.32 * len(dimensions)), layout="constrained")
    for number, (name, entry) in enumerate(models.items()):
        cells = [entry["dimension"][dimension]["p-MRR"] for dimension in dimensions]
        places = [place + (number - (len(models) - 1) / 2) * 0.7 / len(models) for place in range(len(dimensions))]
        means = [cell["mean"] for cell in cells]
        spread = [[cell["mean"] - cell["low"] for cell in cells], [cell["high"] - cell["mean"] for cell in cells]]
        axes.errorbar(means, places, xerr=spread, fmt="o", markersize=4, capsize=2, linewidth=1, label=name)
    axes.axvline(0, color="grey", linewidth=0.8)
    labels = [f"{name} ({next(iter(models.values()))['dimension'][name]['p-MRR']['queries']})" for name in dimensions]
    axes.set_yticks(range(len(dimensions)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("p-MRR, 95 % interval (queries in brackets)")
    axes.legend(fontsize="small", loc="best")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _metrics(models: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for entry in models.values() for name in entry["overall"]))


def _row(metric: str, models: Mapping[str, Any]) -> list[str]:
    cells = []
    for entry in models.values():
        cell = entry["overall"].get(metric)
        mark = f" {NOT_SUPPORTED}" if entry["p_values"].get(metric, 0.0) >= SUPPORTED else ""
        cells.append("" if cell is None else _shown(cell) + mark)
    return [metric, *cells]


def _shown(cell: Mapping[str, float]) -> str:
    return f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
