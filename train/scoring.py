"""A split's tuples scored by anything that scores contexts against passages, and the metrics' values query by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from pipeline.records import CONTEXTS, PASSAGES, QUERY_POSITIVE
from train import metrics
from train.encoder import Encoder
from train.figures import Figure, by_query, figure
from train.inputs import Context

Floats = NDArray[np.float64]

CHUNK = 256
"""Contexts scored at a time: 256 rows against a million passages are 1 GB."""

RECALL_AT = (10, 100)

ACCURACY = "accuracy (I+,Q+)"
STRICT = "strict accuracy"
P_MRR = "p-MRR"


class Scorer(Protocol):
    """What can be measured."""

    def scores(self, contexts: Sequence[Context]) -> NDArray[Any]:
        """(contexts, passages) of the passages that it was made with."""


class DenseScorer:
    """Cosines of an encoder."""

    def __init__(self, encoder: Encoder, passages: NDArray[np.float32]) -> None:
        self.encoder = encoder
        self.passages = passages

    def scores(self, contexts: Sequence[Context]) -> NDArray[Any]:
        """(contexts, passages) cosines."""
        return self.encoder.contexts(contexts) @ self.passages.T


@dataclass(frozen=True, slots=True)
class Candidates:
    """A split's tuples and all passages that they are ranked among.

    texts: distinct passages, in ascending order of their ids; place: (tuples, 3), where each tuple's passages stand.
    """

    rows: list[dict[str, Any]]
    texts: list[str]
    place: NDArray[np.intp]

    @classmethod
    def of(cls, rows: Dataset, distractors: Sequence[str] = ()) -> Candidates:
        """All passages of the rows, and distractors."""
        records = list(rows)
        ids: dict[str, str] = {}
        for record in records:
            for slot, name in enumerate(PASSAGES):
                ids.setdefault(record[name], f"{record['id']}-{slot}")
        for number, text in enumerate(distractors):
            ids.setdefault(text, f"distractor-{number:09d}")
        texts = sorted(ids, key=lambda text: ids[text])
        place = {text: index for index, text in enumerate(texts)}
        return cls(records, texts, np.array([[place[record[name]] for name in PASSAGES] for record in records]))

    @property
    def queries(self) -> list[str]:
        """Each tuple's query id."""
        return [record["query_id"] for record in self.rows]

    def contexts(self) -> list[Context]:
        """Four for each tuple: Q+ alone, then the three contexts."""
        return [
            context
            for record in self.rows
            for context in (
                Context(record[QUERY_POSITIVE]),
                *(Context(record[query], record[instruction]) for instruction, query in CONTEXTS),
            )
        ]


@dataclass(frozen=True, slots=True)
class Standings:
    """Scores and ranks of each tuple's three passages for Q+ alone and for its three contexts: (tuples, 4, 3)."""

    scores: NDArray[Any]
    ranks: NDArray[np.int64]

    @classmethod
    def of(cls, scorer: Scorer, candidates: Candidates) -> Standings:
        """Score and rank."""
        contexts = candidates.contexts()
        place = np.repeat(candidates.place, 4, axis=0)
        scores = np.empty((len(contexts), 3))
        ranks = np.empty((len(contexts), 3), dtype=np.int64)
        for start in range(0, len(contexts), CHUNK):
            part = slice(start, start + CHUNK)
            table = scorer.scores(contexts[part])
            scores[part] = np.take_along_axis(table, place[part], axis=1)
            for slot in range(3):
                ranks[part, slot] = metrics.dense_ranks(table, place[part, slot])
        return cls(scores.reshape(-1, 4, 3), ranks.reshape(-1, 4, 3))

    def values(self, queries: Sequence[str]) -> dict[str, Floats]:
        """Each metric's value for each tuple: (tuples,). Robustness@10 is the query's, repeated for its tuples."""
        ori, ins, rev = (self.ranks[:, context, 0] for context in range(3))
        wins = metrics.own_passage_wins(self.scores[:, 1:])
        standings = [
            metrics.Standing(*map(int, ranks), *map(float, scores))
            for ranks, scores in zip(self.ranks[:, :3, 0], self.scores[:, :3, 0], strict=True)
        ]
        own = np.minimum(metrics.ndcg_of_rank(ins), metrics.ndcg_of_rank(self.ranks[:, 2, 1]))
        lowest: dict[str, float] = {}
        for query, value in zip(queries, own, strict=True):
            lowest[query] = min(value, lowest.get(query, 1.0))
        return {
            ACCURACY: wins[:, 0].astype(float),
            "accuracy (I-,Q+)": wins[:, 1].astype(float),
            "accuracy (I+,Q-)": wins[:, 2].astype(float),
            STRICT: wins.all(axis=1).astype(float),
            P_MRR: np.array([metrics.rank_change(a, b) for a, b in zip(ins.tolist(), rev.tolist(), strict=True)]),
            "nDCG@10": metrics.ndcg_of_rank(ins),
            "MRR@10": metrics.mrr_of_rank(ins),
            **{f"Recall@{k}": (ins <= k).astype(float) for k in RECALL_AT},
            "nDCG@10, no instruction": metrics.ndcg_of_rank(ori),
            "Robustness@10": np.array([lowest[query] for query in queries]),
            "SICR": np.array([metrics.sicr(s) for s in standings]),
            "WISE": np.array([metrics.wise(s, judged=len(PASSAGES)) for s in standings]),
            "WISE, released code": np.array([metrics.wise(s, len(PASSAGES), "released") for s in standings]),
        }


def figures(values: Mapping[str, Floats], queries: Sequence[str]) -> dict[str, Figure]:
    """Each metric's mean over queries, with its interval."""
    return {name: figure(by_query(column, queries)) for name, column in values.items()}


def grouped(values: Mapping[str, Floats], candidates: Candidates, column: str) -> dict[str, dict[str, Figure]]:
    """The same for each value of a column, such as each dimension."""
    names = np.array([record[column] for record in candidates.rows])
    queries = np.array(candidates.queries)
    return {
        str(name): figures({m: v[names == name] for m, v in values.items()}, queries[names == name].tolist())
        for name in sorted(set(names.tolist()))
    }


def quick_figures(encoder: Encoder, rows: Dataset) -> dict[str, Figure]:
    """The figures of an encoder on the passages of a split alone."""
    candidates = Candidates.of(rows)
    scorer = DenseScorer(encoder, encoder.passages(candidates.texts))
    return figures(Standings.of(scorer, candidates).values(candidates.queries), candidates.queries)
