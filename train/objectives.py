"""The training objectives of InF-Embed (arXiv 2505.21439, section 3), as functions of scores.

A row has a context c = (instruction I, query Q) and a passage p; s(c, p) = cosine / temperature. Three sets of
negatives stand against a row's positive score s(c_i, p_i):

    P    s(c_i, p_j)          passages given the context
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
    slot: (rows,) int64, which of its tuple's passages the row's is: 0, 1 or 2; 3 for a plain pair, whose passage
      its tuple's first row already brings.
    relevant: (rows, 3) bool, whether the judge finds each passage of the tuple relevant to the row's context.
    """

    tuple_id: Tensor
    query: Tensor
    passage: Tensor
    slot: Tensor
    relevant: Tensor

    def packed(self) -> Tensor:
        """All of it as one (rows, 7) int64 tensor."""
        columns = (self.tuple_id, self.query, self.passage, self.slot)
        return torch.cat([torch.stack(columns, dim=1), self.relevant.long()], dim=1)

    @classmethod
    def unpacked(cls, packed: Tensor) -> Rows:
        """The inverse of `packed`."""
        tuple_id, query, passage, slot = packed[:, :4].unbind(dim=1)
        return cls(tuple_id, query, passage, slot, packed[:, 4:].bool())


def true_pairs(contexts: Rows, passages: Rows) -> Tensor:
    """(contexts, passages) bool: where a passage is, or may well be, right for a context.

    In one tuple the judge's matrix decides; across tuples an equal passage or an equal query.
    """
    same_tuple = contexts.tuple_id[:, None] == passages.tuple_id[None, :]
    judged = contexts.relevant[:, passages.slot % PLAIN_SLOT]  # a plain pair's passage is its tuple's first
    alike = (contexts.query[:, None] == passages.query[None, :]) | (
        contexts.passage[:, None] == passages.passage[None, :]
    )
    return torch.where(same_tuple, judged, alike)
