"""The poisoned instruction and query, and the passages that are right for them. Every answer is measured first."""

from __future__ import annotations

from itertools import chain, islice
from typing import Final

from pipeline.chat.offline.chance import Chance
from pipeline.chat.offline.edits import EDITS, Task
from pipeline.chat.offline.edits.task import unmarked
from pipeline.chat.offline.instructing import CannotAnswerError, opposite, say, wording_for
from pipeline.chat.offline.terms import alternatives, replace_terms
from pipeline.chat.offline.variation import distinct, variants
from pipeline.measures import claims, satisfies
from pipeline.measures.topicality import covered_terms, on_topic, stem, stems
from pipeline.measures.wordings import wordings

_TRIES: Final = 8
"""Replacements tried for a term before the next term is replaced as well."""


_LEAD_IN: Final = "The following lines are about {topic} and little else, and they keep to the essentials."
"""Set before a P-2 that would otherwise be a near-duplicate of P+."""


def poison_instruction(query: str, passage: str, instruction: str, chance: Chance) -> tuple[str, str]:
    """(I-, P-1): the opposite demand in the same wording group, form and frame, and the passage edited to meet it."""
    found = wordings().recognise(instruction)
    if found is None:
        raise CannotAnswerError("The instruction is not one of the rules' own wordings, so it has no known opposite.")
    claim, wrong = found.claim, opposite(found.claim)
    wording = wording_for(wrong, found.wording.group, found.wording.form, found.wording.frame)
    negative = say(wrong, wording, found.slots.persona, found.slots.purpose)

    def right(text: str) -> bool:
        return wrong.holds(text) and not claim.holds(text) and on_topic(query, text)

    edit = EDITS[wrong.dimension, wrong.pole]
    edited = distinct((edit(Task(text, query, wrong, chance)) for text in variants(passage)), passage, right)
    if edited is not None:
        return negative, edited
    raise CannotAnswerError(f"No edit of the passage has {wrong} and still answers the query.")


def poison_query(query: str, passage: str, instruction: str, chance: Chance) -> tuple[str, str]:
    """(Q-, P-2): the query with its telling terms swapped, and the passage rewritten with the same swaps.

    As few terms as possible, most telling first: enough that neither query's topic is found in the other's passage.
    """
    covered = covered_terms(query, passage)
    if not covered:
        raise CannotAnswerError("None of the query's key terms stands in the passage, so there is nothing to replace.")
    asked = {stem(claim.term) for claim in claims(instruction) if claim.term}
    held = {root[:5] for root in stems(passage) | stems(query) | asked}
    swaps: dict[str, str] = {}
    for term in covered:
        tried = [w for w in alternatives(term, passage, chance) if _is_new(w, held, swaps)]
        for word in islice(tried, _TRIES):
            candidate = {**swaps, term: word}
            made = _swapped(query, passage, instruction, candidate)
            if made is not None:
                return made
        if tried:
            swaps[term] = tried[0]
    raise CannotAnswerError("No replacement of the query's terms moves it off the passage while the instruction holds.")


def _is_new(word: str, held: set[str], swaps: dict[str, str]) -> bool:
    # By the first five letters, as `covers` sees it.
    return stem(word)[:5] not in held and word not in swaps.values()


def _swapped(query: str, passage: str, instruction: str, swaps: dict[str, str]) -> tuple[str, str] | None:
    other_query = replace_terms(query, {term: word.lower() for term, word in swaps.items()})
    rewritten = replace_terms(passage, swaps)
    if not on_topic(other_query, rewritten) or on_topic(query, rewritten) or on_topic(other_query, passage):
        return None

    def right(text: str) -> bool:
        return satisfies(instruction, text) is not False and on_topic(other_query, text) and not on_topic(query, text)

    topic = next(iter(swaps.values()))
    announced = f"{_LEAD_IN.format(topic=topic)}{chr(10) if chr(10) in rewritten else ' '}{unmarked(rewritten)}"
    other_passage = distinct(chain(variants(rewritten), variants(announced)), passage, right)
    return (other_query, other_passage) if other_passage is not None else None
