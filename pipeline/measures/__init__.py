"""Counting what instructions ask for: a leaf package that the offline model, the checks and the audit share."""

from __future__ import annotations

from functools import lru_cache

from pipeline.measures.claim import POLES, Claim
from pipeline.measures.free_text import free_claims
from pipeline.measures.wordings import group_of, wordings

__all__ = ["POLES", "Claim", "claims", "group_of", "satisfies"]


@lru_cache(maxsize=64)  # a tuple's I+ is looked at several times in a row
def claims(instruction: str) -> tuple[Claim, ...]:
    """What the instruction asks for that counting can decide.

    Exact for the offline model's own wordings; conservative for free text: in doubt there is no claim.
    """
    own = wordings().recognise(instruction)
    return (own.claim,) if own else free_claims(instruction)


def satisfies(instruction: str, passage: str) -> bool | None:
    """Whether the passage does everything measurable that is asked; None where nothing measurable is asked."""
    asked = claims(instruction)
    return all(claim.holds(passage) for claim in asked) if asked else None
