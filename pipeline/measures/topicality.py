"""Whether a passage is about a query, by the words they share: the judge's only notion of topic."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Final

import Stemmer

from pipeline.yaml_text import parse_yaml

_TOKEN: Final = re.compile(r"[^\W_]+(?:['’][a-z]+)?")
_STEMMER: Final = Stemmer.Stemmer("english")

_LISTS: Final = parse_yaml((files("pipeline.measures") / "words.yaml").read_text(encoding="utf-8"))
STOPWORDS: Final = frozenset(_LISTS["stopwords"].split())
GENERIC: Final = frozenset(_LISTS["generic"].split())


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The Snowball stem of a word, lower case and without a possessive."""
    return str(_STEMMER.stemWord(re.sub(r"['’]s?$", "", word.lower())))


def tokens(text: str) -> list[str]:
    """The words of a text, in order, as they stand there."""
    return _TOKEN.findall(text)


@lru_cache(maxsize=256)
def stems(text: str) -> frozenset[str]:
    """The stems of all words of a text."""
    return frozenset(map(stem, _TOKEN.findall(text)))


@lru_cache(maxsize=8192)
def key_terms(query: str) -> tuple[str, ...]:
    """The query's content words, most telling first: no stop words, no generic ones unless there are no others.

    Telling is longer stem first: the longest specific word stands in 89 % of MS MARCO's judged dev passages, the
    first in 87 %, the last in 84 %. Words with one stem count once. Empty only for a query of stop words.
    """
    words = [word.lower() for word in tokens(query)]
    content = [word for word in words if word not in STOPWORDS] or words
    specific = [word for word in content if word not in GENERIC and len(word) > 1] or content
    by_stem = {stem(word): word for word in reversed(specific)}
    return tuple(sorted(by_stem.values(), key=lambda word: (-len(stem(word)), word)))


def same_term(word_stem: str, root: str) -> bool:
    """Whether a word counts as the term: the same stem, or for terms of six letters the same first five."""
    return word_stem == root or (len(root) >= 6 and word_stem.startswith(root[:5]))


def covers(passage_stems: frozenset[str], term: str) -> bool:
    """Whether the passage, given by its stems, holds the term."""
    root = stem(term)
    return root in passage_stems or (len(root) >= 6 and any(s.startswith(root[:5]) for s in passage_stems))


def covered_terms(query: str, passage: str) -> tuple[str, ...]:
    """Those of the query's key terms that the passage holds, most telling first."""
    found = stems(passage)
    return tuple(term for term in key_terms(query) if covers(found, term))


def on_topic(query: str, passage: str) -> bool:
    """Whether the passage holds the query's most telling term, or any two of its other key terms.

    The leading term alone decides in queries of one or two key terms, so that replacing it moves a query off a
    passage; longer queries have a second chance. On MS MARCO's dev pairs the judged passage passes in 95.0 % and a
    passage of another query in 0.6 %. Topic is all it measures: of TREC DL19's pooled passages it passes 81 % of
    grade 0 and 88 % of grade 3.
    """
    terms = key_terms(query)
    covered = covered_terms(query, passage)
    return bool(covered) and (covered[0] == terms[0] or len(covered) >= 2)
