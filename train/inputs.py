"""How an instruction and a query become a model's input: one text by a template, or two that are encoded apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util.file_io import load_file_path
from torch import Tensor

from train.errors import UsageError

DEFAULT_TEMPLATE = "{query} {instruction}"
"""Query, then instruction, joined by a space, as the authors of InF-Embed have it."""

INSTRUCTION = "instruction"
"""The task of sentence-transformers' router that encodes instructions apart from queries."""

STYLE = "style"
"""The task that encodes how a passage is written, which instructions stand against."""

FORMAT_FILE = "context_format.json"
"""In a model folder: how the model wants an instruction and a query put together."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a person asks: a query and, where there is one, the instruction that goes with it."""

    query: str
    instruction: str | None = None

    def __len__(self) -> int:
        return len(self.query) + len(self.instruction or "")


@dataclass(frozen=True, slots=True)
class ContextFormat:
    """How contexts are put to a model.

    template: holds {query} and {instruction}; a query without instruction goes alone.
    instruction_attention: encode the two apart and let the instruction's tokens attend to the query's.
    instruction_vectors: encode the two apart, the query as the untuned model does, and add the instruction's embedding to it.
    style_vectors: with instruction vectors, put the instruction's embedding beside the query's instead, where passages have
      a style embedding beside theirs.
    """

    template: str = DEFAULT_TEMPLATE
    instruction_attention: bool = False
    instruction_vectors: bool = False
    style_vectors: bool = False

    def __post_init__(self) -> None:
        try:
            filled = self.template.format(query="\0q", instruction="\0i")
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(
                f"--template {self.template!r} can't be filled ({error}): use {{query}} and {{instruction}}."
            ) from None
        if "\0q" not in filled or "\0i" not in filled:
            raise UsageError(f"--template {self.template!r} must hold both {{query}} and {{instruction}}.")

    def text(self, context: Context) -> str:
        """The context as one text."""
        if context.instruction is None:
            return context.query
        return self.template.format(query=context.query, instruction=context.instruction)

    def usage(self) -> tuple[str, str]:
        """How a context and how a passage is encoded with sentence-transformers, as Python for people; cosine ranks."""
        passage = "model.encode_document(passage)"
        if not self.instruction_vectors:
            return f"model.encode_query({self.template!r}.format(query=query, instruction=instruction))", passage
        unit = "normalize_embeddings=True"
        query, vector = f"model.encode_query(query, {unit})", f'model.encode(instruction, task="{INSTRUCTION}")'
        if not self.style_vectors:
            return f"{query} + {vector}", passage
        style = f'model.encode(passage, task="{STYLE}")'
        return f"np.hstack([{query}, {vector}])", f"np.hstack([model.encode_document(passage, {unit}), {style}])"

    def features(self, model: SentenceTransformer, contexts: Sequence[Context]) -> dict[str, Any]:
        """Tokenised contexts. With instruction attention, two texts for each: the query, then the instruction."""
        if self.instruction_attention:
            texts = [text for context in contexts for text in (context.query, context.instruction or "")]
        else:
            texts = [self.text(context) for context in contexts]
        features = text_features(model, texts, "query")
        if self.instruction_attention:
            features["texts_apart"] = True
        return features

    @classmethod
    def of(cls, model: str) -> ContextFormat | None:
        """What the model's folder, or its repository on the Hub, says; None where it says nothing.

        Raises UsageError for a file that this version can't read.
        """
        file = load_file_path(model, FORMAT_FILE)
        try:
            return cls(**json.loads(Path(file).read_text())) if file else None
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{model}: its {FORMAT_FILE} can't be read ({error}); was it written by another version of this project?"
            ) from None

    def save(self, folder: Path) -> None:
        """Write it into a model's folder."""
        (folder / FORMAT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


class InstructionPooling(Pooling):
    """Pooling that can join a query and an instruction that were encoded apart (arXiv 2505.21439, ablation).

    Every instruction token attends to the query's tokens, softmax(H_I H_Q^T / sqrt(d)) H_Q, and the mean over the
    instruction's tokens is the context's embedding. Passages, and contexts without instruction, are pooled as before.
    """

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool; with `texts_apart`, texts 2k and 2k + 1 become embedding k."""
        states, mask = features["token_embeddings"], features["attention_mask"]
        features = super().forward(features, **kwargs)
        if features.get("texts_apart"):
            joined = instruction_attention(states[1::2], states[0::2], mask[1::2], mask[0::2])
            # an encoder without special tokens leaves no token of an empty instruction
            empty = mask[1::2].sum(dim=1, keepdim=True) == 0
            features["sentence_embedding"] = torch.where(empty, features["sentence_embedding"][0::2], joined)
        return features


def instruction_attention(instruction: Tensor, query: Tensor, instruction_mask: Tensor, query_mask: Tensor) -> Tensor:
    """(batch, dimensions) from token states (batch, tokens, dimensions) and masks (batch, tokens)."""
    scores = instruction @ query.transpose(1, 2) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(query_mask[:, None, :] == 0, torch.finfo(scores.dtype).min).softmax(dim=-1)
    kept = instruction_mask.unsqueeze(-1).to(query.dtype)
    pooled: Tensor = ((weights @ query) * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
    return pooled


def text_features(model: SentenceTransformer, texts: Sequence[str], task: str) -> dict[str, Any]:
    """Tokenised texts, with the model's own prompt and length for a task: query, document, INSTRUCTION or STYLE."""
    features: dict[str, Any] = model.preprocess(list(texts), prompt=model.prompts.get(task) or None, task=task)
    return features
