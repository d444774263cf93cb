"""The same inputs give the same bytes (DESIGN invariant 3): for any order of lines, waves, workers and moments of a kill."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest
from curated import Curated
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.run import main

PAIRS = 48
TWO_WORKERS = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")

# A server that has imported everything, and forks: a run starts in milliseconds, so that a kill meets its work.
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["pipeline.run"])


def _run(arguments: list[str]) -> None:
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115, for as long as the process lives
    sys.exit(main(arguments))


def write_source(folder: Path, order: random.Random | None) -> Path:
    """The sample's first pairs with all its passages, their lines in another order."""
    folder.mkdir(parents=True)
    for name in ("collection.tsv", "queries.train.tsv", "qrels.train.tsv"):
        lines = (files("pipeline") / "sample" / name).read_text("utf-8").splitlines()
        if name.startswith("qrels"):
            lines = lines[:PAIRS]
        if order:
            order.shuffle(lines)
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of one plain run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(["--source", str(write_source(folder / "source", None)), "--output", str(folder / "out")]) == 0
    return Curated(folder / "out").bytes


@settings(derandomize=True, max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.integers(0, 10_000),
    wave_size=st.integers(8, PAIRS + 10),
    kills=st.lists(st.floats(0.0, 1.5), max_size=3),
    workers=st.just(()),
)
@example(order=1, wave_size=20, kills=[2.5], workers=TWO_WORKERS)
def test_the_same_pairs_give_the_same_bytes(
    undisturbed: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    order: int,
    wave_size: int,
    kills: list[float],
    workers: tuple[str, ...],
) -> None:
    folder = tmp_path_factory.mktemp("disturbed")
    source = write_source(folder / "source", random.Random(order))
    arguments = ["--source", str(source), "--output", str(folder / "out"), "--wave-size", str(wave_size), *workers]
    for seconds in kills:
        run = _server.Process(target=_run, args=(arguments,))
        run.start()
        time.sleep(seconds)
        assert run.pid
        os.kill(run.pid, signal.SIGKILL)
        run.join()
    assert main(arguments) == 0
    assert Curated(folder / "out").bytes == undisturbed
