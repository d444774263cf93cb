from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from tuples import GOOD, broken

from pipeline.judging import decide, matrix, shown_order
from pipeline.recipe import Thresholds
from pipeline.records import Rejected, Tuple

grades = st.integers(0, 3)
matrices = st.tuples(*[st.tuples(grades, grades, grades)] * 3)


@given(matrices, st.text(min_size=1))
def test_grades_come_back_to_their_own_context_and_passage_whatever_order_was_shown(
    cells: tuple, tuple_id: str
) -> None:
    contexts, passages = shown_order(tuple_id, "contexts"), shown_order(tuple_id, "passages")
    shown = {
        f"context_{i}": {f"passage_{j}": cells[c][p] for j, p in enumerate(passages, 1)}
        for i, c in enumerate(contexts, 1)
    }
    assert matrix(shown, contexts, passages) == cells


def test_the_order_shown_is_even_over_ids_and_differs_between_contexts_and_passages() -> None:
    ids = [f"q{i}-d{i}" for i in range(6000)]
    pairs = Counter((shown_order(i, "contexts"), shown_order(i, "passages")) for i in ids)
    assert len(pairs) == 36
    assert max(pairs.values()) < 1.5 * min(pairs.values())


@given(matrices)
def test_a_tuple_is_accepted_exactly_when_the_diagonal_is_relevant_and_the_first_row_is_not_else(cells: tuple) -> None:
    ended = decide(replace(GOOD, relevance=cells), Thresholds(relevant=2, irrelevant=1))
    fits = all(cells[i][i] >= 2 for i in range(3)) and cells[0][1] <= 1 and cells[0][2] <= 1
    assert isinstance(ended, Tuple) == fits


def test_thresholds_decide() -> None:
    lenient = broken(relevance=((2, 1, 1), (0, 2, 0), (0, 0, 2)))
    assert decide(lenient, Thresholds(2, 1)) is lenient
    assert isinstance(decide(lenient, Thresholds(3, 1)), Rejected)
    assert isinstance(decide(lenient, Thresholds(2, 0)), Rejected)


def test_every_deciding_cell_has_its_own_reason() -> None:
    reasons = set()
    for c, p in product(range(3), range(3)):
        cells = [list(row) for row in ((3, 0, 0), (0, 3, 0), (0, 0, 3))]
        cells[c][p] = 3 - cells[c][p]
        ended = decide(broken(relevance=tuple(map(tuple, cells))), Thresholds())
        if isinstance(ended, Rejected):
            reasons.add(ended.reason)
    assert len(reasons) == 5
