"""What the untuned model makes of texts: embeddings that stay, and scores of plain queries that training can hold on to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import mse_loss

from pipeline.records import DOCUMENT, QUERY_POSITIVE
from train.encoder import Encoder
from train.inputs import Context


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings by text that training leaves as they are: passages', and with instruction vectors queries'."""

    passages: Mapping[str, Tensor]
    queries: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Untuned:
    """Embeddings of the plain queries and of their passages, by text, made before the first step."""

    queries: dict[str, Tensor]
    passages: Mapping[str, Tensor]

    @classmethod
    def of(cls, encoder: Encoder, rows: Dataset, embedded: Mapping[str, Tensor] | None = None) -> Untuned:
        """One forward pass over the rows' Q+ and, where they are not embedded already, their P+."""
        queries, passages = sorted(set(rows[QUERY_POSITIVE])), sorted(set(rows[DOCUMENT]))
        contexts = torch.from_numpy(encoder.contexts([Context(query) for query in queries]))
        if embedded is None:
            embedded = dict(zip(passages, torch.from_numpy(encoder.passages(passages)), strict=True))
        return cls(dict(zip(queries, contexts, strict=True)), embedded)

    def cosines(self, queries: Sequence[str], passages: Sequence[str]) -> Tensor:
        """(queries, passages)."""
        if not queries:
            return torch.empty(0, len(passages))
        return torch.stack([self.queries[q] for q in queries]) @ torch.stack([self.passages[p] for p in passages]).T


def drift(cosines: Tensor, untuned: Tensor, temperature: float) -> Tensor:
    """How far the model's scores of passages for plain queries have moved from the untuned model's.

    The mean square of the differences of cosines / temperature, both (queries, passages). Scores and not the softmax over
    them, as learning without forgetting has it (Li and Hoiem, 2016, arXiv 1606.09282): among a batch's few passages
    the own one wins by far, so a softmax hides what moves the ranks in a collection.
    """
    return mse_loss(cosines / temperature, untuned / temperature)
