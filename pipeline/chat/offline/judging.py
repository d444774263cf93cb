"""Grading by measurement of the texts at hand and nothing else."""

from __future__ import annotations

from pipeline.measures import Claim, claims
from pipeline.measures.topicality import covered_terms, key_terms, on_topic

OFF_TOPIC, DISOBEYS, NOTHING_ASKED, OBEYS = 0, 1, 2, 3


def grade(asked: tuple[Claim, ...], query: str, passage: str) -> int:
    """0 off the topic; 1 on it but breaking the instruction; 2 on it and nothing measurable asked; 3 obeying too."""
    if not on_topic(query, passage):
        return OFF_TOPIC
    if not asked:
        return NOTHING_ASKED
    return OBEYS if all(claim.holds(passage) for claim in asked) else DISOBEYS


def judge(contexts: list[tuple[str, str]], passages: list[str]) -> tuple[str, list[list[int]]]:
    """(rationale, grades[context][passage]) for contexts of (instruction, query)."""
    asked = [claims(instruction) for instruction, _ in contexts]
    grades = [
        [grade(demands, query, passage) for passage in passages]
        for demands, (_, query) in zip(asked, contexts, strict=True)
    ]
    instruction, query = contexts[0]
    del instruction
    return _rationale(query, asked[0], passages), grades


def _rationale(query: str, asked: tuple[Claim, ...], passages: list[str]) -> str:
    demand = " and ".join(map(str, asked)) or "nothing measurable"
    terms = len(key_terms(query))
    facts = "; ".join(
        f"passage {i} holds {len(covered_terms(query, passage))} of {terms} key terms"
        + "".join(f" and has {claim.measured(passage)}" for claim in asked)
        for i, passage in enumerate(passages, start=1)
    )
    return f"Context 1 asks for {demand}; measured: {facts}."
