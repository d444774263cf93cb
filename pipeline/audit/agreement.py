"""Agreement between the judge and people, and between people; and what other thresholds would have done.

Kappas by statsmodels, Krippendorff's alpha by `krippendorff`. Grades are ordinal, so disagreements weigh by their distance
(quadratic weights; ordinal alpha). Intervals are 95 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import krippendorff
import numpy as np
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from pipeline.audit.annotations import Annotations, Cell
from pipeline.audit.sample import Sample
from pipeline.judging import shown_order

_LEVELS = 4
_BOOTSTRAP = 500


@dataclass(frozen=True, slots=True)
class Agreement:
    """All figures of an audit, JSON-able by `as_dict`."""

    figures: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For agreement.json and the card."""
        return self.figures


def measure(sample: Sample, people: Sequence[Annotations], judged: Mapping[str, Sequence[Sequence[int]]]) -> Agreement:
    """judged: row id -> the judge's matrix in the order of CONTEXTS and PASSAGES."""
    judge = {cell: _judge_grade(cell, judged) for cell in sample.cells}
    consensus = _consensus([person.grades for person in people])
    both = [cell for cell in sample.cells if cell in consensus]
    dimension = {row.id: row.dimension for row in sample.rows}
    figures: dict[str, Any] = {
        "sample": sample.name,
        "rows": len(sample.rows),
        "cells_graded": len(both),
        "annotators": {person.annotator: len(person.grades) for person in people},
        "judge_and_people": _cohen([judge[c] for c in both], [consensus[c] for c in both]),
        "confusion": _confusion(judge, consensus, both),
        "by_dimension": {
            name: _cohen(
                [judge[c] for c in both if dimension[c[0]] == name],
                [consensus[c] for c in both if dimension[c[0]] == name],
            )
            for name in sorted({dimension[c[0]] for c in both})
        },
        "between_people": _between(people, sample),
        "thresholds": _thresholds(sample, judge, consensus),
    }
    return Agreement(figures)


def differing_cells(
    people: Sequence[Annotations], judged: Mapping[str, Sequence[Sequence[int]]]
) -> list[tuple[Cell, int, int]]:
    """Cells where judge and people lie two grades or more apart: (cell, judge, people), widest first."""
    consensus = _consensus([person.grades for person in people])
    apart = [(c, _judge_grade(c, judged), grade) for c, grade in consensus.items()]
    return sorted((x for x in apart if abs(x[1] - x[2]) >= 2), key=lambda x: (-abs(x[1] - x[2]), x[0]))


def _judge_grade(cell: Cell, judged: Mapping[str, Sequence[Sequence[int]]]) -> int:
    name, context, passage = cell
    return judged[name][shown_order(name, "contexts")[context]][shown_order(name, "passages")[passage]]


