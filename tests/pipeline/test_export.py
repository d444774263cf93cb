from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonlines
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from pipeline.export import FORMATS, main
from pipeline.records import TEXT_COLUMNS


@pytest.fixture
def output(sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.folder, tmp_path / "infir", ignore=shutil.ignore_patterns(".work")))


def rows_of(folder: Path, split: str) -> list[dict]:
    return [row for file in sorted((folder / "data").glob(f"{split}-*")) for row in pq.read_table(file).to_pylist()]


def exported(output: Path, to: Path, *more: str) -> Path:
    assert main([str(output), "--to", str(to), *more]) == 0
    return to


def test_inf_ir_holds_the_seven_columns_of_every_row(sample, tmp_path: Path) -> None:
    to = exported(sample.folder, tmp_path / "x", "--format", "inf-ir")
    for split in ("train", "validation", "test"):
        with jsonlines.open(to / f"{split}.jsonl") as reader:
            assert list(reader) == [{name: row[name] for name in TEXT_COLUMNS} for row in rows_of(sample.folder, split)]


def test_tevatron_reads_its_rows_with_the_instruction_negative_first(sample, tmp_path: Path) -> None:
    to = exported(sample.folder, tmp_path / "x", "--format", "tevatron", "--split", "train")
    loaded = load_dataset("json", data_files=str(to / "train.jsonl"), cache_dir=str(tmp_path / "c"))["train"]
    assert {"query_id", "query", "positive_passages", "negative_passages", "only_instruction"} <= set(
        loaded.column_names
    )
    rows = {row["id"]: row for row in rows_of(sample.folder, "train")}
    assert loaded.num_rows == 3 * len(rows)
    from tevatron.datasets.preprocessor import TrainPreProcessor

    class Words:
        def encode(self, text: str, **_: object) -> list[str]:
            return text.split()

    encoded = TrainPreProcessor(Words(), separator=" ")(loaded[0])
    assert encoded["query"] == loaded[0]["query"].split()
    assert len(encoded["positives"]) == 1
    assert len(encoded["negatives"]) == 2
    for item in loaded:
        row = rows[item["query_id"].rsplit("-", 1)[0]]
        if item["query_id"].endswith("-0"):
            assert item["query"] == f"{row['query_positive']} {row['instruction_positive']}"
            assert item["positive_passages"][0] == {"docid": row["document_id"], "title": "", "text": row["document"]}
            assert [p["text"] for p in item["negative_passages"]] == [
                row["hard_negative_document_1"],
                row["hard_negative_document_2"],
            ]
        if item["query_id"].endswith("-1"):
            assert item["positive_passages"][0]["text"] == row["hard_negative_document_1"]
            assert item["negative_passages"][0]["text"] == row["document"]


def test_sentence_transformers_collates_the_columns_in_their_order(sample, tmp_path: Path) -> None:
    from sentence_transformers.data_collator import SentenceTransformerDataCollator

    to = exported(sample.folder, tmp_path / "x", "--format", "sentence-transformers", "--split", "test")
    loaded = load_dataset("parquet", data_files=str(to / "test.parquet"), cache_dir=str(tmp_path / "c"))["train"]
    assert loaded.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    seen: list[list[str]] = []

    def tokenize(texts: list[str], **_: object) -> dict[str, list[int]]:
        seen.append(list(texts))
        return {"input_ids": [len(text) for text in texts]}

    SentenceTransformerDataCollator(tokenize)([loaded[0], loaded[1]])
    assert seen == [[loaded[0][name], loaded[1][name]] for name in loaded.column_names]


def test_flagembedding_reads_its_rows_with_the_instruction_as_prompt(sample, tmp_path: Path) -> None:
    from FlagEmbedding.abc.finetune.embedder import AbsEmbedderDataArguments, AbsEmbedderTrainDataset

    to = exported(sample.folder, tmp_path / "x", "--format", "flagembedding", "--split", "test")
    given = AbsEmbedderDataArguments(
        train_data=[str(to / "test.jsonl")],
        cache_path=str(tmp_path / "f"),
        train_group_size=3,
        query_instruction_for_retrieval="",
        query_instruction_format="{} | {}",
    )
    query, passages, _ = AbsEmbedderTrainDataset(given, tokenizer=None)[0]
    first = rows_of(sample.folder, "test")[0]
    assert query == f"{first['instruction_positive']} | {first['query_positive']}"
    assert passages[0] == first["document"]
    assert set(passages[1:]) == {first["hard_negative_document_1"], first["hard_negative_document_2"]}
    loaded = load_dataset("json", data_files=str(to / "test.jsonl"), cache_dir=str(tmp_path / "c"))["train"]
    assert loaded.column_names == ["query", "pos", "neg", "prompt"]
    row = rows_of(sample.folder, "test")[0]
    assert loaded[0] == {
        "query": row["query_positive"],
        "pos": [row["document"]],
        "neg": [row["hard_negative_document_1"], row["hard_negative_document_2"]],
        "prompt": row["instruction_positive"],
    }


