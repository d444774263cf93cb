"""From judged pairs to seeds: texts repaired and normalised, unusable pairs dropped with a reason, a sample taken."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Final

import ftfy
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.near_duplicates import DEFAULT, Clusters, Twins
from pipeline.records import Seed
from pipeline.sources import Exclusions, Judged, Progress, Source, SourceError, SourceReport

# Curly quotes stay: they are the author's, not an accident of encoding. Controls and line ends are ours to fold, below.
_REPAIRS: Final = ftfy.TextFixerConfig(
    uncurl_quotes=False, fix_line_breaks=False, remove_control_chars=False, explain=False
)
_HTML_ENTITY = re.compile(r"&#?\w{1,31};")
# Invisible characters that carry nothing in English text: controls, zero-width spaces, soft hyphens, bidi marks.
_INVISIBLE: Final = dict.fromkeys(
    [c for c in range(0xA0) if unicodedata.category(chr(c)) == "Cc" and not chr(c).isspace()]
    + [
        0xAD,
        0x200B,
        0x200E,
        0x200F,
        0x2060,
        0xFEFF,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x2070),
        *range(0xFFF9, 0xFFFD),
    ]
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

_EACH: Final = 1_000
"""Pairs between two reports of progress."""

Pair = tuple[str, str]
"""Query id and document id."""
Fault = tuple[str, str]
"""Reason and detail."""


@dataclass(frozen=True, slots=True)
class CleaningOptions:
    """Bounds in words, both ends included, whether only English stays, and from what Jaccard on pairs are twins (0: none).

    The bounds keep every pair of 8,000 from MS MARCO, whose queries have 2 to 30 words and passages 11 to 189. 400
    words are about the 512 tokens that common encoders read: of a longer passage they would not see the end.
    """

    query_words: tuple[int, int] = (2, 40)
    passage_words: tuple[int, int] = (5, 400)
    english_only: bool = True
    near_duplicates: float = DEFAULT


@dataclass(frozen=True, slots=True)
class Selection:
    """The seeds, sorted by id, the account of how they came about, and all pairs judged relevant, sampled or not.

    near_passages: ids of seeds whose passages are nearly equal, as many pairs as connect all that are connected.
    """

    seeds: list[Seed]
    report: SourceReport
    pairs: Sequence[Pair]
    near_passages: Sequence[tuple[str, str]] = ()


def normalise(text: str) -> str:
    """The text with mojibake and HTML entities repaired, in NFC, in one line with single spaces, nothing invisible."""
    clean = text
    if not text.isascii() or ("&" in text and _HTML_ENTITY.search(text)):
        # First of all: U+0085 and its like are mostly bytes of mojibake, lost once they are folded to spaces.
        clean = ftfy.fix_text(clean, _REPAIRS)
    if not clean.isprintable():
        clean = clean.translate(_INVISIBLE)
    clean = unicodedata.normalize("NFC", " ".join(clean.split()))
    return text if clean == text else clean  # the same object, so that raw and clean share memory


def is_foreign(text: str) -> bool:
    """Whether the text is clearly in another language than English. Short or odd English is not."""
    words = _WORD.findall(text.casefold())
    if not words or sum(map(_ENGLISH_WORDS.__contains__, words)) >= _SURELY_ENGLISH * len(words):
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
    faults = _Faults(judged, source.exclusions, cleaning)
    order = sorted(judged.pairs, key=lambda pair: hashlib.sha256(f"{seed}:{_id(pair)}".encode()).digest())
    total = num_seeds or len(order)
    seeds: list[Seed] = []
    for pair in order:
        if num_seeds and len(seeds) == num_seeds:
            break
        report.examined += 1
        query_id, document_id = pair
        candidate = Seed(
            id=_id(pair),
            query_id=query_id,
            document_id=document_id,
            query=normalise(judged.queries[query_id]),
            document=normalise(judged.documents[document_id]),
        )
        if fault := faults.of(candidate):
            report.dropped.note(fault[0], candidate.id, fault[1])
        else:
            seeds.append(candidate)
        if progress and report.examined % _EACH == 0:
            progress("cleaning", len(seeds), total)
    report.sampled = len(seeds)
    report.near_duplicate_clusters = faults.clusters
    if not seeds:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in report.dropped.counts.most_common())
        raise SourceError(
            f"{report.name}, split {report.split}: none of {len(order):,} pairs passed cleaning: {reasons}."
        )
    seeds.sort(key=lambda s: s.id)
    return Selection(seeds, report, judged.pairs, faults.near_passages)


class _Faults:
    """Why a pair can't become a seed.

    Of pairs with equal texts the smallest id stays; those that only cleaning makes equal are told apart by which comes
    first in the order of sampling. Both choices are the same in every sample that reaches the pair. Near-duplicates fall by
    that order too: for a seed kept before them, never for one that only a bigger sample would reach.
    """

    def __init__(self, judged: Judged, exclusions: Exclusions, options: CleaningOptions) -> None:
        self._exclusions, self._options = exclusions, options
        queries, documents = _same_text(judged.queries), _same_text(judged.documents)
        self._same_text = _repeats(judged.pairs, lambda p: (queries.get(p[0], p[0]), documents.get(p[1], p[1])))
        self._same_id = _repeats(judged.pairs, _id)
        self._taken: dict[bytes, str] = {}
        self._twins = Twins(options.near_duplicates) if options.near_duplicates else None

    def of(self, seed: Seed) -> Fault | None:
        """The reason and a detail for the report's example; None, and the texts are taken, for a pair that is fine."""
        pair = seed.query_id, seed.document_id
        if other := self._same_id.get(pair):
            return "same_id", f"is also query {other[0]}, passage {other[1]}"
        if other := self._same_text.get(pair):
            return "duplicate", f"same texts as {_id(other)}"
        if fault := (
            _length("query_length", seed.query, self._options.query_words)
            or _length("passage_length", seed.document, self._options.passage_words)
        ):
            return fault
        if self._exclusions.match(seed.query):
            return "excluded_query", seed.query
        if self._options.english_only and is_foreign(seed.document):
            return "language", seed.document
        taken = self._taken.setdefault(_digest(f"{seed.query}\n{seed.document}"), seed.id)
        return self._twin(seed) if taken == seed.id else ("duplicate", f"same texts as {taken}")

    def _twin(self, seed: Seed) -> Fault | None:
        twin = self._twins.of(seed) if self._twins else None
        return ("near_duplicate", f"nearly equal to {twin}") if twin else None

    @property
    def clusters(self) -> Clusters:
        """Sizes of the clusters of near-duplicates."""
        return self._twins.clusters if self._twins else Counter()

    @property
    def near_passages(self) -> list[tuple[str, str]]:
        """Ids of seeds that are fine and whose passages are nearly equal."""
        return self._twins.near_passages if self._twins else []


def _id(pair: Pair) -> str:
    return f"{pair[0]}-{pair[1]}"


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.casefold().encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _same_text(texts: Mapping[str, str]) -> dict[str, str]:
    """Ids whose text another id has too (but for case and white space), and that other, one for all of them."""
    first_with: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for key, text in texts.items():
        first = first_with.setdefault(_digest(" ".join(text.split())), key)
        if first != key:
            same[key] = first
    return same


def _repeats(pairs: Iterable[Pair], key: Callable[[Pair], Any]) -> dict[Pair, Pair]:
    """Pairs that are not the smallest with their key, and that smallest pair."""
    # By sorting, for a dictionary over all pairs would cost a kilobyte for each.
    repeats: dict[Pair, Pair] = {}
    for _, group in groupby(sorted(pairs, key=lambda pair: (key(pair), pair)), key):
        first, *rest = group
        repeats.update(dict.fromkeys(rest, first))
    return repeats


def _length(reason: str, text: str, bounds: tuple[int, int]) -> Fault | None:
    words = len(text.split())
    low, high = bounds
    return None if low <= words <= high else (reason, f"{words} words, not {low} to {high}: {text}")
