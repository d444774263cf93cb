"""What a person reads at the end of a run: the funnel, what it cost, where things lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.card import made_offline
from pipeline.records import SPLITS


def show(manifest: Mapping[str, Any], folder: Path, console: Console) -> None:
    """Print it."""
    console.print(_funnel(manifest))
    calls = manifest["calls"]
    if any(calls[task]["made"] or calls[task]["from_memory"] for task in calls):
        console.print(_calls(manifest))
        if not made_offline(manifest):
            console.print(_per_tuple(manifest), highlight=False, soft_wrap=True)
    if made_offline(manifest):
        console.print(
            "generator or judge: offline-rules. Rules, not a language model: for trying out, not for training."
        )
    shards = sum(file["path"].startswith("data/") for file in manifest["files"])
    for what, where in (
        ("data", f"{folder / 'data'}  ({shards} files)"),
        ("rejected", f"{folder / 'rejected'}"),
        ("card", f"{folder / 'README.md'}"),
        ("manifest", f"{folder / 'manifest.json'}"),
        ("report", f"{folder / 'report' / 'index.html'}"),
    ):
        console.print(f"{what:>9}  {where}", highlight=False, soft_wrap=True)


def _funnel(manifest: Mapping[str, Any]) -> Table:
    counts = manifest["counts"]
    table = Table(title="seeds, and what became of them", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")

    def add(name: str, n: int, style: str | None = None) -> None:
        share = f"{n / counts['seeds']:.1%}" if counts["seeds"] else ""
        table.add_row(name, f"{n:,}", share, style=style)

    for kind in ("malformed", "duplicates", "dangling", "dropped"):
        for what, n in manifest["source"].get(kind, {}).items():
            if n:
                table.add_row(f"input, {kind}: {what}", f"{n:,}", "", style="dim")
    add("seeds", counts["seeds"], "bold")
    for stage, reasons in manifest["rejected_by_stage"].items():
        for reason, n in sorted(reasons.items(), key=lambda item: -item[1]):
            add(f"  rejected, {stage}: {reason}", n)
    for reason, n in manifest["deferred_by_reason"].items():
        add(f"  deferred: {reason}", n, "yellow")
    add("accepted", counts["accepted"], "bold green")
    for split in SPLITS:
        add(f"  {split}", manifest["splits"][split])
    return table


def _per_tuple(manifest: Mapping[str, Any]) -> str:
    """What a tuple took, with its share of what was rejected, and what went into either."""
    tokens, cost = manifest["tokens"]["per_accepted_tuple"], manifest["cost"]
    if tokens is None:
        return f"Nothing was accepted; the rejected cost {_dollars(cost['rejected'])}."
    return (
        f"An accepted tuple took {tokens['prompt']:,.0f} prompt tokens ({tokens['cached']:,.0f} of them cached) and "
        f"{tokens['completion']:,.0f} answer tokens ({tokens['reasoning']:,.0f} reasoning), all told: "
        f"{_dollars(cost['per_accepted_tuple'])}. The accepted cost {_dollars(cost['accepted'])}, "
        f"the rejected {_dollars(cost['rejected'])}."
    )


def _dollars(cost: float | None) -> str:
    return "an unknown amount" if cost is None else f"{cost:,.4f} US$"


def _calls(manifest: Mapping[str, Any]) -> Table:
    table = Table(
        title="calls (recalled: answered from the memory), and their tokens",
        title_justify="left",
        show_edge=False,
        pad_edge=False,
    )
    columns = ("task", "made", "recalled", "failed", "prompt", "cached", "answer", "reasoning", "US$")
    for name in columns:
        table.add_column(name, justify="left" if name == "task" else "right")
    for task in manifest["calls"]:
        calls, tokens = manifest["calls"][task], manifest["tokens"]["by_task"][task]
        cost = manifest["cost"]["by_task"][task]
        table.add_row(
            task,
            *(f"{calls[what]:,}" for what in ("made", "from_memory", "failed_attempts")),
            *(f"{tokens[what]:,}" for what in ("prompt", "cached", "completion", "reasoning")),
            "unknown" if cost is None else f"{cost:,.4f}",
        )
    return table
