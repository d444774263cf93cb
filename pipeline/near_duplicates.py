"""Near-duplicates: an index proposes pairs, the exact Jaccard of their parts decides, so a false proposal costs nothing.

Passages are compared by word trigrams, and MinHash LSH proposes. It can miss a pair: with 18 bands of 4 rows at a threshold of
0.8, one in 13,000 of those that lie on it and far fewer of those above. The permutations are fixed, so the same texts give the
same pairs everywhere. Queries are compared by their few content words, where LSH proposes half of all pairs that share a phrase
("average salary of …"); their rarest words propose instead, exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash
from scipy.cluster.hierarchy import DisjointSet

from pipeline.measures.overlap import content_words, jaccard, trigrams
from pipeline.records import DOCUMENT, MINED_DOCUMENTS, PASSAGES, QUERY_NEGATIVE, QUERY_POSITIVE, TEXT_COLUMNS, Seed

ROWS: Final = 4
"""Rows a band. Fewer propose pairs that share little, more want more bands for the same misses, and so more memory."""
MISSED: Final = 1e-4
"""The share of pairs at the threshold that may go unnoticed; it decides the number of bands."""
LOWEST: Final = 0.5
"""Below this threshold texts are not nearly equal in any sense, and LSH would propose everything."""
DEFAULT: Final = 0.8
"""One or two words changed in a passage of 50. Real MS MARCO passages from 0.8 on (2,113 pairs of 21,431) are one text with a
heading more or a sentence cut; from 0.5 to 0.6 one of the two says clearly more than the other."""
_SEED: Final = 1
_FACTORS: Final = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], np.uint64)
"""Odd and of random bits, one for each row of a band: the upper bits of the sum of products tell bands apart."""
_QUERIES: Final = (QUERY_POSITIVE, QUERY_NEGATIVE)
_OF_THE_SOURCE: Final = frozenset((QUERY_POSITIVE, DOCUMENT))


class MinHash(NamedTuple):
    """A passage's sketch: the minima of all permutations, and a hash of each band's."""

    digest: NDArray[np.uint32]
    bands: NDArray[np.uint64]


_Sketch = TypeVar("_Sketch")
Clusters = Counter[int]
"""Size of a cluster of near-duplicates -> how many clusters have it."""


class NearIndex(Protocol[_Sketch]):
    """Sketches of texts that were put in, by number; the texts themselves stay with the caller."""

    def sketch(self, text: str) -> _Sketch:
        """What `proposed` and `add` take: made once for both."""

    def proposed(self, sketch: _Sketch) -> list[int]:
        """Numbers of the texts that may be nearly equal, in the order in which they came."""

    def add(self, sketch: _Sketch) -> None:
        """Put a text in; its number is the count of those before it."""

    def alike(self, a: str, b: str) -> bool:
        """Whether two texts are nearly equal: the exact test that every proposed pair must pass."""


class PassageIndex:
    """MinHash LSH over word trigrams: rensa makes the sketches, hash tables over arrays hold them.

    rensa's own table needs 1.8 kB a passage, which its allocator keeps when the table is gone; this one needs 0.6 kB. Those put
    in latest form chains. Some texts share a band with thousands of others, so once there are more than `few` in chains, and an
    eighth of all, passages of a bucket are brought side by side.
    """

    def __init__(self, threshold: float, few: int = 1 << 16) -> None:
        self.threshold, self.few = threshold, few
        bands = math.ceil(math.log(MISSED) / math.log1p(-(min(threshold, 0.99) ** ROWS)))
        self._permutations = bands * ROWS
        self._bands = np.arange(bands)
        self._count = 0
        self._digests = np.empty((1024, self._permutations), np.uint32)  # what is not written yet costs no memory
        # As many agree of a pair at the threshold, but for one in 100,000: what shares a band by chance has fewer.
        spread = math.sqrt(self._permutations * threshold * (1 - threshold))
        self._fewest = self._permutations * threshold + NormalDist().inv_cdf(MISSED / 10) * spread
        self._sort()

    def sketch(self, text: str) -> MinHash:
        """The MinHash of a passage."""
        made = RMinHash(num_perm=self._permutations, seed=_SEED)
        made.update(list(trigrams(text)))
        digest = np.array(made.digest(), np.uint32)
        return MinHash(digest, _hashed(digest.reshape(-1, ROWS)))

    def proposed(self, sketch: MinHash) -> list[int]:
        """Numbers of the passages that share a band, and enough of all permutations to be worth the exact test."""
        buckets = (sketch.bands >> self._shift).astype(np.intp)
        first_late, sharing = self._sorted.shape[1], []
        for band, last in enumerate(self._last[self._bands, buckets].tolist()):
            number = last
            while number >= 0:
                sharing.append(number)
                number = self._before[number - first_late][band]
        found = np.array(sharing, np.int32)
        if first_late:
            begins, ends = self._begins[self._bands, buckets].tolist(), self._begins[self._bands, buckets + 1].tolist()
            early = (self._sorted[band, begin:end] for band, (begin, end) in enumerate(zip(begins, ends, strict=True)))
            found = np.concatenate([found, *early])
        if not len(found):
            return []
        found = np.unique(found)
        agree = np.count_nonzero(self._digests[found] == sketch.digest, axis=1)
        worth: list[int] = found[agree >= self._fewest].tolist()
        return worth

    def add(self, sketch: MinHash) -> None:
        """Put a passage in."""
        if self._count == len(self._digests):
            grown = np.empty((2 * self._count, self._permutations), np.uint32)
            grown[: self._count] = self._digests
            self._digests = grown
        self._digests[self._count] = sketch.digest
        buckets = (sketch.bands >> self._shift).astype(np.intp)
        self._before.append(self._last[self._bands, buckets].tolist())
        self._last[self._bands, buckets] = self._count
        self._count += 1
        if len(self._before) > max(self.few, self._count // 8):
            self._sort()

    def alike(self, a: str, b: str) -> bool:
        """Whether two passages are nearly equal."""
        return jaccard(trigrams(a), trigrams(b)) >= self.threshold

    def _sort(self) -> None:
        """Sort all passages into the buckets of each band, which are twice as many as passages, and begin chains anew."""
        bits = max(self.few, 2 * self._count).bit_length()
        self._shift = np.uint64(64 - bits)
        self._last = np.full((len(self._bands), 1 << bits), -1, np.int32)
        """[band, bucket]: the latest passage of the chain, -1 for none."""
        self._before: list[list[int]] = []
        """[passage since the last time][band]: the one before it in the chain."""
        self._sorted = np.empty((len(self._bands), self._count), np.int32)
        """[band]: all passages by bucket, and in one bucket in their order; begins: where each bucket begins."""
        self._begins = np.zeros((len(self._bands), (1 << bits) + 1), np.int32)
        for band in self._bands:
            hashed = _hashed(self._digests[: self._count, band * ROWS : (band + 1) * ROWS])
            buckets = (hashed >> self._shift).astype(np.intp)
            self._sorted[band] = np.argsort(buckets, kind="stable")
            self._begins[band, 1:] = np.cumsum(np.bincount(buckets, minlength=1 << bits))


def _hashed(rows: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A number for each band's rows, (…, ROWS), by multiplicative hashing: the upper bits are the random ones."""
    hashed: NDArray[np.uint64] = (rows * _FACTORS).sum(axis=-1, dtype=np.uint64)
    return hashed


