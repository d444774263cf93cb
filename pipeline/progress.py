"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.text import Text

from pipeline.sources.report import Progress as Told

_LIVE_S = 0.25
_PLAIN_S = 10.0


class _Funnel(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("detail", "")), style="dim")


def paper() -> Console:
    """Standard output for what is read at the end; wide enough for a table where it is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


@contextmanager
def watching(console: Console, label: str, total: int, counts: Callable[[], Counter[str]]) -> Iterator[None]:
    """Show how far `label` is while the body runs.

    counts: read several times a second; its `done` is compared with `total`, the rest is shown by `funnel_line`.
    """
    stop = threading.Event()
    watch = _watch_live if console.is_terminal else _watch_plainly
    thread = threading.Thread(target=watch, args=(console, label, total, counts, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def funnel_line(counts: Counter[str], elapsed_s: float) -> str:
    """Accepted, rejected, calls and their rate, in a few words."""
    words = [f"{counts['accepted']:,} accepted", f"{counts['rejected']:,} rejected"]
    if counts["deferred"]:
        words.append(f"{counts['deferred']:,} deferred")
    calls = counts["made"] + counts["from_memory"]
    if calls:
        words.append(f"{calls:,} calls, {calls / max(elapsed_s, 0.1):,.0f}/s")
    if counts["from_memory"]:
        words.append(f"{counts['from_memory']:,} from memory")
    if counts["failed_attempts"]:
        words.append(f"{counts['failed_attempts']:,} failed attempts")
    return " · ".join(words)


def _watch_live(
    console: Console, label: str, total: int, counts: Callable[[], Counter[str]], stop: threading.Event
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), _Funnel())
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=total, detail="")
        while not stop.wait(_LIVE_S):
            now = counts()
            progress.update(task, completed=now["done"], detail=funnel_line(now, time.monotonic() - began))


def _watch_plainly(
    console: Console, label: str, total: int, counts: Callable[[], Counter[str]], stop: threading.Event
) -> None:
    began = time.monotonic()
    while not stop.wait(_PLAIN_S):
        now, elapsed = counts(), time.monotonic() - began
        left = f"{elapsed / now['done'] * (total - now['done']):,.0f} s left" if now["done"] else "starting"
        console.print(
            f"{label}: {now['done']:,} of {total:,} · {funnel_line(now, elapsed)} · {left}",
            highlight=False,
            soft_wrap=True,
        )


def telling(status: Status) -> Told:
    """What tells a status line how far reading, cleaning, indexing or mining is."""
    return lambda what, done, total: status.update(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))
