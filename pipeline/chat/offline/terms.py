"""Another term of the same kind for a term, and putting it in its place throughout a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

from pipeline.chat.offline.chance import Chance
from pipeline.measures.topicality import STOPWORDS, same_term, stem, tokens
from pipeline.yaml_text import parse_yaml

_TOKEN: Final = re.compile(r"[^\W_]+(?:['’][a-z]+)?")
_ARTICLE: Final = re.compile(r"\b([Aa])n?(\s+)(?=(\w))")

# Which kind an unknown word is, by its ending: first match wins.
_ENDINGS: Final = (
    (
        re.compile(r"(?:itis|osis|emia|aemia|oma|algia|pathy|plegia|rrhea|syndrome|disease|cancer|infection)s?$"),
        "medical",
    ),
    (re.compile(r"(?:ine|ide|ium|ate|oxide|acid|gen|ol)$"), "chemical"),
    (re.compile(r"(?:ing)$"), "activity"),
    (re.compile(r"(?:[^e]ed)$"), "participle"),
    (re.compile(r"(?:ologist|ist|ian|eer|ster|nurse|doctor|lawyer|officer|manager|actor|actress|singer)s?$"), "role"),
    (re.compile(r"(?:tion|sion|ment|ity|ness|ism|ance|ence|ship|dom|ology|ics|logy)s?$"), "abstract"),
    (re.compile(r"(?:est|ous|ive|al|ic|able|ible|ary|ful|less|ish)$"), "adjective"),
    (re.compile(r"(?:tax|fee|loan|price|cost|credit|bank|salary|income|insurance|payment|bill)s?$"), "money"),
    (re.compile(r"(?:law|court|act|bill|license|contract|crime)s?$"), "law"),
)


@lru_cache(maxsize=1)
def _words() -> dict[str, dict[str, list[str]]]:
    raw: dict[str, dict[str, list[str]]] = parse_yaml(
        (files("pipeline.chat.offline") / "wordbank.yaml").read_text(encoding="utf-8")
    )
    return raw


@lru_cache(maxsize=1)
def _kinds() -> dict[str, str]:
    lists = [*_words()["known"].items(), *_words()["bank"].items()]
    return {word.lower(): kind for kind, words in lists for word in words}


def kind_of(term: str, passage: str) -> str:
    """The broad class of a term: known words first, then the ending, then a word always capital."""
    lower = term.lower()
    known = _kinds().get(lower) or _kinds().get(lower.removesuffix("s"))
    if known:
        return known
    for ending, kind in _ENDINGS:
        if ending.search(lower):
            return kind
    name = re.escape(term.capitalize())
    if len(term) > 2 and not re.search(rf"\b{re.escape(lower)}", passage) and re.search(rf"[a-z,] {name}\b", passage):
        return "place" if re.search(rf"\b(?:in|at|near|of) {name}\b", passage) else "person"
    return "thing"


@lru_cache(maxsize=1)
def all_words() -> tuple[str, ...]:
    """Every common noun and adjective of the bank, in the file's order."""
    skipped = {"place", "person", "participle"}
    return tuple(word for kind, words in _words()["bank"].items() if kind not in skipped for word in words)


def alternatives(term: str, passage: str, chance: Chance) -> Iterator[str]:
    """Terms of the same kind, in drawn order, the long ones first where the term is long."""
    if term.isdecimal():
        for step in (7, 3, 12, 21, 35):
            yield str(int(term) + step)
        return
    words = [word for word in chance.cycle(_words()["bank"][kind_of(term, passage)]) if stem(word) != stem(term)]
    size = len(stem(term))
    yield from sorted(words, key=lambda word: max(0, size - len(stem(word))))


def replace_terms(text: str, swaps: Mapping[str, str]) -> str:
    """The text with every occurrence of each term, in any inflection, replaced by its swap in the same case and number.

    swaps: term -> replacement, single words. Articles before a replaced word follow its first letter.
    """
    roots = {stem(term): swap for term, swap in swaps.items()}
    known: dict[str, str | None] = dict(roots)
    changed: set[int] = set()
    pieces: list[str] = []
    end = length = 0
    for match in _TOKEN.finditer(text):
        word = match.group()
        word_stem = stem(word)
        if word_stem not in known:
            known[word_stem] = next((swap for root, swap in roots.items() if same_term(word_stem, root)), None)
        swap = known[word_stem]
        if swap is None:
            continue
        new = _inflected_like(word, swap)
        pieces += (text[end : match.start()], new)
        length += match.start() - end
        changed.add(length)
        length += len(new)
        end = match.end()
    pieces.append(text[end:])
    return _with_articles("".join(pieces), changed)


def _with_articles(text: str, changed: set[int]) -> str:
    def article(match: re.Match[str]) -> str:
        if match.end() not in changed:
            return match.group()
        return f"{match[1]}{'n' if match[3].lower() in 'aeiou' else ''}{match[2]}"

    return _ARTICLE.sub(article, text)


def _inflected_like(word: str, swap: str) -> str:
    body, _, possessive = word.partition("'") if "'" in word else word.partition("’")
    if _is_plural(body) and not swap[0].isupper() and not swap.endswith(("s", "ing")):
        swap = f"{swap[:-1]}ies" if swap.endswith("y") and swap[-2] not in "aeiou" else f"{swap}s"
    if body.isupper() and len(body) > 3:
        swap = swap.upper()
    elif body[0].isupper():
        swap = swap[0].upper() + swap[1:]
    return f"{swap}'s" if possessive == "s" else swap


def _is_plural(word: str) -> bool:
    lower = word.lower()
    return len(lower) > 3 and lower.endswith("s") and not lower.endswith(("ss", "us", "is", "ics"))


def content_words(text: str) -> list[str]:
    """The words of a text that carry content: letters only, five or more, no stop words; each once, in order."""
    found = (word for word in tokens(text) if len(word) >= 5 and word.isalpha() and word.lower() not in STOPWORDS)
    return list({stem(word): word for word in reversed(list(found))}.values())[::-1]
