"""From per-query values to figures: means with bootstrap intervals, and a paired test between two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, permutation_test

Floats = NDArray[np.float64]

RESAMPLES = 2000
"""Bootstrap and permutation samples: the ends of a 95 % interval then move in the third decimal."""

SUPPORTED = 0.05
"""The p-value from which a difference counts as not supported."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over queries with its 95 % interval (percentile bootstrap over queries)."""

    mean: float
    low: float
    high: float
    queries: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def figure(values: Floats, seed: int = 0) -> Figure:
    """The figure of (queries,) values."""
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Figure(mean, mean, mean, len(values))
    interval = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed), batch=200
    ).confidence_interval
    return Figure(mean, float(interval.low), float(interval.high), len(values))


def paired_p(ours: Floats, theirs: Floats, seed: int = 0) -> float:
    """The two-sided p-value of a paired randomisation test on the mean difference over the same queries."""
    if np.array_equal(ours, theirs):
        return 1.0
    tested = permutation_test(
        (ours - theirs,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
        batch=200,
    )
    return float(tested.pvalue)


def by_query(values: Floats, queries: Sequence[str]) -> Floats:
    """The mean over each query's tuples: (distinct queries,), in the order of their first tuple."""
    place: dict[str, int] = {}
    index = np.array([place.setdefault(query, len(place)) for query in queries])
    return np.bincount(index, weights=values) / np.bincount(index)


def as_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures for the result file."""
    return {name: {"mean": f.mean, "low": f.low, "high": f.high, "queries": f.queries} for name, f in figures.items()}
