"""QA format and the Hub: every published shape gives the same pairs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import Judged, SourceError, open_source

RECORDS: list[dict[str, Any]] = [
    {
        "query_id": n,
        "query": f"what is bird number {n}",
        "query_type": "DESCRIPTION",
        "answers": ["A bird."],
        "passages": [
            {"is_selected": 1, "passage_text": f"Bird {n} is a bird.", "url": ""},
            {"is_selected": 0, "passage_text": f"Fish {n} is a fish.", "url": ""},
            {"is_selected": 1, "passage_text": "Birds have feathers.", "url": ""},
        ],
    }
    for n in range(1, 5)
]


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(r) + "\n" for r in records).encode()


def columns(records: list[dict[str, Any]]) -> bytes:
    return json.dumps({key: {str(i): r[key] for i, r in enumerate(records)} for key in records[0]}).encode()


def as_datasets_stores_it(records: list[dict[str, Any]]) -> pa.Table:
    def turned(passages: list[dict[str, Any]]) -> dict[str, list[Any]]:
        return {key: [p[key] for p in passages] for key in passages[0]}

    return pa.Table.from_pylist([{**r, "passages": turned(r["passages"])} for r in records])


def read(path: Path | str, split: str = "train") -> Judged:
    return open_source(str(path), split).read()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_every_published_shape_gives_the_same_pairs(tmp_path: Path) -> None:
    pq.write_table(as_datasets_stores_it(RECORDS), tmp_path / "d.parquet")
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "e.parquet")
    expected = read(written(tmp_path / "a.jsonl", lines(RECORDS)))
    for path in (
        written(tmp_path / "b.json", columns(RECORDS)),
        written(tmp_path / "c.json.gz", gzip.compress(columns(RECORDS))),
        written(tmp_path / "v1.1.json", lines(RECORDS)),
        written(tmp_path / "list.json", json.dumps(RECORDS).encode()),
        tmp_path / "d.parquet",
        tmp_path / "e.parquet",
    ):
        judged = read(path)
        assert (judged.pairs, judged.queries, judged.documents) == (
            expected.pairs,
            expected.queries,
            expected.documents,
        )
        assert judged.report.files[0].sha256
        assert judged.report.judgements == 12
        assert judged.report.not_relevant == 4
    assert len(expected.pairs) == 8
    assert len(expected.documents) == 5, "equal passages share an id"


def test_a_folder_in_the_form_of_the_hub_is_streamed_like_a_file(tmp_path: Path) -> None:
    repository = tmp_path / "ms_marco"
    repository.mkdir()
    pq.write_table(as_datasets_stores_it(RECORDS), repository / "train-00000-of-00001.parquet")
    expected = read(written(tmp_path / "a.jsonl", lines(RECORDS)))
    judged = read(f"hf:{repository}:default")
    assert (judged.pairs, judged.documents) == (expected.pairs, expected.documents)
    assert judged.report.name == "hf:ms_marco:default"
    with pytest.raises(SourceError, match="hf:ms_marco:default, split nosuch, can't be loaded") as caught:
        read(f"hf:{repository}:default", "nosuch")
    assert str(tmp_path) not in str(caught.value)


def test_a_hub_that_is_not_reached_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Check the name and the network") as caught:
        read(f"hf:{tmp_path}/nowhere:v2.1")
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="expected hf:REPO:CONFIG"):
        open_source("hf:", "train")


def test_records_that_are_not_in_the_format_are_counted(tmp_path: Path) -> None:
    good = lines(RECORDS * 3)
    bad = [
        b"{not json",
        b"[1, 2]",
        b'{"query_id": 9, "query": "no passages"}',
        b'{"query_id": 9, "query": " ", "passages": []}',
        b'{"query_id": [9], "query": "x", "passages": []}',
        b'{"query_id": 9, "query": "x", "passages": {"is_selected": [1], "passage_text": []}}',
        b'{"query_id": 9, "query": "x", "passages": [{"is_selected": "yes", "passage_text": "y"}]}',
        b'{"query_id": 9, "query": "x", "passages": [{"is_selected": 1, "passage_text": " "}]}',
        b'{"query_id": 9, "query": "\xff", "passages": []}',
        b"",
        b"[" * 100_000,
    ]
    judged = read(written(tmp_path / "a.jsonl", good + b"\n".join(bad)))
    assert judged.report.malformed.counts == {
        "bad_json": 2,
        "wrong_shape": 5,
        "empty_text": 2,
        "bad_utf8": 1,
        "empty_line": 1,
    }
    assert judged.report.malformed.examples["bad_json"][0].startswith("a.jsonl:13: ")
    assert len(judged.pairs) == 8
    assert judged.report.duplicates.counts == {"judgement": 16}


def test_an_id_with_two_queries_keeps_the_smaller(tmp_path: Path) -> None:
    other = {**RECORDS[0], "query": "a smaller text"}
    for name, records in (("a.jsonl", [RECORDS[0], other]), ("b.jsonl", [other, RECORDS[0]])):
        judged = read(written(tmp_path / name, lines(records)))
        assert judged.queries == {"1": "a smaller text"}
        assert judged.report.duplicates.counts["id_with_another_text"] >= 1


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("cut.json", columns(RECORDS)[:-50], r"cut.json:1: not JSON"),
        ("other.json", b'{"data": []}', "is not MS MARCO's QA format"),
        ("latin.json", b'{"a":\n"\xff"}', r"latin.json:2: not UTF-8"),
        ("deep.json", b"[" * 100_000, r"deep.json: nested too deeply|deep.json:1: not JSON"),
        (
            "lines.jsonl",
            b"x\n" + lines(RECORDS[:1]) + b"y\n",
            r"lines.jsonl:1: not JSON .* 2 of 3 records are malformed",
        ),
        ("test.jsonl", lines([{**RECORDS[0], "passages": RECORDS[0]["passages"][1:2]}]), "none is selected"),
        ("broken.parquet", b"PAR1", "can't be read as parquet"),
        ("empty.jsonl", b"", "no usable pair"),
    ],
)
def test_an_unusable_file_is_refused_with_one_sentence(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        read(written(tmp_path / name, data))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_parquet_file_without_the_columns_says_which_are_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="it has no column query_id or passages"):
        read(tmp_path / "a.parquet")
