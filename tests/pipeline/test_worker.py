"""The nursery of worker processes: nothing of it outlives the run, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.curated import ROOT, Curated, run_command

TWO = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing", "--wave-size", "12")


RUNNING = 4
"""Processes while workers work: the run, the nursery, a stub and a worker at least."""


def start(output: Path) -> subprocess.Popen[str]:
    """A run on two workers that is in its second wave, in a session of its own."""
    run = subprocess.Popen(
        [sys.executable, "-m", "pipeline.run", "--output", str(output), *TWO],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list((output / ".work" / "waves").glob("*"))) < 2 or len(in_session(run.pid)) < RUNNING:
        assert run.poll() is None, "it ended before it was seen at work"
        time.sleep(0.01)
    return run


def in_session(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = status.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(number) == session and state != "Z":
            found.append(int(status.parent.name))
    return found


def soon_empty(session: int) -> bool:
    deadline = time.monotonic() + 20
    while in_session(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not in_session(session)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_a_killed_run_takes_its_nursery_and_workers_along(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.kill()
    run.communicate()
    assert soon_empty(run.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_ctrl_c_ends_two_workers_with_one_sentence_and_the_same_command_finishes(
    sample: Curated, tmp_path: Path
) -> None:
    run = start(tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to every process of the run
    _, err = run.communicate(timeout=60)
    assert run.returncode == 3, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert soon_empty(run.pid)
    done = run_command("--output", str(tmp_path), *TWO)
    assert done.returncode == 0, done.stderr
    assert Curated(tmp_path).bytes == sample.bytes
