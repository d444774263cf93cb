"""The Arrow schemas of what we write, and records to rows and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

import pyarrow as pa

from pipeline.records import (
    MINED_DOCUMENTS,
    MINED_RELEVANCE,
    TASKS,
    TEXT_COLUMNS,
    Call,
    Deferred,
    Mined,
    Rejected,
    Tuple,
)

_MATRIX = pa.list_(pa.list_(pa.int8()))
_HASHES = pa.struct([(task, pa.string()) for task in TASKS])
_CALLS = pa.list_(
    pa.struct(
        [
            ("task", pa.string()),
            ("model", pa.string()),
            ("from_memory", pa.bool_()),
            ("failed_attempts", pa.int32()),
            ("latency_ms", pa.int32()),
            ("prompt_tokens", pa.int64()),
            ("cached_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("reasoning_tokens", pa.int64()),
            ("cost_usd", pa.float64()),
        ]
    )
)

ACCEPTED = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "query_id", "document_id")),
        *((name, pa.string()) for name in TEXT_COLUMNS),
        *((name, pa.string()) for name in ("dimension", "form", "wording_group")),
        ("relevance", _MATRIX),
        ("rationale", pa.string()),
        *((name, pa.string()) for name in ("generator", "generator_version", "judge", "judge_version")),
        ("mined_document_ids", pa.list_(pa.string())),
        (MINED_DOCUMENTS, pa.list_(pa.string())),
        ("mined_scores", pa.list_(pa.float32())),
        (MINED_RELEVANCE, pa.list_(pa.int8())),
        ("prompt_hashes", _HASHES),
        ("source", pa.string()),
    ]
)
"""The columns of a shard under `data/`."""

ENDING = pa.schema([("split", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])

REJECTED = pa.schema([*ACCEPTED, *ENDING])
"""The columns of a shard under `rejected/`: those of a tuple as far as it came, and how it ended."""

STAGED = pa.schema([*REJECTED, ("outcome", pa.string()), ("calls", _CALLS)])
"""The columns of the scratch files between the curation and the shards: every outcome, with what it cost."""


# by name: `dataclasses.asdict` copies every value deeply, at ten times the cost
_TUPLE_FIELDS = tuple(field.name for field in fields(Tuple))
_MINED_FIELDS = (
    ("mined_document_ids", "id"),
    (MINED_DOCUMENTS, "document"),
    ("mined_scores", "score"),
    (MINED_RELEVANCE, "relevance"),
)
_CALL_FIELDS = tuple(field.name for field in fields(Call))
_CALL_VALUES = attrgetter(*_CALL_FIELDS)


def staged_table(
    outcomes: Iterable[Tuple | Rejected | Deferred], prompt_hashes: Mapping[str, str], source: str
) -> pa.Table:
    """Outcomes as rows, sorted by id, so that the same outcomes are the same bytes."""
    rows = [row_of(outcome, prompt_hashes, source) for outcome in outcomes]
    rows.sort(key=lambda row: row["id"])
    return pa.Table.from_pylist(rows, schema=STAGED)


def row_of(outcome: Tuple | Rejected | Deferred, prompt_hashes: Mapping[str, str], source: str) -> dict[str, Any]:
    """An outcome as a row of `STAGED`, by column name."""
    t = outcome if isinstance(outcome, Tuple) else outcome.tuple
    row = {name: getattr(t, name) for name in _TUPLE_FIELDS}
    row |= _mined(row.pop("mined"))
    row["calls"] = [dict(zip(_CALL_FIELDS, _CALL_VALUES(call), strict=True)) for call in t.calls]
    row["prompt_hashes"] = prompt_hashes
    row["source"] = source
    if isinstance(outcome, Tuple):
        row["outcome"] = "accepted"
    else:
        row["outcome"] = "rejected" if isinstance(outcome, Rejected) else "deferred"
        row |= {"stage": outcome.stage, "reason": outcome.reason, "detail": outcome.detail}
    return {name: _encodable(value) if isinstance(value, str) else value for name, value in row.items()}


def _mined(mined: tuple[Mined, ...] | None) -> dict[str, list[Any] | None]:
    """Parallel lists, a column each; null where the run did not mine."""
    return {column: None if mined is None else [getattr(m, name) for m in mined] for column, name in _MINED_FIELDS}


def _encodable(text: str) -> str:
    """A lone surrogate, which a model can send as a JSON escape, can't be written as UTF-8: shown as its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
