from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mteb._evaluators import retrieval_metrics as theirs

from train import metrics

DOCUMENTS = [f"d{number}" for number in range(12)]
# few distinct scores, so that ties abound; eighths are exact in single precision too, which trec_eval ranks by
SCORES = st.integers(-8, 8).map(lambda eighths: eighths / 8)
RUN = st.dictionaries(st.sampled_from(DOCUMENTS), SCORES, min_size=1, max_size=12)
GRADES = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1, max_size=12)
QUERIES = st.sampled_from(["q1", "q2", "q3"])


@given(
    st.dictionaries(
        QUERIES,
        st.tuples(RUN, RUN, st.lists(st.sampled_from(DOCUMENTS), min_size=1, max_size=4, unique=True)),
        min_size=1,
    )
)
def test_p_mrr_is_mtebs(data: dict[str, tuple[dict[str, float], dict[str, float], list[str]]]) -> None:
    """With ties, documents that a run misses, and runs of one document."""
    before = {query: each[0] for query, each in data.items()}
    after = {query: each[1] for query, each in data.items()}
    changed = {query: each[2] for query, each in data.items()}
    expected = theirs.calculate_pmrr(
        {f"{query}-og": run for query, run in before.items()},
        {f"{query}-changed": run for query, run in after.items()},
        changed,
    )
    assert metrics.p_mrr(before, after, changed) == pytest.approx(expected, abs=1e-9)


@given(RUN, st.sampled_from(DOCUMENTS))
def test_a_rank_is_mtebs(run: dict[str, float], document: str) -> None:
    assert metrics.rank_in(run, document) == theirs.get_rank_from_dict(run, document)[0]


@given(RUN, GRADES)
def test_ndcg_mrr_and_recall_are_mtebs(run: dict[str, float], grades: dict[str, int]) -> None:
    expected = theirs.pytrec_eval.RelevanceEvaluator({"q": grades}, {"ndcg_cut.3,10", "recall.3,10"}).evaluate(
        {"q": run}
    )["q"]
    for k in (3, 10):
        assert metrics.ndcg(run, grades, k) == pytest.approx(expected[f"ndcg_cut_{k}"], abs=1e-9)
        assert metrics.recall(run, grades, k) == pytest.approx(expected[f"recall_{k}"], abs=1e-9)
        assert metrics.mrr(run, grades, k) == pytest.approx(
            theirs.mrr({"q": grades}, {"q": run}, [k])[f"MRR@{k}"][0], abs=1e-9
        )


@given(
    st.dictionaries(QUERIES, st.dictionaries(st.sampled_from("abc"), st.tuples(RUN, GRADES), min_size=1), min_size=1)
)
def test_robustness_is_mtebs(data: dict[str, dict[str, tuple[dict[str, float], dict[str, int]]]]) -> None:
    runs = {f"{query}_{i}": run for query, each in data.items() for i, (run, _) in each.items()}
    qrels = {f"{query}_{i}": grades for query, each in data.items() for i, (_, grades) in each.items()}
    scores = theirs.pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(runs)
    ours = {q: [metrics.ndcg(run, grades) for run, grades in each.values()] for q, each in data.items()}
    assert metrics.robustness(ours) == pytest.approx(theirs.robustness_at_10(qrels, runs, scores), abs=1e-9)


@given(st.lists(st.lists(SCORES, min_size=6, max_size=6), min_size=1, max_size=5), st.integers(0, 5))
def test_a_dense_rank_is_the_rank_in_a_run(table: list[list[float]], column: int) -> None:
    ids = [f"d{number}" for number in range(6)]
    ranks = metrics.dense_ranks(np.array(table), np.full(len(table), column))
    assert ranks.tolist() == [metrics.rank_in(dict(zip(ids, row, strict=True)), ids[column]) for row in table]


@given(st.integers(1, 40))
def test_a_single_relevant_documents_figures_follow_from_its_rank(rank: int) -> None:
    run = {f"d{place:02d}": -float(place) for place in range(1, 41)}
    grades = {f"d{rank:02d}": 1}
    ranks = np.array([rank])
    assert metrics.ndcg_of_rank(ranks)[0] == pytest.approx(metrics.ndcg(run, grades), abs=1e-12)
    assert metrics.mrr_of_rank(ranks)[0] == pytest.approx(metrics.mrr(run, grades), abs=1e-12)


def standing(ori: int, ins: int, rev: int, scores: tuple[float, float, float] = (0.5, 0.6, 0.4)) -> metrics.Standing:
    return metrics.Standing(ori, ins, rev, *scores)


@pytest.mark.parametrize(
    ("given_standing", "expected"),
    [
        (standing(3, 2, 5), 1.0),
        (standing(3, 3, 5), 0.0),  # did not rise
        (standing(3, 2, 3), 0.0),  # did not sink
        (standing(3, 2, 5, (0.5, 0.5, 0.4)), 0.0),  # rose without a better score
        (standing(3, 2, 5, (0.5, 0.6, 0.5)), 0.0),
        (standing(1, 1, 2), 1.0),  # was first and stayed
        (standing(1, 1, 2, (0.5, 0.5, 0.4)), 1.0),
        (standing(1, 1, 2, (0.5, 0.4, 0.3)), 0.0),
        (standing(1, 2, 3), 0.0),
    ],
)
def test_sicr_by_hand(given_standing: metrics.Standing, expected: float) -> None:
    assert metrics.sicr(given_standing) == expected


@pytest.mark.parametrize(
    ("ranks", "printed", "released"),
    [
        ((3, 1, 5), 1.0, (1 - math.sqrt(2) / 20)),  # N = 3: 3 ≤ N but not 3 < N
        ((2, 1, 5), 1.0, 1.0),
        ((8, 2, 9), (1 - 6 / 20) / math.sqrt(2), (1 - math.sqrt(6) / 20) / math.sqrt(2)),
        ((30, 2, 31), 0.01, 0.01),
        ((4, 6, 2), -1.0, -1.0),
        ((2, 4, 5), (2 - 4) / 4, (2 - 4) / 4),
        ((6, 4, 3), (3 - 6) / 6, (3 - 6) / 6),
        ((5, 5, 5), 0.0, 0.0),
    ],
)
def test_wise_by_hand(ranks: tuple[int, int, int], printed: float, released: float) -> None:
    assert metrics.wise(standing(*ranks), 3) == pytest.approx(printed)
    assert metrics.wise(standing(*ranks), 3, "released") == pytest.approx(released)


@given(*[st.integers(1, 60)] * 3)
def test_wise_stays_in_its_bounds(ori: int, ins: int, rev: int) -> None:
    for variant in ("printed", "released"):
        assert -1 <= metrics.wise(standing(ori, ins, rev), 3, variant) <= 1  # type: ignore[arg-type]


def test_a_tie_is_no_win() -> None:
    scores = np.array([[[0.9, 0.1, 0.1], [0.2, 0.3, 0.3], [0.1, 0.2, 0.4]]])
    assert metrics.own_passage_wins(scores).tolist() == [[True, False, True]]
