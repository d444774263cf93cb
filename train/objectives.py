"""The training objectives of InF-Embed (arXiv 2505.21439, section 3), as functions of scores.

A row has a context c = (instruction I, query Q) and a passage p; s(c, p) = cosine / temperature. Three sets of
negatives stand against a row's positive score s(c_i, p_i):

    P    s(c_i, p_j)          passages given the context, mined ones among them
    IQ   s(c_j, p_i)          contexts given the passage
    I    s((I_j, Q_i), p_i)   instructions given the query and the passage, j in the row's sample

`uni:` joins the named sets in one softmax, with the positive counted once; `multi:` sums a softmax for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from train.errors import UsageError

NegativeSet = Literal["P", "IQ", "I"]
PLAIN_SLOT = 3
"""The slot of a plain pair: no passage of its own."""
MINED_SLOT = 4
"""The slot of a mined passage, which has no context of its own."""
_COLUMN_OF_SLOT = (0, 1, 2, 0, 3)
"""Slot -> column of `Rows.relevant`: a plain pair's passage is its tuple's first."""

SETS: tuple[NegativeSet, ...] = ("P", "IQ", "I")


@dataclass(frozen=True, slots=True)
class Objective:
    """Which sets of negatives count, and whether they share one softmax."""

    joined: bool
    sets: tuple[NegativeSet, ...]

    @classmethod
    def parse(cls, text: str) -> Objective:
        """`uni:P,I` or `multi:P,IQ` and so on; raises UsageError for anything else."""
        kind, _, names = text.partition(":")
        wanted = names.split(",")
        sets = tuple(name for name in SETS if name in wanted)
        if kind not in ("uni", "multi") or not sets or sorted(sets) != sorted(wanted):
            raise UsageError(
                f"--objective {text}: expected uni: or multi: and then P, IQ and I, each at most once, "
                "separated by commas, such as uni:P or multi:P,I."
            )
        return cls(kind == "uni", sets)

    def __str__(self) -> str:
        return f"{'uni' if self.joined else 'multi'}:{','.join(self.sets)}"

    def loss(self, positive: Tensor, negatives: Mapping[NegativeSet, Tensor]) -> Tensor:
        """The mean loss over rows, a scalar.

        positive: (rows,) scores; negatives: for each named set (rows, any) scores, -inf where there is no negative.
        """
        own = positive.unsqueeze(1)
        if self.joined:
            groups = [torch.cat([own, *(negatives[name] for name in self.sets)], dim=1)]
        else:
            groups = [torch.cat([own, negatives[name]], dim=1) for name in self.sets]
        return torch.stack([(torch.logsumexp(group, dim=1) - positive).mean() for group in groups]).sum()


@dataclass(frozen=True, slots=True)
class Rows:
    """What tells a batch's false negatives, as tensors over its rows: small enough to gather from every process.

    tuple_id, query, passage: (rows,) int64, hashes of the tuple's id and of the two texts.
    also: (rows,) int64, the hash of a mined passage that the judge finds relevant to the row's context.
    slot: (rows,) int64, which of its tuple's passages the row's is: 0, 1 or 2; 3 for a plain pair, whose passage
      its tuple's first row already brings; 4 for a mined passage.
    relevant: (rows, 4) bool, whether each passage of the tuple is relevant to the row's context, by the judge, and
      whether the tuple's mined passages may be: they were looked at for (I+, Q+) alone.
    """

    tuple_id: Tensor
    query: Tensor
    passage: Tensor
    also: Tensor
    slot: Tensor
    relevant: Tensor

    @classmethod
    def unpacked(cls, packed: Tensor) -> Rows:
        """From one (rows, 9) int64 tensor, the columns in the order of the fields."""
        tuple_id, query, passage, also, slot = packed[:, :5].unbind(dim=1)
        return cls(tuple_id, query, passage, also, slot, packed[:, 5:].bool())


def true_pairs(contexts: Rows, passages: Rows) -> Tensor:
    """(contexts, passages) bool: where a passage is, or may well be, right for a context.

    In one tuple the judge's matrix decides; across tuples an equal passage or an equal query.
    """
    same_tuple = contexts.tuple_id[:, None] == passages.tuple_id[None, :]
    judged = contexts.relevant[:, passages.slot.new_tensor(_COLUMN_OF_SLOT)[passages.slot]]
    alike = (contexts.query[:, None] == passages.query[None, :]) | (
        contexts.passage[:, None] == passages.passage[None, :]
    )
    return torch.where(same_tuple, judged, alike) | (contexts.also[:, None] == passages.passage[None, :])


def brings_passage(rows: Rows) -> Tensor:
    """(rows,) bool: not a plain pair, nor a mined passage whose text stands in an earlier row."""
    earlier = (rows.passage[:, None] == rows.passage[None, :]).tril(diagonal=-1).any(dim=1)
    return (rows.slot != PLAIN_SLOT) & ~(earlier & (rows.slot == MINED_SLOT))
