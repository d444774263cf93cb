"""Measurable demands in anybody's words. Conservative: a missed claim costs nothing, a wrong one costs a good tuple.

Of the 4,999 user-voiced instructions of InstructIR, none makes a claim, and none should: they ask for other things.
"""

from __future__ import annotations

import re
from typing import Final

from pipeline.measures.claim import Claim

_NUMBERS: Final = {
    **{word: n for n, word in enumerate("one two three four five six seven eight nine ten".split(), start=1)},  # noqa: SIM905
    **{"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "eighty": 80, "a hundred": 100},
}
_N: Final = r"(?P<n>\d{1,4}|" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + ")"
# What may follow the unit: otherwise the number belongs to something else (words for snow, words that rhyme).
_END: Final = r"(?=\s*(?:[.,;:!?)]|$|-|(?:long|in length|in total|altogether|please|and|but|or|so|because|since|as)\b))"
_WORDS: Final = rf"[ -]words?\b(?: long| in length)?{_END}"
_SENTENCES: Final = rf" (?:short |brief |simple |full )?sentences?\b{_END}"
_UNDER: Final = (
    r"(?:under|below|fewer than|less than|at most|up to|within|a maximum of|maximum|max\.?|max of|limited to|capped at"
    r"|(?:no|not|never) (?:be |run |go )?(?:more|longer|over|beyond)(?: than)?|shorter than"
    r"|(?:not|n['’]t|never) exceed|not exceeding)"
)
_OVER: Final = (
    r"(?:at least|no fewer than|no less than|not fewer than|a minimum of|minimum|min\.?"
    r"|(?<!no )(?<!not )(?<!be )more than)"
)

_NO: Final = (
    r"\b(?:without|free of|contain(?:s|ing)? no|must not (?:contain|include|use)"
    r"|should not (?:contain|include|use)|with no|no)"
)
_ALONE: Final = r"(?=\s*(?:[.,;:!?)]|$|(?:in it|in them|at all|anywhere|whatsoever|please|and|so|because|since)\b))"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_COUNTED: Final = (
    ("length", "at_most", _pattern(rf"\b{_UNDER} {_N}{_WORDS}")),
    ("length", "at_most", _pattern(rf"\b{_N}[ -]words? (?:or (?:fewer|less)|at (?:the )?most|max(?:imum)?|tops)\b")),
    ("length", "at_least", _pattern(rf"\b{_OVER} {_N}{_WORDS}")),
    ("length", "at_least", _pattern(rf"\b{_N}[ -]words? (?:or (?:more|longer)|at (?:the )?least|minimum)\b")),
    ("sentence_count", "at_most", _pattern(rf"\b{_UNDER} {_N}{_SENTENCES}")),
    ("sentence_count", "at_most", _pattern(rf"\b{_N} sentences (?:or (?:fewer|less)|at (?:the )?most|max(?:imum)?)\b")),
)
_LIST: Final = r"(?:bullet(?:ed)?(?:[- ]points?)?|numbered|itemi[sz]ed|point-by-point)"
_FLAT: Final = (
    (
        "layout",
        "list",
        r"\b(?:as|in the form of|formatted as|presented as|laid out as|set out as) (?:an? )?(?:short |simple |clear )?"
        rf"{_LIST} lists?\b",
    ),
    ("layout", "list", r"\b(?:use|using|in|as) (?:bullet points|bullets)\b"),
    ("layout", "prose", rf"{_NO} (?:any )?(?:{_LIST} lists?|bullet points|bullets|lists){_ALONE}"),
    (
        "figures",
        "none",
        rf"{_NO} (?:any |a single )?(?:numbers?|digits?|numerals?|numbers or figures|numerical figures){_ALONE}",
    ),
    ("figures", "none", rf"\b(?:must|should) not contain (?:any )?figures{_ALONE}"),
    ("questions", "none", rf"{_NO} (?:any )?(?:questions|question marks|rhetorical questions){_ALONE}"),
    ("quotation", "none", rf"{_NO} (?:any )?(?:direct |verbatim )?(?:quotations|quotation marks){_ALONE}"),
    ("contractions", "formal", rf"(?:{_NO}|\bavoid(?:s|ing)?) (?:any )?contractions{_ALONE}"),
    ("parentheses", "none", rf"{_NO} (?:any )?(?:parentheses|parenthetical (?:remarks|asides)){_ALONE}"),
)
_PLAIN: Final = tuple((dimension, pole, _pattern(text)) for dimension, pole, text in _FLAT)

# Cheap refusal: an instruction without any of these words has no claim.
_ANY: Final = _pattern(
    r"\bwords?\b|sentences?\b|bullet|\blists?\b|numbers?\b|digit|numeral|figures|question|quotation|contraction|parenthe"
)
# Taken back, or left open: "need not be under 60 words", "I don't mind", "rather than as a bulleted list".
_NEGATED: Final = _pattern(
    r"(?:\b(?:not|never|nor|mind|need no|avoid|rather than|instead of|regardless|whether|even if|prefer)\b|n['’]t\b)"
    r"[^.;,:]{0,28}$|\b(?:have|had|is|are|was|were)\s+$"
)
# The number or layout is of something else: what the asker writes, a title, each of several parts.
_OTHER_THING: Final = _pattern(
    r"\b(?:essays?|assignments?|homework|thesis|theses|captions?|tweets?|headlines?|titles?|headings?|slogans?|abstracts?"
    r"|speech|cover letters?|emails?|posts?|stor(?:y|ies)|(?:my|our|own) \w+|phone|telephone|account|serial|part|house"
    r"|(?:I|we) (?:am|are|'m|’m|have|must|need|want)(?: \w+)? (?:to )?(?:writ\w+|draft\w*|compos\w+|submit\w*)"
    r"|charts?|diagrams?|tables?|images?|pictures?|illustrations?|photos?|per|each|every|either)\b"
)


def free_claims(instruction: str) -> tuple[Claim, ...]:
    """The measurable demands of an instruction in anybody's words.

    Two that contradict each other (a list and no list, at least 90 and at most 60 words) mean that we misread it:
    then there is none of that dimension.
    """
    if not _ANY.search(instruction):
        return ()
    found: list[Claim] = []
    for dimension, pole, pattern in _COUNTED:
        match = pattern.search(instruction)
        if match and not _taken_back(instruction, match):
            found.append(Claim(dimension, pole, _bound(match)))
    for dimension, pole, pattern in _PLAIN:
        match = pattern.search(instruction)
        if match and not _taken_back(instruction, match):
            found.append(Claim(dimension, pole))
    unique = tuple(dict.fromkeys(found))
    return tuple(claim for claim in unique if not any(_contradict(claim, other) for other in unique))


def _bound(match: re.Match[str]) -> int:
    raw = match["n"].lower()
    number = int(raw) if raw.isdigit() else _NUMBERS[raw]
    lead = match.group().lower()
    if lead.startswith(("under", "below", "fewer than", "less than", "shorter than")):
        return number - 1
    return number + 1 if lead.startswith("more than") else number


def _contradict(one: Claim, other: Claim) -> bool:
    if one.dimension != other.dimension or one == other:
        return False
    if one.pole == other.pole:
        return one.number != other.number
    low, high = (one, other) if one.pole == "at_least" else (other, one)
    return low.number is None or high.number is None or low.number > high.number


def _taken_back(instruction: str, match: re.Match[str]) -> bool:
    start = max(instruction.rfind(mark, 0, match.start()) for mark in ".;!?") + 1
    ends = [end for mark in ".;!?" if (end := instruction.find(mark, match.end())) >= 0]
    sentence = instruction[start : min(ends, default=len(instruction))]
    # "Without numbers, I am lost" speaks of the asker.
    opens = not instruction[start : match.start()].strip() and match.group().lower().startswith("without")
    if opens and re.match(r"\s*,(?! please)", instruction[match.end() :]):
        return True
    return bool(_NEGATED.search(instruction[start : match.start()]) or _OTHER_THING.search(sentence))
