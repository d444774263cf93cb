"""Measurable demands in free wording. Conservative: a missed claim costs nothing, a wrong one costs a good tuple."""

from __future__ import annotations

import re
from typing import Final

from pipeline.measures.claim import Claim

_SMALL_NUMBERS: Final = {
    word: n
    for n, word in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=1)
} | {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "eighty": 80,
    "a hundred": 100,
    "one hundred": 100,
}
_N: Final = r"(?P<n>\d{1,4}|" + "|".join(sorted(_SMALL_NUMBERS, key=len, reverse=True)) + ")"
# What is measured must be the passage itself: words "per" something, or of a title, are another matter.
_WORDS: Final = r"[ -]words?\b(?! (?:per|each|long title|title|summary of)\b)(?:[^.;]{0,30}\b(?:per|each|a sentence|title|headline|heading)\b)?"
_NOT_OTHER: Final = re.compile(r"\b(?:per|each|a sentence|title|headline|heading|every)\b")

_AT_MOST: Final = (
    rf"(?:in|under|below|fewer than|less than|at most|no more than|not more than|max(?:imum)?(?: of)?|maximum length(?: of)?|up to"
    rf"|within|not exceed(?:ing)?|(?:doesn't|does not|not) exceed|no longer than|not longer than|shorter than|limited to|capped at) {_N}{_WORDS}",
    rf"\b{_N} words (?:or (?:fewer|less)|at (?:the )?most|max(?:imum)?|tops)\b",
)
_AT_LEAST: Final = (
    rf"(?:at least|no fewer than|no less than|not fewer than|more than|over|minimum of|minimum|longer than) {_N}{_WORDS}",
    rf"\b{_N} words or more\b",
)
_SENTENCES_AT_MOST: Final = (
    rf"(?:at most|no more than|not more than|max(?:imum)?(?: of)?|up to|within|limited to) {_N} (?:short |brief )?sentences?\b(?! per| each)",
    rf"\b{_N} sentences (?:or (?:fewer|less)|at (?:the )?most|max(?:imum)?)\b",
)

_FLAT: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "layout",
        "list",
        r"\b(?:as|in the form of|formatted as|presented as|laid out as|set out as) (?:a |an )?(?:short |simple |clear )?(?:bulleted|bullet[- ]point|numbered|itemi[sz]ed|point-by-point) lists?\b",
    ),
    ("layout", "list", r"\b(?:use|using|in|with|as) (?:bullet points|bullets)\b"),
    (
        "layout",
        "prose",
        r"\b(?:no|without(?: any)?|not as a|instead of a|rather than a) (?:bullet(?:ed)?(?:[- ]points?)?|bulleted lists?|numbered lists?|lists?)(?: or [\w ]{1,20})?(?=[.,;]|$)",
    ),
    (
        "figures",
        "none",
        r"\b(?:without|free of|contains? no|containing no|must not (?:contain|include|use)|should not (?:contain|include|use)|no) (?:any )?(?:numbers|digits|numerals|figures or numbers|numbers or figures|numerical figures)(?=[.,;]|$| in it\b| at all\b| anywhere\b)",
    ),
    (
        "questions",
        "none",
        r"\b(?:without|contains? no|containing no|must not (?:contain|include|use|ask)|no) (?:any )?(?:questions|question marks|rhetorical questions)(?=[.,;]|$)",
    ),
    (
        "quotation",
        "none",
        r"\b(?:without|contains? no|containing no|must not (?:contain|include|use)|no) (?:any )?(?:direct |verbatim )?(?:quotations|quotation marks)(?=[.,;]|$)",
    ),
    ("contractions", "none_", r"\b(?:without|avoid(?:s|ing)?|contains? no|no) (?:any )?contractions(?=[.,;]|$)"),
    (
        "parentheses",
        "none",
        r"\b(?:without|contains? no|no) (?:any )?(?:parentheses|parenthetical (?:remarks|asides))(?=[.,;]|$)",
    ),
    (
        "viewpoint",
        "first_person",
        r"\b(?:written|told|narrated|accounts?|stories|story) (?:entirely )?in the first person\b",
    ),
    ("years", "none", r"\b(?:without|contains? no|no) (?:any )?(?:years|dates or years|years or dates)(?=[.,;]|$)"),
)

_POLE_NAMES: Final = {"none_": "formal"}

_NEGATED: Final = re.compile(
    r"\b(?:not|n't|never|nor|no need|don't|doesn't|avoid|rather than|instead of|without being|regardless|whether)\b[^.;,]{0,25}$",
    re.IGNORECASE,
)


def _compile(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


_NUMBERED: Final = (
    ("length", "at_most", _compile(_AT_MOST)),
    ("length", "at_least", _compile(_AT_LEAST)),
    ("sentence_count", "at_most", _compile(_SENTENCES_AT_MOST)),
)
_PLAIN: Final = tuple((d, _POLE_NAMES.get(p, p), re.compile(x, re.IGNORECASE)) for d, p, x in _FLAT)
# Cheap refusal: an instruction without any of these words has no claim.
_ANY: Final = re.compile(
    r"words?\b|sentences?\b|bullet|\blists?\b|number|digit|numeral|figures|question|quotation|contraction|parenthe|first person|\byears|\bdates",
    re.IGNORECASE,
)


def free_claims(instruction: str) -> tuple[Claim, ...]:
    """The measurable demands of an instruction in anybody's words, at most one for each dimension and pole.

    Two that contradict each other (a list and no list) mean that we misread it: then there is none.
    """
    if not _ANY.search(instruction):
        return ()
    found: list[Claim] = []
    for dimension, pole, patterns in _NUMBERED:
        for pattern in patterns:
            match = pattern.search(instruction)
            if match and not _about_something_else(instruction, match):
                raw = match["n"].lower()
                number = int(raw) if raw.isdigit() else _SMALL_NUMBERS[raw]
                strict = re.match(r"(?:under|below|fewer than|less than|shorter than)", match.group(), re.IGNORECASE)
                over = re.match(r"(?:more than|over|longer than)", match.group(), re.IGNORECASE)
                found.append(Claim(dimension, pole, number - 1 if strict else number + 1 if over else number))
                break
    for dimension, pole, plain in _PLAIN:
        match = plain.search(instruction)
        if match and not _about_something_else(instruction, match):
            found.append(Claim(dimension, pole))
    unique = tuple(dict.fromkeys(found))
    taken = [claim.dimension for claim in unique]
    return tuple(claim for claim in unique if taken.count(claim.dimension) == 1)


def _about_something_else(instruction: str, match: re.Match[str]) -> bool:
    return bool(_NEGATED.search(instruction[: match.start()]) or _NOT_OTHER.search(match.group()))
