"""The run against a real HTTP server on loopback, through the real client."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from curated import ROOT, Curated, write_source

from pipeline.chat.session import close_chats
from pipeline.run import main
from tests.fakes.endpoint import KEY, Endpoint, Faults, serving
from tests.fakes.writer import answer, prose

pytestmark = pytest.mark.usefixtures("key")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = {
        f"what does {name} mean in harbour number {i}": prose(f"{name} {i}")
        for i, name in enumerate(["ebb", "flow"] * 60)
    }
    return write_source(tmp_path_factory.mktemp("source"), pairs)


def arguments(source: Path, output: Path, endpoint: Endpoint, *more: str) -> list[str]:
    return [
        *("--source", str(source), "--output", str(output), "--base-url", endpoint.url),
        *("--generator", "writer-1", "--judge", "judge-1", *more),
    ]


def run(*command: str) -> int:
    try:
        return main(list(command))
    finally:
        close_chats()


def test_an_endpoint_that_answers_well_gives_a_data_set_and_is_asked_each_question_once(
    source: Path, tmp_path: Path
) -> None:
    with serving(Endpoint(keep_bodies=True)) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint)) == 0
    made = Curated(tmp_path / "out").manifest
    assert made["counts"] == {"seeds": 120, "accepted": 120, "rejected": 0, "deferred": 0}
    assert max(endpoint.log.served.values()) == 1
    assert sum(endpoint.log.served.values()) == 480
    assert {task: n["made"] for task, n in made["calls"].items()} == dict.fromkeys(made["calls"], 120)
    assert made["models"]["judge"]["versions"] == {"judge-1-2026-01-01": 120}
    assert made["cost_usd"] is None, "the price of these models is unknown, which is not zero"
    assert "temperature" not in endpoint.log.bodies[0]
    assert {body["model"] for body in endpoint.log.bodies} == {"writer-1", "judge-1"}


def test_deleting_the_data_brings_it_back_without_a_call(source: Path, tmp_path: Path) -> None:
    import shutil

    output = Curated(tmp_path / "out")
    with serving(Endpoint()) as endpoint:
        assert run(*arguments(source, output.folder, endpoint)) == 0
        before, asked = output.bytes, sum(endpoint.log.attempts.values())
        shutil.rmtree(output.folder / "data")
        shutil.rmtree(output.folder / ".work" / "waves")
        assert run(*arguments(source, output.folder, endpoint)) == 0
        assert sum(endpoint.log.attempts.values()) == asked
    assert output.bytes == before
    calls = output.manifest["calls"]
    assert all(n["made"] == 0 and n["from_memory"] == 120 for n in calls.values())


CONTENT = {"breaks_schema": 0.05, "not_json": 0.05, "refuses": 0.02, "empty": 0.01, "too_long": 0.02, "filtered": 0.01}
TRANSPORT = {"too_many": 0.05, "server_error": 0.05, "reset": 0.02, "cut_off": 0.05, "hang": 0.01}


def test_with_every_kind_of_fault_every_seed_is_accounted_for_and_rows_equal_those_without_transport_faults(
    source: Path, tmp_path: Path
) -> None:
    outputs = {}
    for name, faults in (("calm", Faults(**CONTENT)), ("stormy", Faults(**CONTENT, **TRANSPORT))):
        outputs[name] = Curated(tmp_path / name)
        with serving(Endpoint(faults=faults)) as endpoint:
            assert run(*arguments(source, outputs[name].folder, endpoint, "--timeout", "2")) == 0
        served, attempts = sum(endpoint.log.served.values()), sum(endpoint.log.attempts.values())
        assert served == sum(n["made"] for n in outputs[name].manifest["calls"].values()), "nothing is paid for twice"
        assert attempts / served < 1.3
    assert outputs["stormy"].bytes == outputs["calm"].bytes
    made = outputs["stormy"].manifest
    assert made["counts"]["seeds"] == 120
    assert {"refusal", "truncated", "content_filter", "empty_answer"} & set(made["rejected_by_reason"])
    assert sum(n["failed_attempts"] for n in made["calls"].values()) > 20


def test_malformed_answers_of_real_models_cost_no_seed_its_account(
    source: Path, tmp_path: Path, realdata: Path
) -> None:
    odd = [
        json.loads(line)[field]
        for file, field in (("malformed-json.jsonl", "input"), ("off-format-model-outputs.jsonl", "response"))
        for line in (realdata / "odd" / file).read_text("utf-8").split("\n")
        if line
    ]

    def responder(body: dict[str, Any]) -> str:
        chance = random.Random(json.dumps(body))
        return chance.choice(odd) if chance.random() < 0.3 else answer(body)

    with serving(Endpoint(responder=responder)) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint)) == 0
    made = Curated(tmp_path / "out").manifest
    assert made["counts"]["seeds"] == 120
    assert made["counts"]["deferred"] == 0
    assert made["counts"]["accepted"] > 60
    assert set(made["rejected_by_reason"]) <= {"schema_violation", "empty_answer"}


KILLS = int(os.environ.get("INFIR_KILLS", "2"))
"""Moments at which a run is killed: more of them for a longer look."""


def names_of_stored(output: Path) -> set[str]:
    """The names under which the endpoint served the answers that a run's store holds."""
    with closing(sqlite3.connect(output / ".work" / "answers.sqlite")) as connection:
        return {json.loads(raw)["id"] for (raw,) in connection.execute("select raw from infir_answers")}