class QueryIndex:
    """Queries by their rarest content words, of which two nearly equal ones share one (prefix filtering, Chaudhuri et al. 2006).

    queries: where words are counted, once and before any is put in. Any others may be put in or looked up.
    """

    def __init__(self, threshold: float, queries: Iterable[str]) -> None:
        self.threshold = threshold
        self._frequency = Counter(word for query in queries for word in content_words(query))
        self._holding: dict[str, list[int]] = {}
        self._count = 0

    def sketch(self, text: str) -> list[str]:
        """The rarest words: one up to four words at a threshold of 0.8, two up to nine."""
        words = sorted(content_words(text), key=lambda word: (self._frequency[word], word))
        return words[: len(words) - math.ceil(self.threshold * len(words) - 1e-9) + 1]

    def proposed(self, sketch: list[str]) -> list[int]:
        """Numbers of the queries with one of these words among their rarest."""
        return sorted({number for word in sketch for number in self._holding.get(word, ())})

    def add(self, sketch: list[str]) -> None:
        """Put a query in."""
        for word in sketch:
            self._holding.setdefault(word, []).append(self._count)
        self._count += 1

    def alike(self, a: str, b: str) -> bool:
        """Whether two queries are nearly equal."""
        return jaccard(content_words(a), content_words(b)) >= self.threshold


