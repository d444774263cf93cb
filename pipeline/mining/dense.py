"""Dense search: every passage encoded once, exact inner products in blocks.

Exact because it is cheap beside the encoding: 1,024 queries against a million passages of 384 dimensions take seconds, encoding
the million takes hours on two cores. So no approximate index, and no library for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.mining.passages import Passages

ENCODED = 2_048
"""Passages encoded between two writes."""
QUERIES = 1_024
"""Queries that share one reading of the embeddings."""
BLOCK = 65_536
"""Passages whose scores are in memory at a time: 256 MB for the queries of a block."""
DIGITS = 4
"""Scores are rounded to what float16 embeddings can tell, so that equal ones are equal."""


class Dense:
    """Embeddings of a folder, mapped, and the encoder for queries."""

    def __init__(self, folder: Path, passages: Passages, model: str) -> None:
        self._passages = passages
        self._embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
        self._encoder = load_encoder(model)

    @staticmethod
    def build(passages: Passages, folder: Path, model: str) -> None:
        """Encode all passages, in float16."""
        encoder = load_encoder(model)
        folder.mkdir()
        shape = (len(passages), encoder.passages(["dimensions"]).shape[1])
        embeddings = np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float16, shape)
        texts = passages.texts()
        for start in range(0, len(passages), ENCODED):
            block = list(islice(texts, ENCODED))
            embeddings[start : start + len(block)] = encoder.passages(block)
        embeddings.flush()

    def search(self, queries: Sequence[str], depth: int) -> Iterator[list[tuple[int, float]]]:
        """For each query the `depth` passages of the highest cosine: (place, score). Of equal scores the smaller id."""
        for start in range(0, len(queries), QUERIES):
            asked = self._encoder.queries(queries[start : start + QUERIES])
            best: list[list[tuple[int, float]]] = [[] for _ in asked]
            for first in range(0, len(self._embeddings), BLOCK):
                block = np.asarray(self._embeddings[first : first + BLOCK], dtype=np.float32)
                scores = np.round(asked @ block.T, DIGITS)
                for ranked, row in zip(best, scores, strict=True):
                    ranked.extend(self._highest(row, depth, first))
            for ranked in best:
                ranked.sort(key=lambda at: (-at[1], self._passages.id(at[0])))
                yield ranked[:depth]

    def _highest(self, scores: Any, depth: int, first: int) -> list[tuple[int, float]]:
        if len(scores) <= depth:
            return [(first + i, float(score)) for i, score in enumerate(scores)]
        lowest = np.partition(scores, -depth)[-depth]
        return [(first + int(i), float(scores[i])) for i in np.flatnonzero(scores >= lowest)]


class _Encoder:
    """The trainer's encoder: the same model names, query formats and lengths."""

    def __init__(self, model: str) -> None:
        from train.encoder import Encoder, EncoderOptions  # noqa: PLC0415, torch: the curation does without, unless asked
        from train.inputs import Context  # noqa: PLC0415

        self._encoder = Encoder.load(model, EncoderOptions())
        self._context = Context

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        return self._encoder.passages(texts)

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        return self._encoder.contexts([self._context(text) for text in texts])


def load_encoder(model: str) -> _Encoder:
    """The encoder. A model that can't be loaded, and torch that is not there, is a UsageError."""
    try:
        return _Encoder(model)
    except ImportError as error:
        raise UsageError(f"--mine dense needs {error.name}: pip install 'inf-ir[train]'.") from None
    except Exception as error:
        if type(error).__name__ != "UsageError":  # the trainer's own, which is not ours
            raise
        raise UsageError(str(error).replace("--model", "--mine-model", 1)) from None