def test_beir_is_opened_by_its_own_loader(sample, tmp_path: Path) -> None:
    from beir.datasets import data_loader as beir

    to = exported(sample.folder, tmp_path / "x", "--format", "beir")
    corpus, queries, qrels = beir.GenericDataLoader(str(to)).load(split="test")
    rows = rows_of(sample.folder, "test")
    assert len(queries) == len(qrels) == 3 * len(rows)
    for row in rows:
        assert qrels[f"{row['id']}-0"] == {row["document_id"]: 1}
        assert corpus[row["document_id"]]["text"] == row["document"]


def test_mteb_computes_p_mrr_from_the_query_pairs(sample, tmp_path: Path) -> None:
    from mteb._evaluators import retrieval_metrics as metrics

    to = exported(sample.folder, tmp_path / "x", "--format", "mteb", "--split", "test")
    with jsonlines.open(to / "qrels_diff" / "test.jsonl") as reader:
        changed = {item["query-id"]: item["corpus-ids"] for item in reader}
    with jsonlines.open(to / "queries.jsonl") as reader:
        queries = {item["_id"]: item for item in reader}
    obeys: dict[str, dict[str, float]] = {}
    new: dict[str, dict[str, float]] = {}
    for name, documents in changed.items():
        assert {f"{name}-og", f"{name}-changed"} <= set(queries)
        obeys[f"{name}-og"] = {documents[0]: 2.0, "other": 1.0}
        new[f"{name}-changed"] = {documents[0]: 1.0, "other": 2.0}
    score = metrics.calculate_pmrr(obeys, new, changed)
    assert score == pytest.approx(0.5)


def test_without_instructions_only_the_query_and_its_own_negative_are_left(sample, tmp_path: Path) -> None:
    to = exported(sample.folder, tmp_path / "x", "--format", "tevatron", "--split", "test", "--no-instructions")
    rows = rows_of(sample.folder, "test")
    with jsonlines.open(to / "test.jsonl") as reader:
        for item, row in zip(reader, rows, strict=True):
            assert item["query"] == row["query_positive"]
            assert [p["text"] for p in item["negative_passages"]] == [row["hard_negative_document_2"]]


@pytest.mark.parametrize("format_", FORMATS)
def test_bytes_are_the_same_every_time(sample, tmp_path: Path, format_: str) -> None:
    one = exported(sample.folder, tmp_path / "one", "--format", format_)
    two = exported(sample.folder, tmp_path / "two", "--format", format_)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


@pytest.mark.parametrize("format_", FORMATS)
def test_hostile_texts_survive(output: Path, tmp_path: Path, format_: str) -> None:
    hostile = 'tab\there "quoted" <script> \u2028 \u202e new\nline \x85 \\ end ' + "long " * 4000
    for file in (output / "data").glob("*.parquet"):
        rows = [row | {name: hostile + row[name] for name in TEXT_COLUMNS} for row in pq.read_table(file).to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    to = exported(output, tmp_path / "x", "--format", format_)
    for file in to.rglob("*.jsonl"):
        lines = file.read_text("utf-8").split("\n")
        assert len(file.read_text("utf-8").splitlines()) == len(lines) - 1, "no text breaks a line for any reader"
        assert all(json.loads(line) for line in lines if line)
    for file in to.rglob("*.tsv"):
        assert all(line.count("\t") == 2 for line in file.read_text("utf-8").split("\n") if line)


def test_what_cannot_be_used_is_one_line_and_leaves_nothing(
    output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    bad = [[str(tmp_path / "full"), "--to", str(tmp_path / "a")], [str(output), "--to", str(tmp_path / "full")]]
    for arguments in bad:
        assert main([*arguments, "--format", "beir"]) == 2
    assert main([str(output), "--to", str(tmp_path / "b"), "--format", "mteb", "--no-instructions"]) == 2
    shard = next((output / "data").glob("train-00001*"))
    shard.write_bytes(shard.read_bytes()[:80])
    assert main([str(output), "--to", str(tmp_path / "c"), "--format", "beir"]) == 2
    lines = capfd.readouterr().err.strip().split("\n")
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines)
    assert not [p for p in tmp_path.iterdir() if p.name.strip(".").startswith(("a", "b", "c"))]
    with pytest.raises(SystemExit) as stop:
        main([str(output), "--to", str(tmp_path / "d"), "--format", "no-such"])
    assert stop.value.code == 2
