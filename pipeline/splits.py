"""Splits that never leak: a query, and a passage, stands in one split only (DESIGN invariant 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.near_duplicates import QueryIndex, near_pairs
from pipeline.records import Seed, Split

SHARES: tuple[tuple[Split, float], ...] = (("test", 0.05), ("validation", 0.05), ("train", 0.90))


def assign_splits(
    seeds: Sequence[Seed], near: float = 0.0, near_passages: Iterable[tuple[str, str]] = ()
) -> list[Seed]:
    """The seeds with their split: that of the connected component of shared queries and passages.

    Two seeds are connected when they share the text of a query or of a passage, case aside, or nearly: queries at a Jaccard of
    `near` (0: equal texts alone), passages where `near_passages` has their ids, as cleaning found them. The component goes to the
    split that the hash of its smallest id says, so order and neighbours don't matter.
    """
    if not seeds:
        return []
    numbers: dict[tuple[str, str], int] = {}
    queries = [numbers.setdefault(("query", text_key(seed.query)), len(numbers)) for seed in seeds]
    passages = [numbers.setdefault(("passage", text_key(seed.document)), len(numbers)) for seed in seeds]
    edges = list(zip(queries, passages, strict=True))
    if near:
        distinct = dict(zip(queries, (seed.query for seed in seeds), strict=True))
        number, texts = list(distinct), list(distinct.values())
        edges += ((number[a], number[b]) for a, b in near_pairs(texts, QueryIndex(near, texts)))
    passage_of = dict(zip((seed.id for seed in seeds), passages, strict=True))
    edges += ((passage_of[a], passage_of[b]) for a, b in near_passages)
    ends = np.array(edges, dtype=np.int64)
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(len(numbers), len(numbers)))
    _, component_of_text = connected_components(graph, directed=False)
    components = [int(component_of_text[query]) for query in queries]
    smallest: dict[int, str] = {}
    for seed, component in zip(seeds, components, strict=True):
        smallest[component] = min(smallest.get(component, seed.id), seed.id)
    return [
        replace(seed, split=split_of(smallest[component])) for seed, component in zip(seeds, components, strict=True)
    ]


def split_of(component_id: str) -> Split:
    """The split that a component's smallest id falls into: 90/5/5 by hash."""
    at = unit_hash(f"split:{component_id}")
    for split, share in SHARES:
        if at < share:
            return split
        at -= share
    return "train"


def unit_hash(text: str) -> float:
    """A text's place in [0, 1), even and stable, by SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48


def text_key(text: str) -> str:
    """What makes two texts the same: white space and case aside."""
    folded = " ".join(text.casefold().split())
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()[:32]


Texts = tuple[str, Split, tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""id, split, keys of Q+, P+ and the mined passages, keys of generated queries, keys of generated passages."""


def duplicates_and_leaks(rows: Iterable[Texts]) -> dict[str, tuple[str, str]]:
    """Accepted rows that must go for the data set's sake: id -> (reason, detail). Order of rows doesn't matter.

    `duplicate_tuple`: all texts equal another row's with a smaller id. `split_leak`: a generated text stands in another
    split too; the split that keeps a text is the one where it is a source text, else the one of the smallest id.
    """
    gone: dict[str, tuple[str, str]] = {}
    first: dict[tuple[object, ...], str] = {}
    owner: dict[tuple[str, str], tuple[int, str, Split]] = {}
    kept = sorted(rows)
    for row_id, split, source, queries, passages in kept:
        twin = first.setdefault((source, queries, passages), row_id)
        if twin != row_id:
            gone[row_id] = ("duplicate_tuple", f"equal to {twin}")
            continue
        for rank, text in _texts(source, queries, passages):
            owner[text] = min(owner.get(text, (9, "", split)), (rank, row_id, split))
    for row_id, split, source, queries, passages in kept:
        if row_id in gone:
            continue
        for rank, text in _texts(source, queries, passages):
            _, keeper, keeps = owner[text]
            if rank == 1 and keeps != split:
                gone[row_id] = ("split_leak", f"its generated {text[0]} stands in {keeps} too, in {keeper}")
                break
    return gone


def _texts(
    source: tuple[str, ...], queries: tuple[str, ...], passages: tuple[str, ...]
) -> Iterator[tuple[int, tuple[str, str]]]:
    yield 0, ("query", source[0])
    for key in source[1:]:
        yield 0, ("passage", key)
    for key in queries:
        yield 1, ("query", key)
    for key in passages:
        yield 1, ("passage", key)
