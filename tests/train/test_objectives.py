from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.train.conftest import record
from tests.train.literal import literal_loss
from train.batches import Collator, Row, RowOptions, mined_passages
from train.data import UNJUDGED
from train.errors import UsageError
from train.inputs import ContextFormat
from train.loss import ObjectiveLoss
from train.objectives import SETS, Objective, Rows, brings_passage, true_pairs

OBJECTIVES = [
    f"{kind}:{','.join(sets)}" for kind in ("uni", "multi") for n in (1, 2, 3) for sets in combinations(SETS, n)
]


def mined(*documents: str, grade: int | None = 0) -> dict[str, Any]:
    """The columns of mined passages, the first of them graded."""
    relevance = [grade, *[None] * (len(documents) - 1)] if documents else []
    return {"mined_documents": list(documents), "mined_relevance": relevance}


# A shared query, a shared passage, a hard negative that the judge found relevant, and one without a matrix.
# Mined: more than are wanted, one that another tuple has too, P+ of another, one that is relevant, none.
RECORDS = [
    record(0, **mined("the river 31 is short", "the comet 32 is short", "the river 33 is short")),
    record(1, query="what is the bridge 0", **mined("the comet 4 is short", "the comet 32 is short")),
    record(2, document="the bridge 0 is short", **mined("the comet 32 is short", "the candle 34 is short", grade=2)),
    record(3, relevance=[[3, 2, 0], [2, 3, 0], [0, 1, 3]], **mined("the violin 35 is short", grade=None)),
    record(4, relevance=UNJUDGED, **mined()),
]


def batch_of(
    model: SentenceTransformer, options: RowOptions, mask: bool
) -> tuple[list[Row], list[Any], dict[str, torch.Tensor], list[Any], list[str]]:
    collator = Collator(model, ContextFormat(), options, instruction_negatives=0.5, mask=mask)
    rows = [row for each in RECORDS for row in options.rows(each)]
    chosen = collator.choose_instructions(rows)
    label = collator(RECORDS)["label"]
    distinct = {row.context: int(i) for row, i in zip(rows, label["context"], strict=True)}
    for contexts, indices in zip(chosen, label["instructions"].tolist(), strict=True):
        distinct |= {context: i for context, i in zip(contexts, indices, strict=False) if context is not None}
    passages = {row.passage: int(i) for row, i in zip(rows, label["passage"], strict=True)}
    passages |= {row.passage: int(i) for row, i in zip(mined_passages(rows), label["mined"], strict=True)}
    return rows, chosen, label, sorted(distinct, key=distinct.__getitem__), sorted(passages, key=passages.__getitem__)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        RowOptions(),
        RowOptions(plain_pairs=1.0),
        RowOptions(mined_negatives=1),
        RowOptions(plain_pairs=1.0, mined_negatives=2),
    ],
    ids=str,
)
def test_the_loss_is_the_literal_one(
    model: SentenceTransformer, objective: str, mask: bool, options: RowOptions
) -> None:
    rows, chosen, label, contexts, passages = batch_of(model, options, mask)
    random = np.random.default_rng(7)
    c, p = random.normal(size=(len(contexts), 8)), random.normal(size=(len(passages), 8))
    loss = ObjectiveLoss(model, Objective.parse(objective), temperature=0.3, mask=mask)
    ours = loss.calculate_loss([[torch.tensor(c)], [torch.tensor(p)]], label)
    vectors = {**dict(zip(contexts, c, strict=True)), **dict(zip(passages, p, strict=True))}
    assert float(ours) == pytest.approx(literal_loss(objective, rows, chosen, vectors, 0.3, mask), abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_is_the_difference_quotient(model: SentenceTransformer, objective: str) -> None:
    rows, chosen, label, contexts, passages = batch_of(model, RowOptions(plain_pairs=0.5, mined_negatives=2), True)
    random = np.random.default_rng(3)
    c, p = random.normal(size=(len(contexts), 4)), random.normal(size=(len(passages), 4))
    tensor_c, tensor_p = torch.tensor(c, requires_grad=True), torch.tensor(p, requires_grad=True)
    loss = ObjectiveLoss(model, Objective.parse(objective), temperature=0.5)
    loss.calculate_loss([[tensor_c], [tensor_p]], label).backward()

    def literal() -> float:
        vectors = {**dict(zip(contexts, c, strict=True)), **dict(zip(passages, p, strict=True))}
        return literal_loss(objective, rows, chosen, vectors, 0.5, True)

    for array, gradient in ((c, tensor_c.grad), (p, tensor_p.grad)):
        assert gradient is not None
        for place in [tuple(random.integers(array.shape)) for _ in range(5)]:
            step, kept = 1e-4, array[place]
            array[place] = kept + step
            above = literal()
            array[place] = kept - step
            below = literal()
            array[place] = kept
            assert float(gradient[place]) == pytest.approx((above - below) / (2 * step), abs=1e-5)


def test_the_positive_counts_once_when_sets_are_joined() -> None:
    positive = torch.tensor([1.0])
    negatives = {"P": torch.tensor([[0.0]]), "IQ": torch.tensor([[0.5]])}
    expected = np.log(np.exp(1.0) + np.exp(0.0) + np.exp(0.5)) - 1.0
    assert float(Objective.parse("uni:P,IQ").loss(positive, negatives)) == pytest.approx(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "P", "uni", "uni:", "uni:P,P", "uni:Q", "both:P", "multi:P;I"])
