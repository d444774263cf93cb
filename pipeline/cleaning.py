"""From judged pairs to seeds: texts repaired and normalised, unusable pairs dropped with a reason, a sample taken."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

import ftfy
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.records import Seed
from pipeline.sources import Judged, Progress, Source, SourceError, SourceReport

# Curly quotes stay: they are the author's, not an accident of encoding.
_REPAIRS: Final = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)
_HTML_ENTITY = re.compile(r"&#?\w{1,31};")
# Invisible characters that carry nothing in English text: controls, zero-width spaces, soft hyphens, bidi marks.
_INVISIBLE: Final = dict.fromkeys(
    [c for c in range(0x110000) if unicodedata.category(chr(c)) == "Cc" and not chr(c).isspace()]
    + [0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
_WORD = re.compile(r"[^\W\d_]+")
# Words that fill a quarter of running English and few of which its neighbours have ("in", "is", "was" are Dutch too).
_ENGLISH: Final = """the of and to that for it with this are were from which you your not their they but when how what
    who than may other these been would can or by"""
_ENGLISH_WORDS: Final = frozenset(_ENGLISH.split())
_SURELY_ENGLISH: Final = 0.15
"""Share of such words from which the identifier, 0.2 ms a passage, need not be asked; 9 in 10 passages have it."""
_SURELY_FOREIGN: Final = 0.001
"""Probability of English, normalised for length, below which a passage is foreign. Of 20,000 passages of MS MARCO odd
English ones (lists of names, of numbers, of Thai spellings) have 0.005 and more, foreign ones 0.00001 and less."""


@dataclass(frozen=True, slots=True)
class CleaningOptions:
    """Bounds in words, both ends included, and whether only English stays.

    The bounds keep every pair of 8,000 from MS MARCO, whose queries have 2 to 30 words and passages 11 to 189. 400 words
    are about the 512 tokens that common encoders read: of a longer passage they would not see the end.
    """

    query_words: tuple[int, int] = (2, 40)
    passage_words: tuple[int, int] = (5, 400)
    english_only: bool = True


@dataclass(frozen=True, slots=True)
class Selection:
    """The seeds, sorted by id, and the account of how they came about."""

    seeds: list[Seed]
    report: SourceReport


def normalise(text: str) -> str:
    """The text with mojibake and HTML entities repaired, in NFC, in one line with single spaces, nothing invisible."""
    if not text.isascii() or ("&" in text and _HTML_ENTITY.search(text)):
        text = ftfy.fix_text(text, _REPAIRS)
    if not text.isprintable():
        text = text.translate(_INVISIBLE)
    return unicodedata.normalize("NFC", " ".join(text.split()))


def is_foreign(text: str) -> bool:
    """Whether the text is clearly in another language than English. Short or odd English is not."""
    words = _WORD.findall(text.casefold())
    if not words or sum(word in _ENGLISH_WORDS for word in words) >= _SURELY_ENGLISH * len(words):
        return False
    return bool(dict(_identifier().rank(text))["en"] < _SURELY_FOREIGN)


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def select_seeds(
    source: Source, num_seeds: int, seed: int, cleaning: CleaningOptions, progress: Progress | None = None
) -> Selection:
    """Read, clean and sample: pairs are examined in the order of a hash until `num_seeds` have passed (0: all).

    The order depends on `seed` and the pairs' ids alone: a bigger sample contains a smaller one, and the order of lines
    in the source does not matter. Raises SourceError where no seed is left.
    """
    judged = source.read(progress)
    report = judged.report
    report.excluded_queries = len(source.exclusions)
    tell = progress or (lambda _stage, _done, _total: None)
    _normalise_all(judged.queries, "cleaning queries", tell)
    _normalise_all(judged.documents, "cleaning passages", tell)
    faults = _Faults(judged, source, cleaning)
    order = sorted((hashlib.sha256(f"{seed}:{q}-{d}".encode()).digest(), q, d) for q, d in judged.pairs)
    total = num_seeds or len(order)
    seeds: list[Seed] = []
    for _, query_id, document_id in order:
        if num_seeds and len(seeds) == num_seeds:
            break
        report.examined += 1
        found = faults.of(query_id, document_id)
        if found is None:
            text = judged.queries[query_id], judged.documents[document_id]
            seeds.append(Seed(f"{query_id}-{document_id}", query_id, document_id, *text))
            if len(seeds) % 1000 == 0:
                tell("sampling", len(seeds), total)
        else:
            reason, detail = found
            report.dropped.note(reason, f"{query_id}-{document_id}", detail)
    report.sampled = len(seeds)
    if not seeds:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in report.dropped.counts.most_common())
        raise SourceError(
            f"{report.name}, split {report.split}: none of {len(order):,} pairs passed cleaning: {reasons}."
        )
    seeds.sort(key=lambda s: s.id)
    return Selection(seeds, report)


def _normalise_all(texts: dict[str, str], stage: str, tell: Progress) -> None:
    for done, key in enumerate(texts):
        texts[key] = normalise(texts[key])
        if done % 10_000 == 0:
            tell(stage, done, len(texts))


class _Faults:
    """Why a pair can't become a seed. Knows all pairs, so that of equal ones the same stays in every sample."""

    def __init__(self, judged: Judged, source: Source, options: CleaningOptions) -> None:
        self._judged, self._options = judged, options
        self._exclusions = source.exclusions
        self._queries = _first_with_this_text(judged.queries)
        self._documents = _first_with_this_text(judged.documents)
        self._kept: dict[tuple[str, str], tuple[str, str, str]] = {}
        self._ids: dict[str, tuple[str, str]] = {}
        for query_id, document_id in judged.pairs:
            pair = f"{query_id}-{document_id}", query_id, document_id
            text = self._queries[query_id], self._documents[document_id]
            self._kept[text] = min(pair, self._kept.get(text, pair))
            self._ids[pair[0]] = min(pair[1:], self._ids.get(pair[0], pair[1:]))

    def of(self, query_id: str, document_id: str) -> tuple[str, str] | None:
        """The reason and a detail, None for a pair that is fine."""
        query, document = self._judged.queries[query_id], self._judged.documents[document_id]
        kept = self._kept[self._queries[query_id], self._documents[document_id]]
        checks: Iterable[Callable[[], tuple[str, str] | None]] = (
            lambda: None if kept[1:] == (query_id, document_id) else ("duplicate", f"same texts as {kept[0]}"),
            lambda: self._clash(query_id, document_id),
            lambda: _length("query_length", query, self._options.query_words),
            lambda: _length("passage_length", document, self._options.passage_words),
            lambda: ("excluded_query", query) if self._exclusions.match(query) else None,
            lambda: ("language", document) if self._options.english_only and is_foreign(document) else None,
        )
        return next((fault for check in checks if (fault := check())), None)

    def _clash(self, query_id: str, document_id: str) -> tuple[str, str] | None:
        owner = self._ids[f"{query_id}-{document_id}"]
        return None if owner == (query_id, document_id) else ("same_id", f"is also query {owner[0]} and {owner[1]}")


def _first_with_this_text(texts: dict[str, str]) -> dict[str, str]:
    """Each id's representative: the smallest id whose text is the same but for case."""
    smallest: dict[bytes, str] = {}
    digests = {
        key: hashlib.sha256(text.casefold().encode("utf-8", "surrogatepass")).digest() for key, text in texts.items()
    }
    for key, digest in digests.items():
        smallest[digest] = min(key, smallest.get(digest, key))
    return {key: smallest[digest] for key, digest in digests.items()}


def _length(reason: str, text: str, bounds: tuple[int, int]) -> tuple[str, str] | None:
    words = len(text.split())
    low, high = bounds
    return None if low <= words <= high else (reason, f"{words} words, not {low} to {high}: {text}")
