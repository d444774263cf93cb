"""Rows of a data set: shards by `datasets`, from an output folder or the Hub, checked before anything is trained."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetNotFoundError

from pipeline.records import (
    INSTRUCTION_NEGATIVE,
    INSTRUCTION_POSITIVE,
    MINED_DOCUMENTS,
    MINED_RELEVANCE,
    TEXT_COLUMNS,
)
from train.errors import UsageError

COLUMNS = ("id", "query_id", *TEXT_COLUMNS, "dimension", "form", "wording_group", "relevance")
"""What is read. The public InF-IR set has the seven texts alone: the rest is filled in."""

FEATURES = Features(
    {name: Value("string") for name in COLUMNS if name != "relevance"} | {"relevance": List(List(Value("int64")))}
)
MINED_FEATURES = Features({MINED_DOCUMENTS: List(Value("string")), MINED_RELEVANCE: List(Value("int64"))})
"""What is read besides where mined negatives are wanted."""

UNJUDGED = [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
"""The matrix of a row without one: each context's own passage is right for it, and nothing else is known to be."""

BATCH_ROWS = 1000
"""Rows a read: a row group of the pipeline's shards."""

_FROM_THE_HUB = (ConnectionError, OSError, DatasetNotFoundError)


def load_rows(data: str, split: str, *, mined: bool = False) -> Dataset:
    """The rows of a split with `COLUMNS`, and with the mined passages where they are wanted; a row may have none.

    Raises UsageError: no shards, no rows, a missing column, no row with a mined passage.
    """
    rows = _load(data, "data", split)
    if len(rows) == 0:
        raise UsageError(f"{data}: split {split} holds no rows. Curate more seeds, or name another split.")
    if mined and not (MINED_DOCUMENTS in rows.column_names and any(rows[MINED_DOCUMENTS])):
        raise UsageError(
            f"{data}: split {split} holds no mined passages for --mined-negatives: "
            "curate with `python -m pipeline.run --mine bm25`, or leave the flag out."
        )
    return _with_columns(rows, f"{data}, split {split}", mined)


def load_rejected(data: str, *, mined: bool = False) -> Dataset:
    """The rejected rows of the train split that have all seven texts, whatever the judge or the rules said."""
    rows = _load(data, "rejected", "rejected")
    if "split" not in rows.column_names:
        raise UsageError(f"{data}: rejected/ has no column `split`, so its training rows can't be told.")
    complete = rows.filter(
        lambda row: row["split"] == "train" and all(row.get(name) for name in TEXT_COLUMNS), keep_in_memory=True
    )
    return _with_columns(complete, f"{data}, rejected", mined) if len(complete) else complete


def training_rows(
    data: str, *, unfiltered: bool, hold_out: Sequence[str], mined: bool = False
) -> tuple[Dataset, Counter[str]]:
    """The rows to train on, and how many came or went by each option."""
    rows = load_rows(data, "train", mined=mined)
    changes: Counter[str] = Counter()
    if unfiltered:
        rejected = load_rejected(data, mined=mined)
        changes["rejected rows let in"] = len(rejected)
        if len(rejected):
            rows = concatenate_datasets([rows, rejected])
    for group in hold_out:
        if group not in rows["wording_group"]:
            known = ", ".join(sorted({str(name) for name in rows["wording_group"]}))
            raise UsageError(f"--hold-out-group {group}: no training row is of that wording group; there are {known}.")
    if hold_out:
        kept = rows.filter(lambda row: row["wording_group"] not in hold_out, keep_in_memory=True)
        changes["rows of held-out groups left out"] = len(rows) - len(kept)
        rows = kept
    if len(rows) == 0:
        raise UsageError("--hold-out-group leaves no row to train on.")
    return rows, changes


def shared_wordings(train: Dataset, test: Dataset) -> tuple[int, int]:
    """How many of the test split's distinct instructions occur in training, word for word, and how many there are."""
    known, asked = _instructions(train), _instructions(test)
    return len(known & asked), len(asked)


def checksum(rows: Dataset) -> str:
    """SHA-256 over the texts of the rows, mined ones too where they were read: what a figure was computed from."""
    digest = hashlib.sha256()
    mined = [MINED_DOCUMENTS] if MINED_DOCUMENTS in rows.column_names else []
    for row in rows.select_columns([*TEXT_COLUMNS, *mined]):
        for text in (*(row[name] for name in TEXT_COLUMNS), *(text for name in mined for text in row[name])):
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _instructions(rows: Dataset) -> set[str]:
    texts = [*rows[INSTRUCTION_POSITIVE], *rows[INSTRUCTION_NEGATIVE]]
    return {" ".join(re.findall(r"\w+", text.lower())) for text in texts}


def _load(data: str, folder: str, split: str) -> Dataset:
    logging.getLogger("datasets").setLevel(logging.ERROR)
    path = Path(data)
    if path.exists():
        files = sorted(str(file) for file in (path / folder).glob(f"{split}-*.parquet"))
        if not files:
            raise UsageError(
                f"{data} holds no {folder}/{split}-*.parquet: expected an output folder of `python -m pipeline.run`."
            )
        # without a batch size, the reader takes a file's first row group for one and fails on a file without rows
        return _read(
            data, lambda: load_dataset("parquet", data_files={split: files}, split=split, batch_size=BATCH_ROWS)
        )
    if folder != "data":
        files_of = {split: f"{folder}/{split}-*.parquet"}
        return _read(data, lambda: load_dataset(data, data_files=files_of, split=split))
    return _read(data, lambda: load_dataset(data, split=split))


def _read(data: str, load: Callable[[], Any]) -> Dataset:
    try:
        loaded = load()
    except _FROM_THE_HUB as error:
        raise UsageError(
            f"{data} is no folder here and can't be read from the Hub ({_first_line(error)}): give an output folder "
            "of `python -m pipeline.run`, or a Hub id that can be reached."
        ) from None
    except Exception as error:  # `datasets` lets through what its readers raise
        if "corresponds to no data" in str(error):
            return Dataset.from_list([])
        raise UsageError(f"{data} can't be read ({_first_line(error)}): are its shards whole?") from None
    assert isinstance(loaded, Dataset)
    return loaded


def _with_columns(rows: Dataset, where: str, mined: bool = False) -> Dataset:
    missing = [name for name in TEXT_COLUMNS if name not in rows.column_names]
    if missing:
        raise UsageError(f"{where}: column {missing[0]} is missing; the seven texts of a tuple are needed.")
    kept: list[Mapping[str, Any]] = []
    for index, row in enumerate(rows):
        empty = next((name for name in TEXT_COLUMNS if not isinstance(row[name], str) or not row[name]), None)
        if empty:
            raise UsageError(f"{where}, row {index + 1}: {empty} is {row[empty]!r}, expected a text.")
        kept.append(
            {
                "id": str(row.get("id") or index),
                "query_id": str(row.get("query_id") or row["query_positive"]),
                **{name: row[name] for name in TEXT_COLUMNS},
                **{name: row.get(name) or "unknown" for name in ("dimension", "form")},
                "wording_group": row.get("wording_group") or "none",
                "relevance": row.get("relevance") or UNJUDGED,
                **({name: row.get(name) or [] for name in MINED_FEATURES} if mined else {}),
            }
        )
    return Dataset.from_list(kept, Features(FEATURES | MINED_FEATURES) if mined else FEATURES)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:200]
