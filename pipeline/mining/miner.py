"""Which passages of the collection become a seed's mined negatives."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from pipeline.cleaning import CleaningOptions, Selection, is_foreign, normalise
from pipeline.measures.overlap import jaccard, trigrams
from pipeline.mining.bm25 import Bm25
from pipeline.mining.dense import Dense
from pipeline.mining.passages import Passages, write_passages
from pipeline.near_duplicates import DEFAULT, PassageIndex
from pipeline.records import SPLITS, Mined, Seed
from pipeline.sources import Progress, Source
from pipeline.sources.passages import read_passages

SLACK: Final = 100
"""Passages looked at beyond the k wanted, for those that are judged relevant, nearly equal or in another split."""
ID_LENGTH: Final = 24


@dataclass(frozen=True, slots=True)
class Mining:
    """How to mine. k: passages a tuple. model: the encoder of `dense`."""

    method: Literal["bm25", "dense"]
    k: int
    model: str | None = None


class Searches(Protocol):
    """An index of the collection."""

    def search(self, queries: Sequence[str], depth: int) -> Iterator[list[tuple[int, float]]]:
        """For each query (place, score), the highest first."""


class Miner:
    """Mines for seeds, as a function of the collection, all seeds and the settings: not of the wave or the order they come in.

    A passage is taken that is not judged relevant to the query, is English of a passage's length, nearly equals neither P+ of any
    seed with the query nor one taken before, and stands, itself or nearly, in no other split: not as P+, and not mined. Test
    and validation claim first, so that their negatives are as hard as the collection allows; training has the rest.

    The index is built once, at the first seeds that need it, into `folder`, and mapped from there.
    """

    def __init__(
        self,
        mining: Mining,
        source: Source,
        selection: Selection,
        seeds: Sequence[Seed],
        folder: Path,
        near: float = DEFAULT,
    ) -> None:
        self._mining, self._source, self._seeds = mining, source, seeds
        self._progress: Progress | None = None
        self._near = near or DEFAULT
        self._pairs = selection.pairs
        read = [(file.name, file.sha256) for file in selection.report.files]
        key = json.dumps([read, mining.method, mining.model])
        self._folder = folder / hashlib.sha256(key.encode()).hexdigest()[:ID_LENGTH]
        asked = json.dumps([[seed.id, seed.query, seed.document, seed.split] for seed in seeds])
        self.fingerprint: dict[str, Any] = asdict(mining) | {
            "collection": self._folder.name,
            "near": self._near,
            "seeds": hashlib.sha256(asked.encode()).hexdigest(),
        }

    def mine(self, seeds: Sequence[Seed], progress: Progress | None = None) -> list[Seed]:
        """The seeds with what was mined for them, at most k each."""
        self._progress = progress
        homes = self._homes
        return [replace(seed, mined=tuple(mined)) for seed, mined in self._mined(seeds, homes)]

    @cached_property
    def _passages(self) -> Passages:
        if not self._folder.is_dir():
            self._build()
        return Passages(self._folder / "passages.arrow")

    @cached_property
    def _index(self) -> Searches:
        passages, folder = self._passages, self._folder / "index"
        if self._mining.method == "bm25":
            return Bm25(folder, passages)
        assert self._mining.model
        return Dense(folder, passages, self._mining.model)

    def _build(self) -> None:
        """Write the passages and their index aside, and rename: a killed run leaves none that is half done."""
        shutil.rmtree(self._folder.parent, ignore_errors=True)  # those of other collections and settings
        aside = self._folder.with_name(f"{self._folder.name}.unfinished")
        aside.mkdir(parents=True)
        write_passages(aside / "passages.arrow", lambda take: read_passages(self._source, take, self._progress))
        passages = Passages(aside / "passages.arrow")
        if self._progress:
            self._progress(f"indexing {len(passages):,} passages", 0, None)
        if self._mining.method == "bm25":
            Bm25.build(passages, aside / "index")
        else:
            assert self._mining.model
            Dense.build(passages, aside / "index", self._mining.model)
        aside.rename(self._folder)

    @cached_property
    def _judged(self) -> dict[str, set[str]]:
        """Query id -> ids of the passages judged relevant to it, sampled or not."""
        judged = defaultdict(set)
        for query_id, document_id in self._pairs:
            judged[query_id].add(document_id)
        return judged

    @cached_property
    def _answers(self) -> dict[str, set[str]]:
        """Query id -> every P+ of the seeds with that query."""
        answers = defaultdict(set)
        for seed in self._seeds:
            answers[seed.query_id].add(seed.document)
        return answers

    @cached_property
    def _homes(self) -> _Homes:
        homes = _Homes(self._near)
        for seed in self._seeds:
            homes.claim(seed.document, seed.split)
        for split in SPLITS[::-1][:2]:
            own = [seed for seed in self._seeds if seed.split == split]
            for claimed in [mined.document for _, taken in list(self._mined(own, homes)) for mined in taken]:
                homes.claim(claimed, split)
        return homes

    def _mined(self, seeds: Sequence[Seed], homes: _Homes) -> Iterator[tuple[Seed, list[Mined]]]:
        found = self._index.search([seed.query for seed in seeds], self._mining.k + SLACK)
        for number, (seed, ranked) in enumerate(zip(seeds, found, strict=True), start=1):
            yield seed, self._taken(seed, ranked, homes)
            if self._progress and number % 100 == 0:
                self._progress("mining", number, len(seeds))

    def _taken(self, seed: Seed, ranked: Iterable[tuple[int, float]], homes: _Homes) -> list[Mined]:
        low, high = CleaningOptions().passage_words
        judged = self._judged[seed.query_id]
        near_to = [trigrams(text) for text in sorted(self._answers[seed.query_id])]
        taken: list[Mined] = []
        for place, score in ranked:
            if len(taken) == self._mining.k:
                break
            key = self._passages.id(place)
            if key in judged or any(key == mined.id for mined in taken):
                continue
            text = normalise(self._passages.text(place))
            parts = trigrams(text)
            if (
                not low <= len(text.split()) <= high
                or any(jaccard(parts, other) >= self._near for other in near_to)
                or is_foreign(text)
                or homes.elsewhere(text, seed.split)
            ):
                continue
            near_to.append(parts)
            taken.append(Mined(key, text, score))
        return taken


class _Homes:
    """The split that each passage of the data set lies in, and which one a nearly equal passage is bound to."""

    def __init__(self, near: float) -> None:
        self._index = PassageIndex(near)
        self._texts: list[str] = []
        self._splits: list[str] = []

    def claim(self, text: str, split: str) -> None:
        """Bind a text to a split."""
        self._index.add(self._index.sketch(text))
        self._texts.append(text)
        self._splits.append(split)

    def elsewhere(self, text: str, split: str) -> bool:
        """Whether a nearly equal text is bound to another split."""
        proposed = self._index.proposed(self._index.sketch(text))
        return any(self._splits[i] != split and self._index.alike(text, self._texts[i]) for i in proposed)
