"""The objectives as METRICS has them, written out row by row in NumPy: slow, and without a thought of speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.batches import Row
from train.inputs import Context


def literal_loss(
    objective: str,
    rows: Sequence[Row],
    chosen: Sequence[Sequence[Context | None]],
    vectors: Mapping[Any, Any],
    temperature: float,
    mask: bool,
) -> float:
    """chosen: for each row the contexts (I_j, Q_i), j in M_i. vectors: context or passage -> embedding."""
    kind, _, names = objective.partition(":")
    losses = []
    mined: dict[str, Row] = {}  # passage -> the row that brings it: the first, and none that is a row's passage
    for row in rows:
        for passage in row.mined:
            if passage not in mined and all(passage != other.passage for other in rows):
                mined[passage] = row
    for i, row in enumerate(rows):
        own = score(vectors, row.context, row.passage, temperature)
        sets = {name: [] for name in ("P", "IQ", "I")}
        for j, other in enumerate(rows):
            if j == i:
                continue
            plain_copy = other.slot == 3  # its passage stands in the batch already
            if not plain_copy and not (mask and false_negative(row, other)):
                sets["P"].append(score(vectors, row.context, other.passage, temperature))
            if not (mask and false_negative(other, row)):
                sets["IQ"].append(score(vectors, other.context, row.passage, temperature))
        for passage, owner in mined.items():
            if not (mask and mined_false_negative(row, owner, passage)):
                sets["P"].append(score(vectors, row.context, passage, temperature))
        sets["I"] = [score(vectors, context, row.passage, temperature) for context in chosen[i] if context is not None]
        wanted = names.split(",")
        if kind == "uni":
            losses.append(softmax_loss(own, [s for name in wanted for s in sets[name]]))
        else:
            losses.append(sum(softmax_loss(own, sets[name]) for name in wanted))
    return float(np.mean(losses))


def false_negative(context_row: Row, passage_row: Row) -> bool:
    """Whether the passage of one row is, or may be, right for the context of another."""
    if passage_row.passage == context_row.also:
        return True
    if context_row.tuple_id == passage_row.tuple_id:
        return context_row.relevant[0 if passage_row.slot == 3 else passage_row.slot]
    return context_row.context.query == passage_row.context.query or context_row.passage == passage_row.passage


def mined_false_negative(row: Row, owner: Row, passage: str) -> bool:
    """Whether a mined passage may be right for a row's context: in its own tuple it was looked at for (I+, Q+) alone."""
    if row.also == passage:
        return True
    if row.tuple_id == owner.tuple_id:
        return row.slot != 0
    return row.context.query == owner.context.query


def score(vectors: Mapping[Any, Any], context: Context, passage: str, temperature: float) -> float:
    c, p = vectors[context], vectors[passage]
    return float(c @ p / np.linalg.norm(c) / np.linalg.norm(p) / temperature)


def softmax_loss(own: float, others: Sequence[float]) -> float:
    return float(-np.log(np.exp(own) / (np.exp(own) + sum(np.exp(s) for s in others))))
