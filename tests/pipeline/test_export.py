from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jsonlines
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from pipeline.export import FORMATS, docid, main
from pipeline.records import TEXT_COLUMNS


@pytest.fixture
def output(sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.folder, tmp_path / "infir", ignore=shutil.ignore_patterns(".work")))


def mined_of(row: dict) -> list[tuple[str, str]]:
    """(id, text) of the mined passages that are negatives, by the judge's grade."""
    found = zip(row["mined_document_ids"], row["mined_documents"], row["mined_relevance"], strict=True)
    return [(name, text) for name, text, grade in found if grade is None or grade < 2]


def rows_of(folder: Path, split: str) -> list[dict]:
    return [row for file in sorted((folder / "data").glob(f"{split}-*")) for row in pq.read_table(file).to_pylist()]


def texts_of(value: object) -> Iterator[str]:
    """Every string inside, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_of(inner)


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
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

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


def test_mteb_loads_the_folder_as_a_followir_task_and_computes_p_mrr(
    sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.tasks import Core17InstructionRetrieval

    to = exported(sample.folder, tmp_path / "x", "--format", "mteb", "--split", "test")

    class Ours(Core17InstructionRetrieval):
        metadata = Core17InstructionRetrieval.metadata.model_copy(
            update={"dataset": {"path": str(to), "revision": "local"}}
        )

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "c"))
    task = Ours()
    task.load_data()
    data = task.dataset["default"]["test"]
    rows = rows_of(sample.folder, "test")
    queries = {query["id"]: query for query in data["queries"]}
    assert len(queries) == 2 * len(rows)
    results: dict[str, dict[str, float]] = {}
    for row in rows:
        p, p1 = row["document_id"], docid(row, "hard_negative_document_1")
        og, changed = queries[f"{row['id']}-og"], queries[f"{row['id']}-changed"]
        assert (og["text"], og["instruction"]) == (row["query_positive"], row["instruction_positive"])
        assert changed["instruction"] == row["instruction_negative"]
        assert data["relevant_docs"][og["id"]] == {p: 1}
        assert data["relevant_docs"][changed["id"]] == {p1: 1}
        results |= {og["id"]: {p: 2.0, p1: 1.0}, changed["id"]: {p: 1.0, p1: 2.0}}
    scores = task.task_specific_scores({}, data["relevant_docs"], results, "test", "default")
    assert scores["p-MRR"] == pytest.approx(0.5)
    assert scores["og"]["ndcg_at_5"] == scores["changed"]["ndcg_at_5"] == 1.0


@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "mteb"])
def test_without_instructions_none_of_their_words_is_left_and_the_other_instructions_passage_is_no_negative(
    sample, tmp_path: Path, format_: str
) -> None:
    to = exported(sample.folder, tmp_path / "x", "--format", format_, "--split", "test", "--no-instructions")
    if format_ == "sentence-transformers":
        written = json.dumps(pq.read_table(to / "test.parquet").to_pylist(), ensure_ascii=False)
    else:
        written = "\n".join(file.read_text("utf-8") for file in sorted(to.rglob("*.jsonl")))
    for row in rows_of(sample.folder, "test"):
        for name in TEXT_COLUMNS:
            held = json.dumps(row[name], ensure_ascii=False)[1:-1] in written
            assert held == (name in ("query_positive", "document", "hard_negative_document_2")), name


@pytest.mark.parametrize("format_", FORMATS)
def test_bytes_are_the_same_every_time(sample, tmp_path: Path, format_: str) -> None:
    one = exported(sample.folder, tmp_path / "one", "--format", format_)
    two = exported(sample.folder, tmp_path / "two", "--format", format_)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


@pytest.mark.parametrize("format_", FORMATS)
def test_hostile_texts_survive(output: Path, tmp_path: Path, format_: str) -> None:
    hostile = (
        'tab\there "quoted" <script> \u2028 \u202e {{ x }} {% y %} \x00\x1b new\nline \x85 \\ end ' + "long " * 4000
    )
    for file in (output / "data").glob("*.parquet"):
        rows = [row | {name: hostile + row[name] for name in TEXT_COLUMNS} for row in pq.read_table(file).to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    to = exported(output, tmp_path / "x", "--format", format_)
    read: list[dict] = []
    for file in to.rglob("*.jsonl"):
        lines = file.read_text("utf-8").split("\n")
        assert len(file.read_text("utf-8").splitlines()) == len(lines) - 1, "no text breaks a line for any reader"
        read += [json.loads(line) for line in lines if line]
    read += [row for file in to.rglob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert any(hostile in text for row in read for text in texts_of(row)), "what is read is what was written"
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
    (output / "manifest.json").write_text("{}")
    assert main([str(output), "--to", str(tmp_path / "c"), "--format", "beir"]) == 2
    lines += capfd.readouterr().err.strip().split("\n")
    assert len(lines) == 5
    assert all(line.startswith("error: ") for line in lines)
    assert not [p for p in tmp_path.iterdir() if p.name.strip(".").startswith(("a", "b", "c"))]
    with pytest.raises(SystemExit) as stop:
        main([str(output), "--to", str(tmp_path / "d"), "--format", "no-such"])
    assert stop.value.code == 2


def test_lists_of_negatives_go_on_with_the_mined_ones_that_the_judge_does_not_find_relevant(
    mined, tmp_path: Path
) -> None:
    rows = {row["id"]: row for row in mined.rows("train")}
    assert any(max(filter(None, row["mined_relevance"]), default=0) >= 2 for row in rows.values())
    tevatron = exported(mined.folder, tmp_path / "t", "--format", "tevatron", "--split", "train", "--mined")
    seen = 0
    with jsonlines.open(tevatron / "train.jsonl") as reader:
        for item in reader:
            name, _, context = item["query_id"].rpartition("-")
            wanted = mined_of(rows[name]) if context == "0" else []
            assert [(p["docid"], p["text"]) for p in item["negative_passages"][2:]] == wanted
            seen += len(wanted)
    assert seen > 50
    flag = exported(mined.folder, tmp_path / "f", "--format", "flagembedding", "--split", "train", "--mined")
    with jsonlines.open(flag / "train.jsonl") as reader:
        negatives = [item["neg"][2:] for item in reader]
    assert negatives[::3] == [[text for _, text in mined_of(row)] for row in rows.values()]
    assert not any(negatives[1::3] + negatives[2::3])
    plain = exported(mined.folder, tmp_path / "p", "--format", "flagembedding", "--mined", "--no-instructions")
    with jsonlines.open(plain / "train.jsonl") as reader:
        assert [item["neg"][1:] for item in reader] == negatives[::3]


def test_sentence_transformers_has_the_mined_ones_in_a_file_of_triplets(mined, tmp_path: Path) -> None:
    to = exported(mined.folder, tmp_path / "x", "--format", "sentence-transformers", "--split", "train", "--mined")
    without = exported(mined.folder, tmp_path / "y", "--format", "sentence-transformers", "--split", "train")
    assert (to / "train.parquet").read_bytes() == (without / "train.parquet").read_bytes()
    loaded = load_dataset("parquet", data_files=str(to / "train-mined.parquet"), cache_dir=str(tmp_path / "c"))["train"]
    assert [tuple(row.values()) for row in loaded] == [
        (f"{row['query_positive']} {row['instruction_positive']}", row["document"], text)
        for row in mined.rows("train")
        for _, text in mined_of(row)
    ]


@pytest.mark.parametrize("format_", ["beir", "mteb"])
def test_a_corpus_holds_mined_passages_that_no_row_finds_relevant_and_judgements_stay(
    mined, tmp_path: Path, format_: str
) -> None:
    to = exported(mined.folder, tmp_path / "x", "--format", format_, "--mined")
    without = exported(mined.folder, tmp_path / "y", "--format", format_)
    for file in without.rglob("*.*"):
        if file.name != "corpus.jsonl":
            assert (to / file.relative_to(without)).read_bytes() == file.read_bytes()
    more, fewer = ({p["_id"]: p["text"] for p in jsonlines.open(f / "corpus.jsonl")} for f in (to, without))
    right = {
        name
        for row in mined.rows()
        for name, grade in zip(row["mined_document_ids"], row["mined_relevance"], strict=True)
        if grade is not None and grade >= 2
    }
    wanted = {name: text for row in mined.rows() for name, text in mined_of(row) if name not in right}
    assert more == wanted | fewer
    assert len(more) > len(fewer) + 20


@pytest.mark.parametrize("format_", FORMATS)
def test_without_the_flag_mined_passages_change_nothing(mined, tmp_path: Path, format_: str) -> None:
    bare = Path(shutil.copytree(mined.folder, tmp_path / "bare", ignore=shutil.ignore_patterns(".work")))
    for file in bare.glob("data/*"):
        table = pq.read_table(file)
        nulls = [pa.nulls(len(table), f.type) if f.name.startswith("mined") else table[f.name] for f in table.schema]
        pq.write_table(pa.table(nulls, schema=table.schema), file)
    one = exported(mined.folder, tmp_path / "one", "--format", format_)
    two = exported(bare, tmp_path / "two", "--format", format_)
    for file in (f for f in one.rglob("*") if f.is_file()):
        assert file.read_bytes() == (two / file.relative_to(one)).read_bytes()


def test_mined_passages_that_are_not_there_or_have_no_place_are_one_sentence(
    sample, mined, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sample.folder), "--to", str(tmp_path / "a"), "--format", "tevatron", "--mined"]) == 2
    assert main([str(mined.folder), "--to", str(tmp_path / "b"), "--format", "inf-ir", "--mined"]) == 2
    lines = capfd.readouterr().err.strip().split("\n")
    assert len(lines) == 2
    assert "pipeline.run --mine" in lines[0]
    assert "the seven columns" in lines[1]
    assert not list(tmp_path.iterdir())