def _consensus(grades: Sequence[Mapping[Cell, int]]) -> dict[Cell, int]:
    """The median grade of a cell, the lower of two in the middle."""
    gathered: dict[Cell, list[int]] = {}
    for one in grades:
        for cell, grade in one.items():
            gathered.setdefault(cell, []).append(grade)
    return {cell: sorted(given)[(len(given) - 1) // 2] for cell, given in gathered.items()}


def _cohen(a: Sequence[int], b: Sequence[int]) -> dict[str, Any]:
    """Cohen's kappa with quadratic weights, its interval, and the share of equal grades. None where it is undefined."""
    table = np.zeros((_LEVELS, _LEVELS))
    for x, y in zip(a, b, strict=True):
        table[x, y] += 1
    n = len(a)
    equal = float(np.trace(table) / n) if n else None
    if n < 2 or np.count_nonzero(table.sum(axis=0)) < 2 or np.count_nonzero(table.sum(axis=1)) < 2:
        return {"cells": n, "equal": equal, "kappa": None, "low": None, "high": None}
    result = cohens_kappa(table, wt="quadratic")
    low, high = (_rounded(x) for x in (result.kappa_low, result.kappa_upp))
    return {"cells": n, "equal": equal, "kappa": _rounded(result.kappa), "low": low, "high": high}


def _confusion(judge: Mapping[Cell, int], people: Mapping[Cell, int], cells: Sequence[Cell]) -> list[list[int]]:
    """[judge's grade][people's grade] -> cells."""
    counts = Counter((judge[c], people[c]) for c in cells)
    return [[counts[j, p] for p in range(_LEVELS)] for j in range(_LEVELS)]


def _between(people: Sequence[Annotations], sample: Sample) -> dict[str, Any]:
    if len(people) < 2:
        return {"pairs": {}, "fleiss": None, "krippendorff": None}
    grades = [person.grades for person in people]
    pairs = {}
    for (i, a), (j, b) in combinations(enumerate(grades), 2):
        shared = [cell for cell in sample.cells if cell in a and cell in b]
        pairs[f"{people[i].annotator} and {people[j].annotator}"] = _cohen(
            [a[c] for c in shared], [b[c] for c in shared]
        )
    return {"pairs": pairs, "fleiss": _fleiss(grades, sample), "krippendorff": _alpha(grades, sample)}


def _fleiss(grades: Sequence[Mapping[Cell, int]], sample: Sample) -> dict[str, float | None] | None:
    """Fleiss' kappa over the cells that everybody graded, with an interval by resampling rows."""
    blocks = []
    for row in sample.rows:
        cells = [(row.id, c, p) for c in range(3) for p in range(3)]
        graded = [[one[cell] for one in grades] for cell in cells if all(cell in one for one in grades)]
        if graded:
            blocks.append(np.array(graded))

    def kappa(chosen: Iterable[int]) -> float:
        table, _ = aggregate_raters(np.concatenate([blocks[i] for i in chosen]), n_cat=_LEVELS)
        return float(fleiss_kappa(table)) if np.count_nonzero(table.sum(axis=0)) > 1 else float("nan")

    if not blocks or np.isnan(value := kappa(range(len(blocks)))):
        return None
    low, high = _interval(kappa, len(blocks))
    return {"kappa": _rounded(value), "low": low, "high": high}


def _alpha(grades: Sequence[Mapping[Cell, int]], sample: Sample) -> dict[str, float | None] | None:
    """Krippendorff's ordinal alpha with an interval by resampling rows, whose cells depend on each other."""
    blocks = [
        np.array([[one.get((row.id, c, p), np.nan) for c in range(3) for p in range(3)] for one in grades])
        for row in sample.rows
    ]

    def alpha(chosen: Iterable[int]) -> float:
        data = np.concatenate([blocks[i] for i in chosen], axis=1)
        if len(np.unique(data[~np.isnan(data)])) < 2:
            return float("nan")
        try:
            return float(krippendorff.alpha(reliability_data=data, level_of_measurement="ordinal"))
        except ValueError:
            return float("nan")

    value = alpha(range(len(blocks)))
    if np.isnan(value):
        return None
    low, high = _interval(alpha, len(blocks))
    return {"alpha": _rounded(value), "low": low, "high": high}


def _interval(statistic: Callable[[Iterable[int]], float], rows: int) -> tuple[float | None, float | None]:
    """95 % by the percentile bootstrap over rows, whose cells depend on each other."""
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.integers(0, rows, rows)) for _ in range(_BOOTSTRAP)])
    if np.isnan(drawn).all():
        return None, None
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return _rounded(float(low)), _rounded(float(high))


def _thresholds(sample: Sample, judge: Mapping[Cell, int], people: Mapping[Cell, int]) -> list[dict[str, Any]]:
    """For each pair of thresholds of the judge: yield over the judged rows, and precision by what people would accept.

    People accept at the defaults (relevant 2, irrelevant 1). Rows weigh by how many of the data set they stand for.
    """
    rows = [row for row in sample.rows if all((row.id, c, p) in people for c in range(3) for p in range(3))]
    weight = {row.id: row.weight for row in rows}
    total = sum(weight.values())
    good = {row.id for row in rows if _accepts(row.id, people, 2, 1)}
    found = []
    for relevant in (1, 2, 3):
        for irrelevant in range(relevant):
            taken = [row.id for row in rows if _accepts(row.id, judge, relevant, irrelevant)]
            taken_weight = sum(weight[name] for name in taken)
            right = sum(weight[name] for name in taken if name in good)
            found.append(
                {
                    "relevant": relevant,
                    "irrelevant": irrelevant,
                    "rows": len(taken),
                    "yield": _rounded(taken_weight / total) if total else None,
                    "precision": _rounded(right / taken_weight) if taken_weight else None,
                }
            )
    return found


def _accepts(name: str, grades: Mapping[Cell, int], relevant: int, irrelevant: int) -> bool:
    contexts, passages = shown_order(name, "contexts"), shown_order(name, "passages")
    cell = {(contexts[c], passages[p]): grades[name, c, p] for c in range(3) for p in range(3)}
    return all(cell[i, i] >= relevant for i in range(3)) and cell[0, 1] <= irrelevant and cell[0, 2] <= irrelevant


def _rounded(x: float) -> float | None:
    return None if x is None or np.isnan(x) else round(float(x), 4)
