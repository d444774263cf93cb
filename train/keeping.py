"""What the untuned model thinks of plain queries, so that training can hold on to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from pipeline.records import DOCUMENT, QUERY_POSITIVE
from train.encoder import Encoder
from train.inputs import Context


@dataclass(frozen=True, slots=True)
class Untuned:
    """Embeddings of the plain queries and of their passages, by text, made before the first step."""

    queries: dict[str, Tensor]
    passages: dict[str, Tensor]

    @classmethod
    def of(cls, encoder: Encoder, rows: Dataset) -> Untuned:
        """One forward pass over the rows' Q+ and P+."""
        queries, passages = sorted(set(rows[QUERY_POSITIVE])), sorted(set(rows[DOCUMENT]))
        contexts = torch.from_numpy(encoder.contexts([Context(query) for query in queries]))
        return cls(
            dict(zip(queries, contexts, strict=True)),
            dict(zip(passages, torch.from_numpy(encoder.passages(passages)), strict=True)),
        )

    def cosines(self, queries: Sequence[str], passages: Sequence[str]) -> Tensor:
        """(queries, passages)."""
        if not queries:
            return torch.empty(0, len(passages))
        return torch.stack([self.queries[q] for q in queries]) @ torch.stack([self.passages[p] for p in passages]).T


def drift(cosines: Tensor, untuned: Tensor, temperature: float) -> Tensor:
    """How far the model's ranking of passages for plain queries has moved from the untuned model's, in nats a query.

    The Kullback-Leibler divergence of the softmax over the passages, both (queries, passages): learning without
    forgetting (Li and Hoiem, 2016, arXiv 1606.09282), on rankings in place of class scores.
    """
    return kl_div(
        log_softmax(cosines / temperature, dim=1),
        log_softmax(untuned / temperature, dim=1),
        log_target=True,
        reduction="batchmean",
    )
