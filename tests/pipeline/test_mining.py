"""Mined hard negatives, by whole runs over the embedded sample."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq
from curated import Curated

from pipeline.run import main


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
    rows = [row for file in folders["13"].folder.glob("data/*.parquet") for row in pq.read_table(file).to_pylist()]
    found = [row for row in rows if row["mined_scores"]]
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
