"""Figures, years, examples, a given term."""

from __future__ import annotations

import re
from typing import Final

from pipeline.chat.offline.edits.task import Task, fill, framed, opened, tidy, without_sentences
from pipeline.chat.offline.terms import alternatives, replace_terms
from pipeline.measures.text import YEAR, examples
from pipeline.measures.topicality import tokens

_FIGURE_OPENINGS: Final = (
    "Of {a} people asked about {topic}, {b} percent knew what follows.",
    "A count in {b} places came to {a} cases of {topic}.",
    "{topic} takes up {b} of the {a} pages of one handbook.",
    "There are {a} entries on {topic} in the {b} most used guides.",
)
_FIGURE_CLOSINGS: Final = (
    "The share has moved by {c} percent over {d} months.",
    "In {c} out of {e} cases that is what was found.",
    "The figures vary by about {d} to {c} percent from one count to the next.",
    "That holds for {c} of {e} samples, a rate of {d} in ten.",
)
_YEAR_CLOSINGS: Final = (
    "This was first set down in {y}, and a review in {z} came to the same result.",
    "Records of {topic} go back to {y}, and in {z} they were brought up to date.",
    "It has been so since {y}, as an overview of {z} shows.",
)
_YEAR_OPENINGS: Final = (
    "This is the state of {z} on {topic}.",
    "As of {z}, this is how things stand with {topic}.",
    "An account of {topic} from {z} puts it this way.",
)
_EXAMPLE_OPENINGS: Final = (
    "Take, for example, someone who meets {topic} for the very first time.",
    "The following is best read with an example of {topic} in mind.",
    "Cases such as this one show what {topic} amounts to.",
)
_EXAMPLE_CLOSINGS: Final = (
    "For instance, a family in a small town deals with it in just this way, and so, for example, does a large firm.",
    "An everyday example is what happens at home or at work, such as in the kitchen or the office.",
    "For example, a student meets it in the first week, and a visitor, for instance, on the first day.",
)
_MENTIONS: Final = (
    (
        "In this connection, {term} is also worth a thought.",
        "Those who know {term} will see the link to {topic} at once.",
    ),
    ("There is a link between {topic} and {term}.", "Seen that way, {term} belongs to the same picture."),
    ("Many people think of {term} when they hear of {topic}.", "What {term} has to do with it is soon told."),
)

_NO_YEAR: Final = (
    (re.compile(rf"\((?:[^()\d]*\b)?{YEAR.pattern}[^()]*\)"), ""),
    (re.compile(rf",?\s*{YEAR.pattern}\s*[-–]\s*{YEAR.pattern}"), ""),
    (re.compile(rf"\b(?:[Bb]etween|[Ff]rom) {YEAR.pattern} (?:and|to|until) {YEAR.pattern}"), "over many years"),
    (re.compile(rf"(?<=\d), {YEAR.pattern},?"), ""),
    (re.compile(rf"\b((?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*)\.?,? {YEAR.pattern},?"), r"\1"),
    (re.compile(rf"\bAs of {YEAR.pattern}"), "At present"),
    (re.compile(rf"\bas of {YEAR.pattern}"), "at present"),
    (re.compile(rf"\bIn(?: early| late| mid)?[ -]{YEAR.pattern}"), "At that time"),
    (re.compile(rf"\bin(?: early| late| mid)?[ -]{YEAR.pattern}"), "at that time"),
    (re.compile(rf"\bSince {YEAR.pattern}"), "For a long time"),
    (re.compile(rf"\bsince {YEAR.pattern}"), "for a long time"),
    (re.compile(rf"\b(?:by|until|before|after|around|from|of|during|for) {YEAR.pattern}"), "of that time"),
    (YEAR, "that time"),
)
_NO_FIGURE: Final = (
    (re.compile(r"\(\s*[^()a-zA-Z]*\d[^()]{0,12}\)"), ""),
    (
        re.compile(
            r"(?:US|CA|AU)?[$£€]\s?\d[\d.,]*(?:\s?(?:million|billion|thousand|[kKmM]\b))?(?:\s?(?:-|–|to|and)\s?[$£€]?\d[\d.,]*(?:\s?(?:million|billion|thousand))?)?"
        ),
        "a certain sum",
    ),
    (re.compile(r"\d[\d.,]*(?:\s?(?:-|–|to)\s?\d[\d.,]*)?\s?(?:%|percent\b|per cent\b|¢)"), "a share"),
    (re.compile(r"\b\d{1,2}(?::\d\d)? ?(?:a\.?m\.?|p\.?m\.?|AM|PM)(?!\w)"), "a set hour"),
    (re.compile(r"\b\d+(?:st|nd|rd|th)\b"), "given"),
    (re.compile(r"\b\d+(?:[.,]\d+)*(?:\s?(?:-|–|to|x|×|/)\s?\d+(?:[.,]\d+)*)+(?=\s+[a-z]+s\b)"), "several"),
    (re.compile(r"\b\d+(?:[.,]\d+)*(?=[ -][a-z]+s\b)"), "several"),
    (re.compile(r"(?<=[A-Za-z])[-]?\d+(?=[A-Za-z]*)"), ""),
    (
        re.compile(
            r"\b\d+(?:[.,]\d+)*"
            r"(?=[ -]?(?:°|degrees?|years?|ft|feet|inch|miles?|hours?|minutes?|mg|kg|lb|oz|ml|mm|cm|km|m)\b)"
        ),
        "some ",
    ),
    (re.compile(r"(?<![A-Za-z])\d+(?:[.,:/-]\d+)*"), "a number"),
    (re.compile(r"\d+"), ""),
)
_SUCH_AS: Final = re.compile(
    r"(?:,|\s)?\s(?:such as|e\.g\.?,?|for example|for instance)\b[^.;:()\n]*?"
    r"(?=[.;:()\n]|, (?:and|which|but|while|is|are|can)\b|$)",
    re.IGNORECASE,
)
_EXAMPLE_WORDS: Final = (
    (re.compile(r"\(\s*(?:e\.g\.?|for example|for instance|such as)[^()]*\)", re.IGNORECASE), ""),
    (
        re.compile(
            r"\b(?:for example|for instance|to illustrate|as an illustration|as an example|e\.g\.?),?\s*", re.IGNORECASE
        ),
        "",
    ),
    (re.compile(r"\bsuch as\b", re.IGNORECASE), "like"),
    (re.compile(r"\bexample(s?)\b"), r"case\1"),
    (re.compile(r"\bExample(s?)\b"), r"Case\1"),
    (re.compile(r"\bEXAMPLE(S?)\b"), r"CASE\1"),
)


