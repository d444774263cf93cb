"""The judge: every passage of a tuple graded for every context, and what the grades decide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any, Final, cast

from pipeline.chat.request import NoAnswer
from pipeline.chat.structured import Asks, Unusable, fill
from pipeline.recipe import Recipe, Thresholds
from pipeline.records import CONTEXTS, JUDGE_MINED, PASSAGES, Matrix, Rejected, Tuple
from pipeline.synthesis import Outcome, ended

DECIDING: Final = {
    "judge_document": (0, 0),
    "judge_hard_negative_1_own": (1, 1),
    "judge_hard_negative_2_own": (2, 2),
    "judge_hard_negative_1": (0, 1),
    "judge_hard_negative_2": (0, 2),
}
"""Reason -> the cell of the matrix that it is about; the first that fails decides."""

_ORDERS = cast(tuple[tuple[int, int, int], ...], tuple(permutations(range(3))))


async def judge(t: Tuple, recipe: Recipe, chat: Asks) -> Outcome:
    """Ask for the nine grades and decide.

    Contexts and passages are shown in orders drawn from the id, so that position teaches the judge nothing.
    """
    contexts, passages = shown_order(t.id, "contexts"), shown_order(t.id, "passages")
    try:
        filled = await fill(chat, recipe.request("judge", judge_data(t)))
    except (NoAnswer, Unusable) as failure:
        return ended(t, "judge", failure)
    judged = replace(
        t,
        relevance=matrix(filled.fields, contexts, passages),
        rationale=" ".join(filled.fields["rationale"].split()),
        judge_version=filled.model_version,
        calls=t.calls + filled.calls,
    )
    return decide(judged, recipe.thresholds)


async def judge_mined(t: Tuple, recipe: Recipe, chat: Asks) -> Outcome:
    """Ask for the grade of the first mined passage under (I+, Q+), where the tuple has one.

    It marks the passage and decides nothing: a tuple whose answer can't be used goes on with the passage not graded.
    """
    if not t.mined:
        return t
    try:
        filled = await fill(chat, recipe.request(JUDGE_MINED, judge_mined_data(t)))
    except NoAnswer as failure:
        return ended(t, JUDGE_MINED, failure)
    except Unusable as failure:
        return replace(t, calls=t.calls + failure.calls)
    first, *rest = t.mined
    graded = replace(first, relevance=filled.fields["grade"])
    return replace(t, mined=(graded, *rest), calls=t.calls + filled.calls)


def judge_mined_data(t: Tuple) -> dict[str, object]:
    """What prompts/judge_mined.md says the user message holds."""
    assert t.mined
    return {"instruction": t.instruction_positive, "query": t.query_positive, "passage": t.mined[0].document}


def judge_data(t: Tuple) -> dict[str, object]:
    """What prompts/judge.md says the user message holds."""
    return {
        "contexts": [
            {"instruction": getattr(t, CONTEXTS[c][0]), "query": getattr(t, CONTEXTS[c][1])}
            for c in shown_order(t.id, "contexts")
        ],
        "passages": [getattr(t, PASSAGES[p]) for p in shown_order(t.id, "passages")],
    }


def shown_order(tuple_id: str, what: str) -> tuple[int, int, int]:
    """A permutation of the three contexts or passages: element i is what stands at position i."""
    digest = hashlib.sha256(f"{what}:{tuple_id}".encode("utf-8", "surrogatepass")).digest()
    return _ORDERS[int.from_bytes(digest[:8], "big") % len(_ORDERS)]


def matrix(grades: dict[str, Any], contexts: Sequence[int], passages: Sequence[int]) -> Matrix:
    """The grades as shown, put back into the order of `CONTEXTS` and `PASSAGES`."""
    cells = [[0] * 3 for _ in range(3)]
    for shown_context, c in enumerate(contexts, start=1):
        for shown_passage, p in enumerate(passages, start=1):
            cells[c][p] = grades[f"context_{shown_context}"][f"passage_{shown_passage}"]
    return cast(Matrix, tuple(tuple(row) for row in cells))


def decide(t: Tuple, thresholds: Thresholds) -> Tuple | Rejected:
    """Accept when each context's own passage is relevant and the other two are not under (I+, Q+)."""
    assert t.relevance is not None
    for reason, (context, passage) in DECIDING.items():
        grade = t.relevance[context][passage]
        wanted = context == passage
        if wanted and grade < thresholds.relevant:
            return Rejected(t, "judge", reason, f"grade {grade}, {thresholds.relevant} wanted: {t.rationale}")
        if not wanted and grade > thresholds.irrelevant:
            return Rejected(t, "judge", reason, f"grade {grade}, at most {thresholds.irrelevant} wanted: {t.rationale}")
    return t
