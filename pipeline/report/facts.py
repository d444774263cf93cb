"""The figures of the report that are computed over a sample of rows: diversity, overlaps, what BM25 solves."""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import bm25s
import numpy as np
from scipy.sparse import csr_array

from pipeline.measures.overlap import folded, trigrams
from pipeline.measures.topicality import stems
from pipeline.records import CONTEXTS, PASSAGES

logging.getLogger("bm25s").setLevel(logging.ERROR)  # it logs every index at debug level to the terminal

NEAR = 0.8
"""Word-trigram Jaccard from which two instructions count as near-duplicates."""


def diversity(instructions: Sequence[str]) -> dict[str, Any]:
    """How varied instructions are.

    distinct: share of distinct n-grams, n = 1 to 3 (Li et al. 2016). compression: size over compressed size; the higher, the
    more repetitive (Shaib et al. 2024, arXiv 2403.00553). near: share with a near-duplicate among them.
    """
    tokens = [folded(text) for text in instructions]
    distinct = {}
    for n in (1, 2, 3):
        grams = [gram for words in tokens for gram in zip(*(words[i:] for i in range(n)), strict=False)]
        distinct[n] = len(set(grams)) / len(grams) if grams else 0.0
    whole = "\n".join(instructions).encode()
    openings = Counter(" ".join(words[:3]) for words in tokens if words)
    return {
        "n": len(instructions),
        "distinct": distinct,
        "compression": len(whole) / len(zlib.compress(whole, 9)) if whole else 0.0,
        "near": near_duplicates(instructions),
        "openings": [
            (text, n / max(1, len(tokens))) for text, n in sorted(openings.items(), key=lambda x: (-x[1], x[0]))[:8]
        ],
    }


def near_duplicates(texts: Sequence[str]) -> float:
    """The share of texts with another one at a word-trigram Jaccard of `NEAR` or more."""
    if len(texts) < 2:
        return 0.0
    sets = [trigrams(text) for text in texts]
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(gram, len(numbers)) for grams in sets for gram in grams]
    sizes = np.array([len(grams) for grams in sets])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    held = csr_array(
        (np.ones(len(columns), dtype=np.int32), np.array(columns), starts), shape=(len(sets), len(numbers))
    )
    both = (held @ held.T).toarray()
    jaccard = both / (sizes[:, None] + sizes[None, :] - both)
    np.fill_diagonal(jaccard, 0)
    return float((jaccard.max(axis=1) >= NEAR).mean())


def overlaps(sample: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Shared word stems over all of both: of I+ with P+, and of each hard negative with P+."""
    pairs = {
        "I+ and P+": ("instruction_positive", "document"),
        "P-1 and P+": ("hard_negative_document_1", "document"),
        "P-2 and P+": ("hard_negative_document_2", "document"),
    }
    return {
        name: np.array([_jaccard(stems(row[a]), stems(row[b])) for row in sample]) for name, (a, b) in pairs.items()
    }


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def bm25_accuracy(sample: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How much of the tuples BM25 solves: the context's own passage above the other two (a tie is wrong).

    A word of the query counts once, however often it stands there.

    Keys: for (I+, Q+) with and without the instruction, all three contexts right (strict) with it. Guessing: 1/3 and 1/27.
    """
    if not sample:
        return {}
    passages = [row[name] for row in sample for name in PASSAGES]
    retriever = bm25s.BM25()
    vocabulary = bm25s.tokenize(passages, stopwords=None, show_progress=False)
    retriever.index(vocabulary, show_progress=False)

    def right(row: int, context: int, with_instruction: bool) -> bool:
        instruction, query = (sample[row][name] for name in CONTEXTS[context])
        text = f"{query} {instruction}" if with_instruction else query
        words = bm25s.tokenize([text], stopwords=None, show_progress=False, return_ids=False)[0]
        known = sorted({word for word in words if word in retriever.vocab_dict})
        scores = retriever.get_scores(known)[row * 3 : row * 3 + 3] if known else np.zeros(3)
        return bool(scores[context] > np.delete(scores, context).max())

    n = len(sample)
    with_instruction = np.array([[right(i, c, True) for c in range(3)] for i in range(n)])
    return {
        "(I+, Q+) with the instruction": float(with_instruction[:, 0].mean()),
        "(I+, Q+), query alone": float(np.mean([right(i, 0, False) for i in range(n)])),
        "all three contexts (strict)": float(with_instruction.all(axis=1).mean()),
    }


def quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The smallest value that `share` of them does not pass, of values that occur so often; 0 where there is none."""
    if not counts.sum():
        return 0.0
    order = np.argsort(values)
    reached = np.cumsum(counts[order]) / counts.sum()
    return float(values[order][np.searchsorted(reached, share)])
