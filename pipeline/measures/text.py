"""What can be counted in a text. Every function is pure and takes any string, the empty one too."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

from pipeline.yaml_text import parse_yaml

WORD: Final = re.compile(r"\w\S*")
"""One match per whitespace-separated token that holds a letter or digit: the way people and editors count words."""

_BREAK: Final = re.compile(r"\n+|[.!?]+[\"'”’)\]]*\s+")
_LISTS: Final = parse_yaml((files("pipeline.measures") / "words.yaml").read_text(encoding="utf-8"))
_ABBREVIATIONS: Final = frozenset(_LISTS["abbreviations"].split())
_LAST_TOKEN: Final = re.compile(r"\S*$")

_LIST_ITEM: Final = re.compile(r"^[ \t]*(?:[-*•–]|\(?\d{1,2}[.)]|[a-z]\))[ \t]+\S", re.MULTILINE)
_FIGURE: Final = re.compile(r"\d+(?:[.,:/]\d+)*")
YEAR: Final = re.compile(r"(?<![\d$£€.,/#-])(?:1[0-9]{3}|20[0-9]{2})(?:s)?(?![\d%]|[.,]\d|-\d)")
SECOND_PERSON: Final = re.compile(r"\b(?:you|your|yours|yourself|yourselves)\b", re.IGNORECASE)
# "I" only as a capital that is neither a list mark nor a numeral (World War I, Type I, "Part I.").
FIRST_PERSON: Final = re.compile(
    r"(?<![\w.'’(-])I(?=(?:['’](?:m|ve|d|ll))?\s+(?:['’]?[a-z]))"
    r"(?<!Type I)(?<!War I)(?<!Part I)(?<!Phase I)(?<!Class I)(?<!Title I)(?<!Stage I)"
    r"|\bI['’](?:m|ve|d|ll)\b"
    r"|\b(?:[Mm]y|[Mm]yself|[Mm]ine(?=[.,;!?])|[Ww]e|[Oo]ur|[Oo]urs|[Oo]urselves)\b|\bme\b"
)
_QUESTION: Final = re.compile(r"\?+")
QUOTE: Final = re.compile(r"[\"“”][^\"“”\n]{2,}[\"“”]")
QUOTE_MARK: Final = re.compile(r"[\"“”]|''|``")
EXAMPLE: Final = re.compile(
    r"\b(?:for example|for instance|such as|to illustrate|as an illustration|as an example|e\.g\.?|examples?)(?!\w)",
    re.IGNORECASE,
)
# "may" in lower case only: the month is a capital.
HEDGE: Final = re.compile(
    r"\b(?:may|(?i:might|could|perhaps|possibly|probably|maybe|presumably|seemingly|arguably|apparently|supposedly))\b"
)
CONTRACTION: Final = re.compile(
    r"\b(?:\w+n['’]t|(?:I|you|he|she|it|we|they|that|there|who|what|here)['’](?:m|re|ve|d|ll)|(?:he|she|it|that|there|here|what|who|where|how|let)['’]s)\b",
    re.IGNORECASE,
)
PARENTHESIS: Final = re.compile(r"\([^()\n]*\w[^()\n]*\)")
_SAYS_THAT: Final = "|".join(
    f"{verb}{ending}"
    for verb, endings in (
        *((verb, ("s", "ed", "")) for verb in ("report", "claim", "note", "explain", "state")),
        ("write", ("s",)),
        ("argue", ("s", "d")),
        ("wrote", ("",)),
        ("noted", ("",)),
        ("stated", ("",)),
    )
    for ending in endings
)
ATTRIBUTION: Final = re.compile(
    r"\b(?:according to|says|said|as stated by|as reported by|in the words of)\b" rf"|\b(?:{_SAYS_THAT})(?= that\b)",
    re.IGNORECASE,
)


def word_count(text: str) -> int:
    """Whitespace-separated tokens that hold at least one letter or digit."""
    return len(WORD.findall(text))


def sentences(text: str) -> list[str]:
    """The text cut after `.`, `!` or `?` (not after known abbreviations and initials) and at line ends."""
    found: list[str] = []
    start = 0
    for match in _BREAK.finditer(text):
        if "\n" not in match.group() and _continues(text, start, match):
            continue
        piece = text[start : match.end()].strip()
        if piece:
            found.append(piece)
        start = match.end()
    rest = text[start:].strip()
    if rest:
        found.append(rest)
    return found


def _continues(text: str, start: int, match: re.Match[str]) -> bool:
    if match.group()[0] != ".":
        return False
    last = _LAST_TOKEN.search(text, start, match.start())
    token = last.group().lower().strip("(\"'") if last else ""
    if token in _ABBREVIATIONS or (len(token) == 1 and token.isalpha()):
        return True
    following = text[match.end() : match.end() + 1]
    # Abstracts set in lower case put a blank before the full stop.
    return following.islower() and token != ""


def mean_sentence_length(text: str) -> float:
    """Words a sentence, on average; 0.0 for a text without words."""
    lengths = [n for n in map(word_count, sentences(text)) if n]
    return sum(lengths) / len(lengths) if lengths else 0.0


def list_items(text: str) -> int:
    """Lines that start with a bullet, a number or a letter with a bracket."""
    return len(_LIST_ITEM.findall(text))


def figures(text: str) -> int:
    """Numbers written in digits, list numbering included."""
    return len(_FIGURE.findall(text))


def years(text: str) -> int:
    """Four-digit years from 1000 to 2099 that no unit or currency claims."""
    return len(YEAR.findall(text))


def second_person(text: str) -> int:
    """Occurrences of you, your, yours, yourself."""
    return len(SECOND_PERSON.findall(text))


def first_person(text: str) -> int:
    """Occurrences of I, me, my, we, our and their kin ("us" is left out: in upper case it is a country)."""
    return len(FIRST_PERSON.findall(text))


def questions(text: str) -> int:
    """Question marks, a run of them counted once."""
    return len(_QUESTION.findall(text))


def quotations(text: str) -> int:
    """Stretches in double quotation marks."""
    return len(QUOTE.findall(text))


def examples(text: str) -> int:
    """Phrases that announce an example (for example, such as, e.g. …)."""
    return len(EXAMPLE.findall(text))


def hedges(text: str) -> int:
    """Words that make a statement cautious (may, might, could, perhaps …)."""
    return len(HEDGE.findall(text))


def contractions(text: str) -> int:
    """Contracted forms (isn't, you're, it's); possessives are none."""
    return len(CONTRACTION.findall(text))


def parentheses(text: str) -> int:
    """Remarks in round brackets."""
    return len(PARENTHESIS.findall(text))


def attributions(text: str) -> int:
    """Phrases that say whose statement it is (according to, says, reported that …)."""
    return len(ATTRIBUTION.findall(text))


def mentions(text: str, term: str) -> int:
    """Occurrences of the term as whole words, in any case, with an English plural or possessive ending."""
    if not term.strip():
        return 0
    return len(re.findall(rf"(?<!\w){re.escape(term)}(?:s|es|'s|’s)?(?!\w)", text, re.IGNORECASE))
