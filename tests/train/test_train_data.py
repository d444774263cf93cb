from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import record, write_shards
from train.data import UNJUDGED, checksum, load_rows, shared_wordings, training_rows
from train.errors import UsageError


def test_every_row_of_every_shard_is_read(shards: Path) -> None:
    rows = load_rows(str(shards), "train")
    assert sorted(rows["id"]) == sorted(record(number)["id"] for number in range(24))
    assert rows[0]["relevance"] == [[3, 1, 0], [1, 3, 0], [0, 0, 3]]


def test_the_public_columns_alone_are_enough(tmp_path: Path) -> None:
    """The public data set has the seven texts and nothing else."""
    bare = [{k: v for k, v in record(n).items() if k[:5] in ("query", "instr", "docum", "hard_")} for n in range(3)]
    bare = [{k: v for k, v in each.items() if k != "query_id"} for each in bare]
    rows = load_rows(str(write_shards(tmp_path, {"train": bare})), "train")
    assert rows[0]["dimension"] == "unknown"
    assert rows[0]["relevance"] == UNJUDGED
    assert len(set(rows["id"])) == 3


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda rows: [], "holds no data/train-"),
        (
            lambda rows: [{k: v for k, v in row.items() if k != "document"} for row in rows],
            "column document is missing",
        ),
        (lambda rows: [{**row, "query_negative": None} for row in rows[:1]] + rows[1:], "query_negative is None"),
        (lambda rows: [{**row, "document": ""} for row in rows[:1]] + rows[1:], "document is ''"),
    ],
)
def test_unusable_shards_are_one_sentence(tmp_path: Path, spoil: Any, expected: str) -> None:
    (tmp_path / "data").mkdir()
    rows = spoil([record(number) for number in range(4)])
    if rows:
        write_shards(tmp_path, {"train": rows})
    with pytest.raises(UsageError, match=expected) as raised:
        load_rows(str(tmp_path), "train")
    assert "\n" not in str(raised.value)


def test_a_split_without_rows_is_one_sentence(tmp_path: Path, shards: Path) -> None:
    import pyarrow.parquet as pq

    for file in (shards / "data").glob("validation-*"):
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(UsageError, match="split validation holds no rows"):
        load_rows(str(shards), "validation")


def test_a_file_that_is_no_parquet_is_one_sentence(shards: Path) -> None:
    next((shards / "data").glob("train-00000*")).write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(UsageError, match="are its shards whole"):
        load_rows(str(shards), "train")


def test_a_hub_id_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="is no folder here and can't be read from the Hub"):
        load_rows("nobody/has-this-one", "train")


def test_rejected_rows_with_all_texts_come_in_unfiltered(shards: Path) -> None:
    gone = [
        record(100, split="train", reason="judge_document"),
        record(101, split="train", reason="schema_violation", document=None),
        record(102, split="test", reason="judge_document"),
        record(103, split="train", reason="same_passage", relevance=None),
    ]
    write_shards(shards, {"rejected": gone})
    rows, changes = training_rows(str(shards), unfiltered=True, hold_out=())
    assert changes == {"rejected rows let in": 2}
    assert set(rows["id"]) - {record(number)["id"] for number in range(24)} == {"q100-d100", "q103-d103"}


def test_held_out_groups_leave_training(shards: Path) -> None:
    rows, changes = training_rows(str(shards), unfiltered=False, hold_out=("a", "c"))
    assert set(rows["wording_group"]) == {"b", "d"}
    assert changes == {"rows of held-out groups left out": 12}
    with pytest.raises(UsageError, match="there are a, b, c, d"):
        training_rows(str(shards), unfiltered=False, hold_out=("z",))


def test_shared_wordings_are_counted_without_case_and_punctuation(tmp_path: Path) -> None:
    train = [record(0, instruction_positive="In short, please!")]
    test = [record(1, instruction_positive="in short please", instruction_negative="at length")]
    folder = str(write_shards(tmp_path, {"train": train, "test": test}))
    assert shared_wordings(load_rows(folder, "train"), load_rows(folder, "test")) == (1, 2)


def test_a_checksum_tells_texts_apart(shards: Path) -> None:
    rows = load_rows(str(shards), "train")
    assert checksum(rows) == checksum(load_rows(str(shards), "train"))
    assert checksum(rows) != checksum(rows.select(range(23)))
