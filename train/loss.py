"""An objective over a batch of texts, as sentence-transformers' trainer wants it: encode once, score, gather, cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.util.distributed import all_gather, get_rank, get_world_size
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from train.keeping import drift
from train.objectives import PLAIN_SLOT, NegativeSet, Objective, Rows, brings_passage, true_pairs

TEMPERATURE = 0.05
"""The authors' temperature (arXiv 2505.21439, section 4)."""


TOGETHER_ON_CPU = 16
"""Texts, longest first, that a CPU encodes at a time: on 2 cores 8 to 32 are equally fast, the whole batch slower."""


class ObjectiveLoss(CachedLossMixin, nn.Module):
    """The loss of an objective over the distinct contexts and passages of a batch (see `train.batches.Collator`).

    mini_batch_size: texts encoded at a time, with gradient caching (Gao et al., 2021, arXiv 2101.06983): the memory
      of a mini-batch, the gradient of the whole batch, one more forward pass. None encodes the batch at once.
    mask: leave likely false negatives out of the denominators.
    gather: with several processes, take passages, mined ones too, and contexts of all of them as negatives; instructions
      stay local.
    keep: the weight of `drift` over a process's plain pairs.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        objective: Objective,
        *,
        temperature: float = TEMPERATURE,
        mask: bool = True,
        gather: bool = False,
        mini_batch_size: int | None = None,
        keep: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.temperature = temperature
        self.mask = mask
        self.gather = gather
        self.keep = keep
        self.mini_batch_size = mini_batch_size or 0
        self.uses_gradient_cache = mini_batch_size is not None

    def forward(self, features: Iterable[dict[str, Any]], labels: dict[str, Tensor]) -> Tensor:
        """The loss, a scalar. features: contexts, then passages, unless labels hold them embedded; each distinct text once.

        Where labels hold queries embedded, features are instructions and no contexts, and passages are there for their style.
        """
        if self.uses_gradient_cache:
            return self.forward_cached(features, labels)  # type: ignore[arg-type]  # hands labels through
        return self.calculate_loss([self._encode(texts) for texts in features], labels)

    def _encode(self, features: dict[str, Any]) -> list[Tensor]:
        """All texts, with gradients: at once on a GPU, in parts of like length on a CPU, where padding costs."""
        texts = len(features["input_ids"])
        step = TOGETHER_ON_CPU if features["input_ids"].device.type == "cpu" else texts
        return [
            self.embed_minibatch(features, start, start + step, with_grad=True, copy_random_state=False)[0]
            for start in range(0, texts, step)
        ]

    def calculate_loss(  # type: ignore[override]  # labels are a mapping
        self, reps: Sequence[Sequence[Tensor]], labels: dict[str, Tensor] | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss from the embeddings of contexts and passages, each in mini-batches of (texts, dimensions)."""
        assert labels is not None
        # in bfloat16 a cosine is known to 1/256, which a temperature of 0.02 turns into a fifth
        with torch.autocast(reps[0][0].device.type, enabled=False):
            contexts, *encoded = (torch.cat(list(parts)).float() for parts in reps)
            passages = normalize(encoded[0], dim=-1) if encoded else labels["embedded"]
            if "queries" in labels:  # instructions were encoded, not contexts
                queries, vectors = labels["queries"], contexts[labels["instruction"]]
                contexts = torch.cat([queries, vectors], dim=1) if encoded else queries + vectors
                if encoded:  # styles, not passages
                    passages = normalize(torch.cat([labels["embedded"], passages], dim=1), dim=-1)
            contexts = normalize(contexts, dim=-1)
            loss = self.objective_loss(contexts, passages, labels)
        if not with_backward:
            return loss
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def objective_loss(self, contexts: Tensor, passages: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """The loss from normalised embeddings of the distinct contexts and passages."""
        context, passage = contexts[labels["context"]], passages[labels["passage"]]
        mined, mined_rows = passages[labels["mined"]], labels["mined_rows"]
        rows = Rows.unpacked(labels["rows"])
        all_rows = labels["rows"]
        all_contexts, all_passages, first, share = context, passage, 0, 1.0
        if self.gather and get_world_size() > 1:
            counts = _counts(len(context), context.device)
            all_contexts, all_passages = (_gathered(each, counts, with_grad=True) for each in (context, passage))
            all_rows = _gathered(all_rows, counts)
            first = int(counts[: get_rank()].sum())
            share = len(context) * len(counts) / int(counts.sum())  # DDP averages over processes, not over rows
            counts = _counts(len(mined), mined.device)
            if counts.any():
                mined, mined_rows = _gathered(mined, counts, with_grad=True), _gathered(mined_rows, counts)
        everyone = Rows.unpacked(all_rows)

        negatives: dict[NegativeSet, Tensor] = {}
        if "P" in self.objective.sets:
            brought = Rows.unpacked(torch.cat([all_rows, mined_rows]))
            out = self._left_out(rows, brought, first) | ~brings_passage(brought)
            negatives["P"] = self._scores(context @ torch.cat([all_passages, mined]).T, out)
        if "IQ" in self.objective.sets:
            negatives["IQ"] = self._scores(passage @ all_contexts.T, self._left_out(everyone, rows, first).T)
        if "I" in self.objective.sets:
            chosen = labels["instructions"]
            scores = torch.einsum("rkd,rd->rk", contexts[chosen.clamp(min=0)], passage)
            negatives["I"] = self._scores(scores, chosen < 0)
        loss = self.objective.loss((context * passage).sum(dim=1) / self.temperature, negatives) * share
        plain = rows.slot == PLAIN_SLOT
        if self.keep and plain.any():
            loss = loss + self.keep * drift(context[plain] @ passage[plain].T, labels["untuned"], self.temperature)
        return loss

    def _scores(self, cosines: Tensor, left_out: Tensor) -> Tensor:
        return (cosines / self.temperature).masked_fill(left_out, -torch.inf)

    def _left_out(self, contexts: Rows, passages: Rows, first: int) -> Tensor:
        """(contexts, passages) bool: the positives themselves and, where masked, likely false negatives.

        first: where this process's rows begin among all rows.
        """
        wide, tall = len(passages.slot), len(contexts.slot)
        here = torch.arange(min(wide, tall), device=contexts.slot.device)
        own = torch.zeros(tall, wide, dtype=torch.bool, device=contexts.slot.device)
        own[here + (first if tall > wide else 0), here + (first if wide > tall else 0)] = True
        return own | true_pairs(contexts, passages) if self.mask else own

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "objective": str(self.objective),
            "temperature": self.temperature,
            "mask": self.mask,
            "gather": self.gather,
            "mini_batch_size": self.mini_batch_size or None,
            "keep": self.keep,
        }


def _counts(rows: int, device: torch.device) -> Tensor:
    """How many rows each process has."""
    return all_gather(torch.tensor([rows], device=device))


def _gathered(tensor: Tensor, counts: Tensor, *, with_grad: bool = False) -> Tensor:
    """The rows of all processes, in the order of their ranks; processes may have different numbers of rows."""
    longest = int(counts.max())
    padded = pad(tensor, (0, 0, 0, longest - len(tensor)))
    valid = torch.arange(longest, device=tensor.device) < counts[:, None]
    return all_gather(padded, with_grad=with_grad)[valid.flatten()]