class Twins:
    """Seeds that were kept, and which of them another seed nearly equals: in the query and in the passage both.

    The order decides which of two twins stays, so it must not be an accident: seeds come in the order of sampling, which is a
    hash of their ids. Each is held against those kept before it alone, so that a bigger sample keeps what a smaller one kept.
    """

    def __init__(self, threshold: float) -> None:
        self._passages = PassageIndex(threshold)
        self._kept: list[Seed] = []
        self._joined = DisjointSet()
        self._sizes: Counter[str] = Counter()
        self.near_passages: list[tuple[str, str]] = []
        """Ids of kept seeds with nearly equal passages: of a big cluster not every pair, but as many as connect it."""

    def of(self, seed: Seed) -> str | None:
        """The id of the kept twin; None, and the seed is kept, where there is none."""
        sketch = self._passages.sketch(seed.document)
        words = content_words(seed.query)
        near: list[int] = []
        for number in self._passages.proposed(sketch):
            other = self._kept[number]
            alike_queries = jaccard(words, content_words(other.query)) >= self._passages.threshold
            known = not alike_queries and any(self._joined.connected(number, one) for one in near)
            if known or not self._passages.alike(seed.document, other.document):
                continue
            if alike_queries:
                self._sizes[other.id] += 1
                return other.id
            near.append(number)
        self._joined.add(len(self._kept))
        for number in near:
            self._joined.merge(number, len(self._kept))
            self.near_passages.append((self._kept[number].id, seed.id))
        self._passages.add(sketch)
        self._kept.append(seed)
        return None

    @property
    def clusters(self) -> Clusters:
        """Sizes of the clusters: a kept seed and those dropped for it."""
        return Counter(dropped + 1 for dropped in self._sizes.values())


def near_pairs(texts: Sequence[str], index: NearIndex[_Sketch]) -> Iterator[tuple[int, int]]:
    """Pairs of nearly equal texts, as many as connect all that are connected: of a big cluster not every pair."""
    joined = DisjointSet(range(len(texts)))
    for number, text in enumerate(texts):
        sketch = index.sketch(text)
        for other in index.proposed(sketch):
            if not joined.connected(number, other) and index.alike(text, texts[other]):
                joined.merge(number, other)
                yield other, number
        index.add(sketch)


class Rows(Protocol):
    """Accepted rows that can be read again and again."""

    def __call__(self, columns: Sequence[str], held: bool | None = None) -> Iterator[Mapping[str, Any]]:
        """From their start: id, split and these columns; held: of validation and test alone (True), of training alone (False)."""


Endings = dict[str, tuple[str, str]]
"""id -> (reason, detail)"""
Leak = tuple[bool, str, str, str, str]
"""Whether both texts are generated, the row that goes, the one that stays, the kind of text, the split of the one that stays."""


def similar_tuples(rows: Rows, threshold: float) -> list[tuple[str, str]]:
    """Pairs of tuples whose texts, taken together, are nearly the other's.

    Texts are read again for the pairs that LSH proposes, so memory holds sketches alone: half a kB a row.
    """
    index = PassageIndex(threshold)
    ids: list[str] = []
    proposed: set[tuple[str, str]] = set()
    for row in rows(TEXT_COLUMNS):
        sketch = index.sketch(_whole(row))
        proposed.update((ids[number], row["id"]) for number in index.proposed(sketch))
        index.add(sketch)
        ids.append(row["id"])
    del index
    wanted = {name for pair in proposed for name in pair}
    texts = {row["id"]: _whole(row) for row in rows(TEXT_COLUMNS) if row["id"] in wanted} if wanted else {}
    return [pair for pair in sorted(proposed) if jaccard(*(trigrams(texts[name]) for name in pair)) >= threshold]


