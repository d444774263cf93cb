"""Choosing what to ask for: the pole that the passage satisfies, and the wording that says so."""

from __future__ import annotations

from typing import Final

from pipeline.chat.offline import terms
from pipeline.chat.offline.chance import Chance
from pipeline.measures.claim import POLES, Claim
from pipeline.measures.text import mentions, word_count
from pipeline.measures.topicality import key_terms, on_topic, stem, stems
from pipeline.measures.wordings import Slots, Wording, wordings

_STEP: Final = 5
"""Word bounds are multiples of this, as people name them."""
_SHORTENABLE: Final = 30
"""Words from which a passage can lose a quarter and still say something."""


class CannotAnswerError(Exception):
    """The rules have no answer; the message is one sentence for a person."""


def positive_claim(dimension: str, query: str, passage: str, chance: Chance) -> Claim:
    """What can be asked along the dimension that the passage satisfies; CannotAnswerError where nothing fits."""
    if dimension not in POLES:
        raise CannotAnswerError(f"The rules cannot measure the dimension {dimension!r}.")
    if not on_topic(query, passage):
        raise CannotAnswerError(
            "The passage holds too few of the query's key terms to measure that it answers the query."
        )
    if dimension == "length":
        return _length(passage, chance)
    if dimension == "mention":
        return _mention(query, passage, chance)
    for pole in POLES[dimension]:
        claim = Claim(dimension, pole)
        if claim.holds(passage):
            return claim
    raise CannotAnswerError(
        f"The passage lies between the poles of {dimension}: {Claim(dimension, pole).measured(passage)}."
    )


def _length(passage: str, chance: Chance) -> Claim:
    words = word_count(passage)
    if words >= _SHORTENABLE and chance.below(2):
        return Claim("length", "at_least", int(words * 0.95) // _STEP * _STEP)
    return Claim("length", "at_most", -(int(-words * 1.05) // _STEP) * _STEP)


def _mention(query: str, passage: str, chance: Chance) -> Claim:
    asked = {stem(term) for term in key_terms(query)} | stems(query)
    if chance.below(2):
        near = {root[:5] for root in asked}  # as `topicality.covers` sees it
        # Rather a word that the passage is about than one that slips in once.
        words = [word for word in terms.content_words(passage) if stem(word)[:5] not in near and word.isascii()]
        frequent = [word for word in words if mentions(passage, word) >= 2] or words
        if frequent:
            return Claim("mention", "present", term=chance.pick(frequent).lower())
    held = stems(passage) | asked
    for word in chance.cycle(terms.all_words()):
        if stem(word) not in held and not mentions(passage, word):
            return Claim("mention", "absent", term=word)
    raise CannotAnswerError("Every word of the bank stands in the passage.")


def opposite(claim: Claim) -> Claim:
    """The claim's other pole, far enough away that no text is near both."""
    some, none = POLES[claim.dimension]
    pole = none if claim.pole == some else some
    if claim.dimension == "length":
        assert claim.number is not None
        longer, shorter = max(2 * claim.number, claim.number + 3 * _STEP), claim.number // 2 // _STEP * _STEP
        number = longer if pole == "at_least" else max(2 * _STEP, shorter)
        return Claim("length", pole, number)
    return Claim(claim.dimension, pole, term=claim.term)


def wording_for(claim: Claim, group: str, form: str, frame: str) -> Wording:
    """The wording of a pole in a group, form and frame; CannotAnswerError where there is none."""
    try:
        return wordings().wording(claim.dimension, claim.pole, group, form, frame)
    except KeyError:
        raise CannotAnswerError(
            f"There is no wording of {claim.dimension}/{claim.pole} in group {group!r}, form {form!r}."
        ) from None


def say(claim: Claim, wording: Wording, persona: str | None, purpose: str | None) -> str:
    """The instruction that asks for the claim."""
    return wordings().write(wording, Slots(claim.number, claim.term, persona, purpose))


def instruct(claim: Claim, group: str, form: str, chance: Chance) -> str:
    """The claim in the drawn group's and form's wording, with a drawn frame, persona and purpose where it takes one."""
    known = wordings()
    wording = wording_for(claim, group, form, chance.pick(known.frames.get(group, ("",))))
    persona = chance.pick(known.personas[group]) if "{persona}" in wording.template else None
    purpose = chance.pick(known.purposes[group]) if "{purpose}" in wording.template else None
    return say(claim, wording, persona, purpose)
