"""Mined passages as further negatives, from shards to a trained model."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.mining.dense import Dense, load_encoder
from pipeline.mining.passages import Passages
from pipeline.run import main as curate
from tests.train.conftest import record, write_shards
from tests.train.test_fit import far, run
from tests.train.test_objectives import mined
from train.batches import Collator, RowOptions
from train.data import checksum, load_rows, training_rows
from train.encoder import Encoder, EncoderOptions
from train.errors import UsageError

LONG = "the bridge 50 is explained here at great length and with every detail of every river and every garden"


def with_mined(number: int) -> dict[str, Any]:
    """Every third row has none; of every fourth one the first is relevant."""
    found = (
        [] if number % 3 == 0 else [f"{LONG} {number}", f"the comet {number + 15} is short", "the candle 41 is short"]
    )
    return record(number, **mined(*found, grade=2 if number % 4 == 0 else 1))


@pytest.fixture
def mined_shards(tmp_path: Path) -> Path:
    """24 training rows, 16 of them with mined passages, 8 of which have a relevant one; 8 rows for validation, 8 for test."""
    rows = [with_mined(number) for number in range(40)]
    return write_shards(tmp_path / "mined", {"train": rows[:24], "validation": rows[24:32], "test": rows[32:]})


def test_a_model_trains_on_mined_negatives_and_says_what_they_were(
    mined_shards: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--max-steps", "3", "--objective", "multi:P,IQ", "--passage-length", "12", "--mini-batch-size", "16")
    assert run(mined_shards, tiny, tmp_path / "plain", *flags) == 0
    plain = capsys.readouterr().out
    assert "mined negatives" not in plain
    assert run(mined_shards, tiny, tmp_path / "mined", *flags, "--mined-negatives", "2") == 0
    said = capsys.readouterr().out
    right = sum(n % 3 != 0 and n % 4 == 0 for n in range(24))
    assert f"mined negatives: 32, at most 2 a tuple; 8 tuples have none; {right} passages left out" in said
    cut = [float(text.split("passages: ")[1].split("average, ")[1].split("%")[0]) for text in (plain, said)]
    assert cut[1] > cut[0], "the long mined passages count among those that are cut"
    made = json.loads((tmp_path / "mined" / "fit.json").read_text())
    assert made["settings"]["mined_negatives"] == 2
    assert far(tmp_path / "plain", tmp_path / "mined") > 1e-4


def test_the_negatives_of_a_row_are_the_first_that_the_judge_does_not_find_relevant() -> None:
    found = ("the river 1 is short", "the river 2 is short", "the river 3 is short")
    for grade, wanted, also in (
        (3, found[1:], found[0]),
        (2, found[1:], found[0]),
        (1, found[:2], ""),
        (None, found[:2], ""),
    ):
        first, *others = RowOptions(mined_negatives=2).rows(record(0, **mined(*found, grade=grade)))
        assert (first.mined, first.also) == (wanted, also)
        assert not any(row.mined or row.also for row in others)
    assert not any(row.mined for row in RowOptions().rows(record(0, **mined(*found))))


def test_mined_passages_are_encoded_within_the_passages_length(mined_shards: Path, tiny: Path) -> None:
    encoder = Encoder.load(str(tiny), EncoderOptions(passage_length=10))
    rows = load_rows(str(mined_shards), "train", mined=True)
    batch = Collator(encoder.model, encoder.format, RowOptions(mined_negatives=2))([rows[1], rows[2], rows[3]])
    assert batch["passage_input_ids"].shape[1] == 10
    texts = {row["document"] for row in rows.select([1, 2, 3])}
    assert len(batch["label"]["mined"]) == 4, "the third row has none"
    assert len(batch["passage_input_ids"]) == 3 * len(texts) + 4


def test_rejected_rows_bring_theirs_and_the_checksum_knows_them(mined_shards: Path) -> None:
    nothing = {"mined_documents": None, "mined_relevance": None}
    rejected = [record(100, split="train", **nothing), record(101, split="train", **mined("the river 3 is short"))]
    write_shards(mined_shards, {"rejected": rejected})
    rows, _ = training_rows(str(mined_shards), unfiltered=True, hold_out=(), mined=True)
    assert rows[-2]["mined_documents"] == []
    assert rows[-1]["mined_documents"] == ["the river 3 is short"]
    assert checksum(rows) != checksum(training_rows(str(mined_shards), unfiltered=True, hold_out=())[0])


@pytest.mark.parametrize("columns", ["absent", "null", "empty"])
def test_a_folder_without_mined_passages_is_one_sentence(tmp_path: Path, shards: Path, columns: str) -> None:
    if columns != "absent":
        for file in (shards / "data").glob("train-*"):
            table = pq.read_table(file)
            value = None if columns == "null" else []
            for name, kind in (("mined_documents", pa.string()), ("mined_relevance", pa.int8())):
                table = table.append_column(name, pa.array([value] * len(table), pa.list_(kind)))
            pq.write_table(table, file)
    assert len(load_rows(str(shards), "train")) == 24
    with pytest.raises(UsageError, match=r"pipeline\.run --mine bm25") as raised:
        load_rows(str(shards), "train", mined=True)
    assert "\n" not in str(raised.value)


def test_passages_mined_by_an_encoder_are_its_nearest_and_it_trains_on_them(
    make_encoder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = files("pipeline") / "sample"
    texts = [
        line.partition("\t")[2]
        for name in ("collection", "queries.train")
        for line in (sample / f"{name}.tsv").read_text("utf-8").splitlines()
    ]
    encoder, output = make_encoder(texts), tmp_path / "infir"
    mining = ("--mine", "dense", "--mine-model", str(encoder), "--mine-k", "3")
    assert curate(["--output", str(output), "--num-seeds", "60", *mining]) == 0
    rows = [row for file in sorted((output / "data").glob("*")) for row in pq.read_table(file).to_pylist()]
    assert {len(row["mined_documents"]) for row in rows} == {3}
    assert json.loads((output / "manifest.json").read_text())["mining"]["model"] == encoder.name
    found = load_encoder(str(encoder))
    queries = found.queries([row["query_positive"] for row in rows])
    collection = dict(line.split("\t", 1) for line in (sample / "collection.tsv").read_text("utf-8").splitlines())
    cosines = queries @ found.passages(list(collection.values())).T
    place = {name: i for i, name in enumerate(collection)}
    for row, own in zip(rows, cosines, strict=True):
        scores = [own[place[name]] for name in row["mined_document_ids"]]
        assert row["mined_scores"] == pytest.approx(scores, abs=2e-3)
    (folder,) = (output / ".work" / "mining").iterdir()
    index = Dense(folder / "index", Passages(folder / "passages.arrow"), str(encoder))
    for ranked, own in zip(index.search([row["query_positive"] for row in rows], 5), cosines, strict=True):
        assert [score for _, score in ranked] == pytest.approx(np.sort(own)[::-1][:5].tolist(), abs=2e-3)
    capsys.readouterr()
    assert run(output, encoder, tmp_path / "model", "--mined-negatives", "2", "--max-steps", "2") == 0
    assert "mined negatives: " in capsys.readouterr().out