def leaking_queries(rows: Rows, threshold: float) -> list[Leak]:
    """Pairs of nearly equal queries across splits, one of them generated at least.

    Nearly equal source texts, mined passages among them, lie in one split already. One end of such a pair is in validation or
    test: those are indexed, and training rows held against them.
    """
    held_queries = (row[name] for row in rows(_QUERIES, held=True) for name in _QUERIES)
    return list(_across_splits(rows, QueryIndex(threshold, held_queries), "query", _QUERIES))


def leaking_passages(rows: Rows, threshold: float) -> list[Leak]:
    """The same of passages."""
    return list(_across_splits(rows, PassageIndex(threshold), "passage", PASSAGES))


SEARCHES: Final[Mapping[str, Callable[[Rows, float], list[Any]]]] = {
    "passages": leaking_passages,
    "tuples": similar_tuples,
    "queries": leaking_queries,
}
"""What is looked for among accepted rows, each search by itself, the longest first."""


def settle(found: Mapping[str, Iterable[Sequence[Any]]]) -> tuple[Endings, Clusters]:
    """What goes because of what the searches found, and the sizes of the clusters of nearly equal tuples.

    Of a cluster, a connected component of nearly equal pairs, the smallest id stays. Of a leak the generated text's row goes, of
    two generated ones the larger id's; one whose other row has gone is none any more. The order of rows doesn't matter.
    """
    smallest, clusters = components((a, b) for a, b in found["tuples"])
    gone: Endings = {name: ("near_duplicate_tuple", f"nearly equal to {first}") for name, first in smallest.items()}
    for _, goes, stays, kind, split in sorted({*map(tuple, found["queries"]), *map(tuple, found["passages"])}):
        if goes not in gone and stays not in gone:
            gone[goes] = ("split_leak", f"its generated {kind} nearly equals one of {stays}, which is in {split}")
    return gone, clusters


def _across_splits(rows: Rows, index: NearIndex[_Sketch], kind: str, columns: Sequence[str]) -> Iterator[Leak]:
    held: list[tuple[str, str, str, bool]] = []

    def leaks(name: str, split: str, text: str, generated: bool, sketch: _Sketch) -> Iterator[Leak]:
        for number in index.proposed(sketch):
            other_text, other, other_split, other_generated = held[number]
            if split == other_split or not (generated or other_generated) or not index.alike(text, other_text):
                continue
            both = generated and other_generated
            if (name > other) if both else generated:
                yield both, name, other, kind, other_split
            else:
                yield both, other, name, kind, split

    mined = [MINED_DOCUMENTS] if DOCUMENT in columns else []
    for of_held in (True, False):
        for row in rows([*columns, *mined], held=of_held):
            texts = [(row[column], column not in _OF_THE_SOURCE) for column in columns]
            texts += [(text, False) for name in mined for text in row[name] or ()]
            for text, generated in texts:
                sketch = index.sketch(text)
                yield from leaks(row["id"], row["split"], text, generated, sketch)
                if of_held:
                    index.add(sketch)
                    held.append((text, row["id"], row["split"], generated))


def components(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], Clusters]:
    """The connected components of pairs of ids: every id that is not its component's smallest -> that one, and the sizes."""
    joined: DisjointSet = DisjointSet()
    for a, b in pairs:
        joined.add(a)
        joined.add(b)
        joined.merge(a, b)
    smallest: dict[str, str] = {}
    sizes: Clusters = Counter()
    for subset in joined.subsets():
        first, *rest = sorted(subset)
        sizes[len(subset)] += 1
        smallest |= dict.fromkeys(rest, first)
    return smallest, sizes


def _whole(row: Mapping[str, Any]) -> str:
    return "\n".join(row[name] for name in TEXT_COLUMNS)