def test_an_unknown_objective_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="expected uni: or multi:"):
        Objective.parse(text)


@pytest.mark.parametrize("text", OBJECTIVES)
def test_an_objective_reads_back(text: str) -> None:
    assert str(Objective.parse(text)) == text


def test_an_instruction_that_the_judge_allows_is_no_negative(model: SentenceTransformer) -> None:
    """Under the mask, (I-, Q+) is no instruction negative of P+ where the judge found P+ right for it."""
    lenient = record(5, relevance=[[3, 1, 0], [2, 3, 0], [0, 0, 3]])
    for mask in (True, False):
        collator = Collator(model, ContextFormat(), RowOptions(), instruction_negatives=1, mask=mask)
        rows = RowOptions().rows(lenient)
        first = collator.choose_instructions(rows)[0]
        assert (rows[1].context in first) is not mask


def test_tests_break_with_the_code(model: SentenceTransformer, tmp_path: Path) -> None:
    """The literal loss tells mask from no mask: were the masks lost, the tests above would fail."""
    rows, chosen, _, contexts, passages = batch_of(model, RowOptions(), True)
    random = np.random.default_rng(7)
    vectors = {item: random.normal(size=8) for item in [*contexts, *passages]}
    assert literal_loss("uni:P", rows, chosen, vectors, 0.3, True) != pytest.approx(
        literal_loss("uni:P", rows, chosen, vectors, 0.3, False)
    )


def test_a_mined_passage_is_left_out_where_it_may_be_right(model: SentenceTransformer) -> None:
    """It was looked at for (I+, Q+) of its own tuple alone; and each text counts once."""
    rows, _, label, _, _ = batch_of(model, RowOptions(mined_negatives=2), True)
    everyone = Rows.unpacked(torch.cat([label["rows"], label["mined_rows"]]))
    brought = brings_passage(everyone)[len(rows) :]
    names = [row.passage for row, new in zip(mined_passages(rows), brought, strict=True) if new]
    river, comet, candle, violin = names
    assert names == [f"the {name} is short" for name in ("river 31", "comet 32", "candle 34", "violin 35")]
    out = true_pairs(everyone, everyone)[: len(rows), len(rows) :][:, brought].tolist()
    found = {
        (row.tuple_id[:2], row.slot): {name for name, left in zip(names, line, strict=True) if left}
        for row, line in zip(rows, out, strict=True)
    }
    own = {("q0", slot): {river, comet} for slot in (1, 2)}
    own |= {("q2", slot): {candle} for slot in (1, 2)} | {("q3", slot): {violin} for slot in (1, 2)}
    same_query = {("q1", slot): {river, comet} for slot in (0, 1)}
    judged_relevant = {("q2", 0): {comet}}
    assert {key: left for key, left in found.items() if left} == own | same_query | judged_relevant