@pytest.mark.parametrize("moment", range(KILLS))
def test_a_run_killed_anywhere_and_repeated_pays_for_nothing_twice(source: Path, tmp_path: Path, moment: int) -> None:
    random.seed(moment)
    log = tmp_path / "served.txt"
    with serving(Endpoint(latency_s=0.05, sigma=0.5, log_file=log)) as endpoint:
        command = [
            sys.executable,
            "-m",
            "pipeline.run",
            *arguments(source, tmp_path / "out", endpoint, "--concurrency", "8"),
        ]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = random.randint(5, 440)
        while child.poll() is None and (not log.exists() or log.read_text().count("\n") < wanted):
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        served_before = sum(endpoint.log.served.values())
        stored = names_of_stored(tmp_path / "out")
        assert run(*arguments(source, tmp_path / "out", endpoint, "--concurrency", "8")) == 0
        repeated = sum(n - 1 for n in endpoint.log.served.values())
        assert wanted <= served_before < 480
        assert repeated <= 8, "at most what was in flight is asked again"
        again = {f"chatcmpl-{name[:16]}" for name, n in endpoint.log.served.items() if n > 1}
        assert not again & stored, "what was stored is never asked again"
        assert run(*arguments(source, tmp_path / "undisturbed", endpoint)) == 0
    assert Curated(tmp_path / "out").bytes == Curated(tmp_path / "undisturbed").bytes


@pytest.mark.parametrize(
    ("endpoint", "more", "says"),
    [
        (Endpoint(key="sk-another"), (), "401"),
        (Endpoint(models=("judge-1",)), (), "writer-1"),
        (Endpoint(faults=Faults(always=403)), (), "403"),
        (Endpoint(), ("--temperature", "0.5", "--base-url", "http://127.0.0.1:9/v1"), "no endpoint at"),
    ],
)
def test_what_cannot_pass_stops_the_run_with_one_sentence_and_status_1(
    endpoint: Endpoint,
    more: tuple[str, ...],
    says: str,
    source: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with serving(endpoint):
        assert run(*arguments(source, tmp_path / "out", endpoint, *more)) == 1
    err = capfd.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert KEY not in err
    made = Curated(tmp_path / "out").manifest
    assert made["counts"]["deferred"] == 120
    assert sum(endpoint.log.attempts.values()) < 120, "the run stops asking"
    with serving(Endpoint()) as mended:
        assert run(*arguments(source, tmp_path / "out", mended)) == 0
    assert Curated(tmp_path / "out").manifest["counts"]["accepted"] == 120


def test_an_endpoint_without_structured_output_is_asked_in_json_mode(source: Path, tmp_path: Path) -> None:
    with serving(Endpoint(structured=False)) as endpoint, serving(Endpoint()) as other:
        assert run(*arguments(source, tmp_path / "json", endpoint)) == 0
        assert run(*arguments(source, tmp_path / "schema", other)) == 0
    assert Curated(tmp_path / "json").bytes == Curated(tmp_path / "schema").bytes


def test_the_window_is_filled_and_never_passed(source: Path, tmp_path: Path) -> None:
    with serving(Endpoint(latency_s=0.03)) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint, "--concurrency", "16")) == 0
    assert endpoint.log.most_in_flight == 16