def add_figures(task: Task) -> str:
    """An opening and a closing sentence with figures drawn for this passage."""
    draw = task.chance.below
    numbers = {"a": 120 + draw(800), "b": 11 + draw(80), "c": 21 + draw(60), "d": 3 + draw(7), "e": 90 + draw(300)}
    return framed(fill(task, _FIGURE_OPENINGS, **numbers), task.passage, fill(task, _FIGURE_CLOSINGS, **numbers))


def drop_figures(task: Task) -> str:
    """Amounts, dates and measures put in words that carry no digit."""
    text = task.passage
    for pattern, words in (*_NO_YEAR, *_NO_FIGURE):
        text = pattern.sub(words, text)
    return opened(tidy(text))


def add_years(task: Task) -> str:
    """An opening and a closing sentence with years drawn for this passage."""
    first = 1931 + task.chance.below(50)
    years = {"y": first, "z": first + 12 + task.chance.below(25)}
    return framed(fill(task, _YEAR_OPENINGS, **years), task.passage, fill(task, _YEAR_CLOSINGS, **years))


def drop_years(task: Task) -> str:
    """Years put in words that hold at any time."""
    text = task.passage
    for pattern, words in _NO_YEAR:
        text = pattern.sub(words, text)
    return framed("", opened(tidy(text)), "It is all a matter of no particular time.")


def add_examples(task: Task) -> str:
    """Examples announced before and after the passage."""
    return framed(fill(task, _EXAMPLE_OPENINGS), task.passage, fill(task, _EXAMPLE_CLOSINGS))


def drop_examples(task: Task) -> str:
    """Sentences and clauses that give examples go; what announces one becomes neutral where they must stay."""
    text = without_sentences(task, lambda part: examples(part) > 0, keep_share=0.5)
    shorter = _SUCH_AS.sub("", text)
    if task.still_answers(shorter):
        text = shorter
    for pattern, words in _EXAMPLE_WORDS:
        text = pattern.sub(words, text)
    return framed("", opened(tidy(text)), "So much for the general rule.")


def bring_in(task: Task) -> str:
    """Two sentences with the term around the passage."""
    before, after = task.chance.pick(_MENTIONS)
    slots = {"term": task.claim.term, "topic": task.topic}
    return framed(opened(before.format(**slots)), task.passage, opened(after.format(**slots)))


def keep_out(task: Task) -> str:
    """The term gives way to another of its kind throughout."""
    assert task.claim.term is not None
    words = tokens(task.claim.term)
    swaps = {word: next(alternatives(word, task.passage, task.chance)) for word in words}
    return replace_terms(task.passage, swaps)
