"""Ranking metrics for instructions, each with its source. Ranks begin at 1; ties rank the larger document id first.

A run maps a document's id to its score for one query. Dense runs (all queries against all documents) are ranked by
`dense_ranks`, which agrees with `rank_in`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Run = Mapping[str, float]
Floats = NDArray[np.float64]

WISE_K = 20
"""K of InfoSearch's WISE: ranks past it earn the smallest reward."""


def rank_in(run: Run, document: str) -> int:
    """A document's rank; one that is missing from the run stands behind the last."""
    if document not in run:
        return len(run) + 1
    own = (run[document], document)
    return 1 + sum((score, other) > own for other, score in run.items())


def dense_ranks(scores: NDArray[Any], documents: NDArray[np.intp]) -> NDArray[np.int64]:
    """The rank of one document for each query, (queries,) from scores of (queries, all documents).

    documents: (queries,) column of the document. Columns are taken to stand in ascending order of document ids.
    """
    own = np.take_along_axis(scores, documents[:, None], axis=1)
    behind = np.arange(scores.shape[1])[None, :] > documents[:, None]
    ahead = (scores > own) | ((scores == own) & behind)
    ranks: NDArray[np.int64] = 1 + ahead.sum(axis=1)
    return ranks


def rank_change(before: int, after: int) -> float:
    """How far a document sank, in [-1, 1]: FollowIR's p-MRR of one document (Weller et al., 2024, eq. 1)."""
    return after / before - 1 if before >= after else 1 - before / after


def p_mrr(before: Mapping[str, Run], after: Mapping[str, Run], changed: Mapping[str, Sequence[str]]) -> float:
    """Pairwise MRR change of FollowIR (Weller et al., 2024), in [-1, 1]; positive where documents sink as they should.

    before, after: query id -> run, under the original and the altered instruction. changed: query id -> documents whose
    relevance the altered instruction removed. The mean over a query's documents, then over queries, as `mteb` has it.
    A query missing from a run raises KeyError.
    """
    return float(
        np.mean(
            [
                np.mean([rank_change(rank_in(before[query], d), rank_in(after[query], d)) for d in documents])
                for query, documents in changed.items()
            ]
        )
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a gold document stands without instruction (ori), with it (ins) and with the altered one (rev)."""

    rank_ori: int
    rank_ins: int
    rank_rev: int
    score_ori: float
    score_ins: float
    score_rev: float


def sicr(s: Standing) -> float:
    """Strict instruction compliance of one gold document, 0 or 1 (InfoSearch, Zhou et al., 2025, eq. 4).

    With the case of the authors' released code for a document that is first already: it can't rise, so it must stay
    first, and its score must not fall.
    """
    reverses = s.rank_ori < s.rank_rev and s.score_ori > s.score_rev
    if s.rank_ori == 1:
        return float(reverses and s.rank_ins == 1 and s.score_ins >= s.score_ori)
    return float(reverses and s.rank_ins < s.rank_ori and s.score_ins > s.score_ori)


def wise(s: Standing, judged: int, variant: Literal["printed", "released"] = "printed") -> float:
    """Weighted instruction sensitivity of one gold document, in [-1, 1] (InfoSearch, Zhou et al., 2025, eq. 5).

    judged: N, the number of the query's gold and hard documents. `released` follows the authors' code where it
    differs from the printed formula: sqrt(R_ori - R_ins) / K in the reward, and R_ori < N.
    """
    ori, ins, rev = s.rank_ori, s.rank_ins, s.rank_rev
    if ins <= ori < rev:
        near = ori <= judged if variant == "printed" else ori < judged
        if near and ins == 1:
            return 1.0
        if ori > WISE_K:
            return 0.01
        gained = (ori - ins) / WISE_K if variant == "printed" else float(np.sqrt(ori - ins)) / WISE_K
        return (1 - gained) / float(np.sqrt(ins))
    if rev < ori < ins:
        return -1.0
    return (ori - ins) / ins if ori <= ins else (rev - ori) / ori


def ndcg(run: Run, grades: Mapping[str, int], k: int = 10) -> float:
    """nDCG@k with the grade itself as gain, as trec_eval's ndcg_cut computes it."""
    gains = [max(0, grades.get(document, 0)) for document in ranked(run)[:k]]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    best = discounted(ideal)
    return discounted(gains) / best if best else 0.0


def mrr(run: Run, grades: Mapping[str, int], k: int = 10) -> float:
    """The reciprocal rank of the first relevant document among the first k, 0 without one."""
    for rank, document in enumerate(ranked(run)[:k], start=1):
        if grades.get(document, 0) > 0:
            return 1 / rank
    return 0.0


def recall(run: Run, grades: Mapping[str, int], k: int) -> float:
    """The share of the relevant documents among the first k."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranked(run)[:k])) / len(relevant) if relevant else 0.0


def robustness(by_instruction: Mapping[str, Sequence[float]]) -> float:
    """Robustness@10 (InstructIR, Oh et al., 2024): a query's lowest nDCG@10 over its instructions, over queries."""
    return float(np.mean([min(values) for values in by_instruction.values()]))


def ranked(run: Run) -> list[str]:
    """Documents, best first."""
    return sorted(run, key=lambda document: (run[document], document), reverse=True)


def discounted(gains: Sequence[int]) -> float:
    """Discounted cumulative gain."""
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1)))


def ndcg_of_rank(ranks: NDArray[np.int64], k: int = 10) -> Floats:
    """nDCG@k of queries with one relevant document each, from its ranks."""
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def mrr_of_rank(ranks: NDArray[np.int64], k: int = 10) -> Floats:
    """Reciprocal rank within the first k, from the ranks of each query's one relevant document."""
    return np.where(ranks <= k, 1 / ranks, 0.0)


def own_passage_wins(scores: NDArray[Any]) -> NDArray[np.bool_]:
    """(tuples, 3) bool: each context's own passage scores above the other two. A tie counts as wrong.

    scores: (tuples, contexts, passages), the own passage on the diagonal. All three right is *strict*.
    """
    own = np.diagonal(scores, axis1=1, axis2=2)[:, :, None]
    others = ~np.eye(scores.shape[1], dtype=bool)[None]
    return np.asarray(np.where(others, own > scores, True).all(axis=2))
