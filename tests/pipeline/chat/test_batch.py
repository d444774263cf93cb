from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from curated import ROOT, Curated, write_source

from pipeline.chat import batch
from pipeline.chat.memory import open_engine
from pipeline.chat.session import close_chats
from pipeline.run import main
from tests.fakes.batches import Batches
from tests.fakes.endpoint import KEY, Endpoint, Faults, serving
from tests.fakes.writer import prose

KILLS = int(os.environ.get("INFIR_KILLS", "2"))
"""Moments at which a run is killed: more of them for a longer look."""
CONTENT = Faults(breaks_schema=0.06, refuses=0.03, too_long=0.03)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batch, "POLL_S", 0.01)
    monkeypatch.setattr(batch.Batches.wait, "__defaults__", (0.01,))
    yield
    close_chats()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(
        tmp_path_factory.mktemp("source"), {f"what does word {i} mean": prose(f"word {i}") for i in range(24)}
    )


def arguments(source: Path, output: Path, endpoint: Endpoint, *more: str) -> list[str]:
    given = ["--source", str(source), "--output", str(output), "--base-url", endpoint.url]
    return [*given, "--generator", "writer-1", "--judge", "judge-1", *more]


def run(*command: str) -> int:
    try:
        return main(list(command))
    finally:
        close_chats()


@pytest.fixture(scope="module")
def online(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an online run over the same answers gives."""
    folder = tmp_path_factory.mktemp("online") / "out"
    with pytest.MonkeyPatch.context() as patch, serving(Endpoint(faults=CONTENT)) as endpoint:
        patch.setenv("OPENAI_API_KEY", KEY)
        assert run(*arguments(source, folder, endpoint)) == 0
    return Curated(folder).bytes


@pytest.mark.parametrize(
    "batches",
    [
        Batches(),
        Batches(fails=0.2),
        Batches(expires=(0,), cancelled=(2,)),
    ],
    ids=["smooth", "failing lines", "expired and cancelled jobs"],
)
def test_a_batch_run_gives_the_bytes_of_an_online_run_and_pays_for_nothing_twice(
    batches: Batches, source: Path, tmp_path: Path, online: dict[str, bytes]
) -> None:
    with serving(Endpoint(faults=CONTENT, batches=batches)) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint, "--mode", "batch", "--wait")) == 0
    made = Curated(tmp_path / "out")
    assert made.bytes == online
    assert not endpoint.log.attempts, "nothing was asked online"
    used = sum(n["made"] + n["from_memory"] for n in made.manifest["calls"].values())
    assert used >= sum(endpoint.log.served.values())


def test_without_wait_a_run_ends_with_3_while_jobs_are_out_and_the_same_command_goes_on(
    source: Path, tmp_path: Path, online: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    statuses = []
    with serving(Endpoint(faults=CONTENT)) as endpoint:
        while not statuses or statuses[-1] == 3:
            statuses.append(run(*arguments(source, tmp_path / "out", endpoint, "--mode", "batch")))
            assert len(statuses) < 30
            counts = Curated(tmp_path / "out").manifest["counts"]
            assert counts["seeds"] == 24 == sum(counts[k] for k in ("accepted", "rejected", "deferred"))
    assert statuses[-1] == 0
    assert len(statuses) > 3
    assert Curated(tmp_path / "out").bytes == online
    assert "jobs running" in capfd.readouterr().err


@pytest.mark.timeout(60 + 15 * KILLS)
def test_a_batch_run_killed_at_any_moment_loses_no_job_and_pays_for_nothing_twice(
    source: Path, tmp_path: Path, online: dict[str, bytes]
) -> None:
    chance = random.Random(3)
    with serving(Endpoint(faults=CONTENT, batches=Batches(polls=2))) as endpoint:
        command = [
            sys.executable,
            "-m",
            "pipeline.run",
            *arguments(source, tmp_path / "out", endpoint, "--mode", "batch"),
        ]
        for _ in range(KILLS):
            child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            uploads = len(endpoint.batches.files)
            deadline = time.monotonic() + 20
            while child.poll() is None and len(endpoint.batches.files) == uploads and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert run(*arguments(source, tmp_path / "out", endpoint, "--mode", "batch", "--wait")) == 0
        # An answer to the same body may be asked for twice, as the second and the third try of one that broke its schema.
        again = sum(n - 1 for n in endpoint.log.served.values())
        broken = (
            sum(n["made"] + n["from_memory"] for n in Curated(tmp_path / "out").manifest["calls"].values()) - 4 * 24
        )
        assert again <= max(0, broken)
    assert Curated(tmp_path / "out").bytes == online


def test_batch_answers_cost_half_and_a_budget_holds_jobs_back(source: Path, tmp_path: Path) -> None:
    price = ("--price", "writer-1=100,100", "--price", "judge-1=100,100", "--mode", "batch", "--wait")
    with serving(Endpoint()) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint, *price, "--max-cost-usd", "1.5")) == 3
        first = Curated(tmp_path / "out").manifest
        assert 0 < first["cost_usd"] <= 1.65
        assert set(first["deferred_by_reason"]) <= {"budget", "batch_running"}
        assert run(*arguments(source, tmp_path / "out", endpoint, *price)) == 0
        batched = Curated(tmp_path / "out").manifest["cost_usd"]
        assert run(*arguments(source, tmp_path / "online", endpoint, *price[:4])) == 0
    assert batched == pytest.approx(Curated(tmp_path / "online").manifest["cost_usd"] / 2)


def test_files_keep_within_the_limits(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: dict[str, bytes]
) -> None:
    monkeypatch.setattr(batch.Batches.__init__, "__defaults__", (7, 60_000))
    with serving(Endpoint(faults=CONTENT, batches=Batches(lines=7, size=60_000))) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint, "--mode", "batch", "--wait")) == 0
        assert len(endpoint.batches.jobs) > 12
    assert Curated(tmp_path / "out").bytes == online


def test_a_wrong_key_in_batch_mode_is_one_sentence(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(Endpoint(key="sk-another")) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint, "--mode", "batch", "--wait")) == 1
    err = capfd.readouterr().err
    assert "401" in err
    assert "Traceback" not in err
    assert KEY not in err


LOCKED = """
import sys, time
from pathlib import Path
from pipeline.chat.batch import _alone
from pipeline.chat.memory import open_engine

with _alone(open_engine(sys.argv[1])):
    Path(sys.argv[2]).write_text("held")
    time.sleep(1.0)
    Path(sys.argv[2]).write_text("done")
"""


def test_of_several_runs_on_one_store_one_at_a_time_moves_the_jobs(store: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    engine = open_engine(store)
    other = subprocess.Popen([sys.executable, "-c", LOCKED, store, str(said)], cwd=ROOT)
    while not said.exists() or not said.read_text():
        assert other.poll() is None
        time.sleep(0.01)
    with batch._alone(engine):
        assert said.read_text() == "done"
    assert other.wait() == 0
    engine.dispose()
