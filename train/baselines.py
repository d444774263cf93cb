"""BM25 over the same passages, with and without the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray

from train.inputs import Context


class Bm25Scorer:
    """BM25 scores (bm25s, Lucene's variant with its defaults k1 = 1.5, b = 0.75; English stop words left out)."""

    def __init__(self, texts: Sequence[str], *, instructions: bool) -> None:
        self.instructions = instructions
        self.index = bm25s.BM25(method="lucene")
        self.index.index(bm25s.tokenize(list(texts), stopwords="en", show_progress=False), show_progress=False)
        self.size = len(texts)

    def scores(self, contexts: Sequence[Context]) -> NDArray[Any]:
        """(contexts, passages); zeros for a context none of whose words occurs."""
        asked = [f"{c.query} {c.instruction or ''}" if self.instructions else c.query for c in contexts]
        tokens = bm25s.tokenize(asked, stopwords="en", return_ids=False, show_progress=False)
        return np.stack([self._score(words) for words in tokens])

    def _score(self, words: list[str]) -> NDArray[Any]:
        known = [word for word in words if word in self.index.vocab_dict]
        scores: NDArray[Any] = self.index.get_scores(known) if known else np.zeros(self.size, dtype=np.float32)
        return scores
