"""Works through the waves of a run: each by one Beam pipeline, until every seed has ended or nothing more can be done now."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from rich.console import Console

from pipeline.accounts import Find, count_calls, count_deferred, in_turn
from pipeline.chat.batch import Batches
from pipeline.chat.config import ChatConfig
from pipeline.chat.endpoint import Fatal
from pipeline.curation import curate, found_file, search_near
from pipeline.live import read_counts
from pipeline.mining import Miner
from pipeline.near_duplicates import SEARCHES
from pipeline.options import Options
from pipeline.output import Output
from pipeline.progress import telling, watching
from pipeline.recipe import Recipe
from pipeline.records import Seed
from pipeline.runners import make_runner
from pipeline.staging import Wave


@dataclass(slots=True)
class Work:
    """What this run did, apart from what the data set holds.

    calls: (task, made | from_memory | failed_attempts | latency_ms) -> n; deferred: reason -> (seeds, the first detail).
    """

    waves_done: int = 0
    seeds_done: int = 0
    seconds: float = 0.0
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    deferred: dict[str, tuple[int, str]] = field(default_factory=dict)


def work_through(
    waves: Sequence[Wave],
    recipe: Recipe,
    source: str,
    options: Options,
    chat: ChatConfig,
    output: Output,
    console: Console,
    miner: Miner | None = None,
) -> Work:
    """Curate every wave that is not finished. A stop (a fatal error of the endpoint) ends the run after its wave.

    In batch mode a pass gets as far as the memory does; then jobs fill the memory, and the next pass gets further.
    """
    began = time.monotonic()
    work = Work()
    while True:
        one_pass(work, waves, recipe, source, options, chat, output, console, miner)
        if (
            "batch_running" not in work.deferred
            or "stopped" in work.deferred
            or not fill_memory(work, chat, options, console)
        ):
            break
    work.seconds = time.monotonic() - began
    return work


def fill_memory(work: Work, chat: ChatConfig, options: Options, console: Console) -> bool:
    """Bring the batch jobs on; whether they brought an answer, so that another pass gets further."""
    batches = None
    try:
        batches = Batches(chat)
        with console.status("waiting for batch jobs") if options.wait else nullcontext():
            progress = batches.wait() if options.wait else batches.step()
    except Fatal as failure:
        work.deferred["stopped"] = (work.deferred.pop("batch_running")[0], failure.sentence)
        return False
    finally:
        if batches:
            batches.close()
    console.print(
        f"batch jobs: {progress.answered:,} answers taken in, {progress.sent:,} requests sent, {progress.running:,} jobs running",
        highlight=False,
    )
    if progress.over_budget and not progress.running:
        waiting, _ = work.deferred.pop("batch_running")
        work.deferred["budget"] = (waiting, "what the next batch job would cost passes --max-cost-usd")
        return False
    return progress.answered > 0


def one_pass(
    work: Work,
    waves: Sequence[Wave],
    recipe: Recipe,
    source: str,
    options: Options,
    chat: ChatConfig,
    output: Output,
    console: Console,
    miner: Miner | None = None,
) -> None:
    """Curate the waves that are not finished once."""
    work.deferred.clear()
    for number, wave in enumerate(waves, start=1):
        if wave.finished:
            continue
        seeds: Sequence[Seed] = wave.seeds
        if miner:
            with console.status("mining") as status:
                seeds = miner.mine(wave.seeds, telling(status))
        wave.begin()
        forget_counts(output)
        label = "curating" if len(waves) == 1 else f"curating, wave {number} of {len(waves)}"
        with watching(console, label, len(wave.seeds), lambda: read_counts(output.live)):
            run_beam(options, partial(curate, seeds=seeds, wave=wave, recipe=recipe, chat=chat, source=source))
        wave.end()
        work.waves_done += 1
        work.seeds_done += len(wave.seeds)
        work.calls += count_calls(wave.folder)
        for reason, (n, detail) in count_deferred(wave.folder).items():
            before, first = work.deferred.get(reason, (0, detail))
            work.deferred[reason] = (before + n, first)
        if "stopped" in work.deferred:
            break


def search_on_workers(options: Options, scratch: Path, find: Find) -> dict[str, list[Any]]:
    """What all searches for near-duplicates find, each made by one of the worker processes."""
    if options.processes == 1:
        return in_turn(find)
    run_beam(options, partial(search_near, find=find, folder=scratch))
    return {name: json.loads(found_file(scratch, name).read_text()) for name in SEARCHES}


def run_beam(options: Options, build: Callable[[beam.Pipeline], None]) -> None:
    """Build a graph and run it to its end."""
    pipeline = beam.Pipeline(runner=make_runner(options.runner, options.beam), options=options.beam)
    build(pipeline)
    pipeline.run().wait_until_finish()
    del pipeline
    gc.collect()  # a graph is full of cycles and holds its seeds, and beside a million objects the collector hardly ever looks


def forget_counts(output: Output) -> None:
    """Start the display's counts anew."""
    shutil.rmtree(output.live, ignore_errors=True)
    output.live.mkdir(parents=True)