def test_a_budget_ends_the_run_early_and_a_higher_one_goes_on(source: Path, tmp_path: Path) -> None:
    price = ("--price", "writer-1=100,100", "--price", "judge-1=100,100", "--concurrency", "4")
    with serving(Endpoint()) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint, *price, "--max-cost-usd", "5")) == 3
        first = Curated(tmp_path / "out").manifest
        assert first["counts"]["deferred"] > 0
        assert first["deferred_by_reason"] == {"budget": first["counts"]["deferred"]}
        each = 5 / sum(endpoint.log.served.values())
        assert 5 <= first["cost_usd"] <= 5 + 4 * 3 * each
        assert run(*arguments(source, tmp_path / "out", endpoint, *price)) == 0
    assert max(endpoint.log.served.values()) == 1
    assert Curated(tmp_path / "out").manifest["counts"] == {"seeds": 120, "accepted": 120, "rejected": 0, "deferred": 0}


def test_an_estimate_calls_nothing_and_comes_within_15_percent_of_what_the_run_takes(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    price = ("--price", "writer-1=1,4", "--price", "judge-1=2,8,2")
    with serving(Endpoint(latency_s=0.1)) as endpoint:
        asked = arguments(source, tmp_path / "out", endpoint, *price, "--concurrency", "16")
        assert run(*asked, "--estimate") == 0
        assert not endpoint.log.attempts
        assert "Assumed where" in capfd.readouterr().out
        assert run(*asked, "--num-seeds", "20") == 0
        capfd.readouterr()
        assert run(*asked, "--estimate") == 0
        total = next(line for line in capfd.readouterr().out.split("\n") if line.strip().startswith("total"))
        assert sum(endpoint.log.attempts.values()) == 80
        assert run(*asked) == 0
    cells = [cell.strip() for cell in total.split("│")]
    calls, prompt, completion, dollars = (float(cell.replace(",", "")) for cell in cells[2:6])
    made = Curated(tmp_path / "out").manifest
    assert calls == 480
    assert prompt == pytest.approx(made["tokens"]["total"]["prompt"], rel=0.15)
    assert completion == pytest.approx(made["tokens"]["total"]["completion"], rel=0.15)
    assert dollars == pytest.approx(made["cost_usd"], rel=0.15, abs=0.01)


def test_a_planted_key_is_found_nowhere(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(Endpoint(faults=Faults(server_error=0.1))) as endpoint:
        assert run(*arguments(source, tmp_path / "out", endpoint)) == 0
    with serving(Endpoint(key="sk-another")) as endpoint:
        assert run(*arguments(source, tmp_path / "refused", endpoint)) == 1
    out, err = capfd.readouterr()
    assert KEY not in out + err
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["arguments"]["base_url"] == "127.0.0.1"


def test_a_store_may_lie_elsewhere(source: Path, tmp_path: Path) -> None:
    with serving(Endpoint()) as endpoint:
        for name in ("default", "named"):
            store = () if name == "default" else ("--store", f"sqlite:///{tmp_path}/elsewhere.sqlite")
            assert run(*arguments(source, tmp_path / name, endpoint, *store)) == 0
    assert (tmp_path / "elsewhere.sqlite").is_file()
    assert not (tmp_path / "named" / ".work" / "answers.sqlite").exists()
    assert Curated(tmp_path / "named").bytes == Curated(tmp_path / "default").bytes


def test_two_worker_processes_share_the_window_the_caps_the_budget_and_the_memory(source: Path, tmp_path: Path) -> None:
    processes = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing", "--concurrency", "8")
    price = ("--price", "writer-1=100,100", "--price", "judge-1=100,100")
    with serving(Endpoint(latency_s=0.02)) as endpoint:
        capped = (*processes, *price, "--max-cost-usd", "5", "--rpm", "6000")
        assert run(*arguments(source, tmp_path / "two", endpoint, *capped)) == 3
        each = 5 / sum(endpoint.log.served.values())
        assert 5 <= Curated(tmp_path / "two").manifest["cost_usd"] <= 5 + 8 * 2 * each
        took = endpoint.log.moments[-1] - endpoint.log.moments[0]
        assert took >= len(endpoint.log.moments) / 100 - 1.5, "6,000 a minute are 100 a second, for both together"
        assert run(*arguments(source, tmp_path / "two", endpoint, *processes, *price)) == 0
        assert endpoint.log.most_in_flight <= 8
        assert max(endpoint.log.served.values()) == 1
        assert run(*arguments(source, tmp_path / "one", endpoint)) == 0
    assert Curated(tmp_path / "two").bytes == Curated(tmp_path / "one").bytes
