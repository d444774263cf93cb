"""BM25 by `bm25s`: stop words left out, Snowball stems, Lucene's variant with k1 1.5 and b 0.75, its defaults."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer

from pipeline.measures.topicality import STOPWORDS
from pipeline.mining.passages import Passages

logging.getLogger("bm25s").setLevel(logging.ERROR)  # it logs every index at debug level to the terminal


class Bm25:
    """An index of a folder, mapped: a query reads the postings of its words."""

    def __init__(self, folder: Path, passages: Passages) -> None:
        self._passages = passages
        self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)

    @staticmethod
    def build(passages: Passages, folder: Path) -> None:
        """Index all passages. Memory: some 2.5 kB a passage, most of it their words as numbers."""
        words = _words(passages.texts())
        index = bm25s.BM25(csc_backend="scipy")
        index.index(words, show_progress=False)
        index.save(folder, show_progress=False)

    def search(self, queries: Sequence[str], depth: int) -> Iterator[list[tuple[int, float]]]:
        """For each query the `depth` passages of the highest score above 0: (place, score). Of equal scores the smaller id."""
        # Words of a query that the index lacks are left out; a word that stands in it twice counts twice.
        for asked in _words(queries, as_ids=False):
            known = [self._index.vocab_dict[word] for word in asked if word in self._index.vocab_dict]
            if not known:
                yield []
                continue
            scores = self._index.get_scores_from_ids(known)
            found = np.flatnonzero(scores)
            if len(found) > depth:
                # All that tie with the last: which of them stays, their ids say, not their places.
                found = found[scores[found] >= np.partition(scores[found], -depth)[-depth]]
            ranked = sorted(
                ((int(i), float(scores[i])) for i in found), key=lambda at: (-at[1], self._passages.id(at[0]))
            )
            yield ranked[:depth]


def _words(texts: Iterable[str], as_ids: bool = True) -> Any:
    """The stems of each text, as numbers with their vocabulary or as they are."""
    return bm25s.tokenize(
        texts, stopwords=sorted(STOPWORDS), stemmer=Stemmer.Stemmer("english"), return_ids=as_ids, show_progress=False
    )
