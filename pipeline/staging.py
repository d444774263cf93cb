"""What a run has finished so far, in waves: a wave's outcomes lie in one folder that appears whole or not at all.

Waves bound memory (Beam's in-process runner keeps what passes a barrier in memory) and are what a killed run goes on from. A
wave's name is the hash of everything that decides its content, so a finished wave is never done again and a changed setting
never meets an old result. Inside, rows lie in `PARTS` files by the hash of their id, so that a shard reads its share only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.records import Deferred, Rejected, Seed, Tuple
from pipeline.splits import unit_hash
from pipeline.tables import staged_table

PARTS = 16
"""Files a wave. More would make a shard's reading finer and the files of a small wave tiny."""

_SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Wave:
    """Seeds that are curated together, and the folder of their outcomes."""

    seeds: tuple[Seed, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether every seed of the wave has ended: none waits for an answer."""
        try:
            summary = json.loads((self.folder / _SUMMARY).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return bool(summary["deferred"] == 0)

    @property
    def unfinished_folder(self) -> Path:
        """Where the parts are written before the wave is whole."""
        return self.folder.with_name(self.folder.name + ".unfinished")

    def begin(self) -> None:
        """Make room for the parts."""
        shutil.rmtree(self.unfinished_folder, ignore_errors=True)
        self.unfinished_folder.mkdir(parents=True)

    def end(self) -> None:
        """Make the parts the wave's outcome."""
        deferred = sum(
            outcome == "deferred"
            for part in sorted(self.unfinished_folder.glob("part-*.parquet"))
            for outcome in pq.read_table(part, columns=["outcome"]).column("outcome").to_pylist()
        )
        (self.unfinished_folder / _SUMMARY).write_text(json.dumps({"deferred": deferred}), "utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.unfinished_folder.rename(self.folder)


def plan_waves(seeds: Sequence[Seed], wave_size: int, settings: Mapping[str, object], folder: Path) -> list[Wave]:
    """The seeds in waves of `wave_size`, in the order given, each with its folder."""
    prefix = json.dumps(settings, sort_keys=True).encode()
    waves = []
    for start in range(0, len(seeds), wave_size):
        chunk = tuple(seeds[start : start + wave_size])
        digest = hashlib.sha256(prefix)
        for seed in chunk:
            fields = (seed.id, seed.query_id, seed.document_id, seed.query, seed.document, seed.split)
            digest.update(json.dumps(fields).encode())
        waves.append(Wave(chunk, folder / digest.hexdigest()[:24]))
    return waves


def forget_other_waves(folder: Path, ours: Iterable[Path]) -> None:
    """Remove what earlier runs with other settings left behind."""
    used = {wave.name for wave in ours}
    for other in folder.iterdir():
        if other.name not in used:
            shutil.rmtree(other, ignore_errors=True)


def part_of(tuple_id: str) -> int:
    """The part that a row lies in: ranges of the hash, in order, as shards are (`shards.Shard.holds`)."""
    return int(unit_hash(tuple_id) * PARTS)


def write_part(
    part: tuple[int, Iterable[Tuple | Rejected | Deferred]],
    folder: str,
    prompt_hashes: Mapping[str, str],
    source: str,
) -> None:
    """Write one part of a wave, aside and renamed: a worker that is stopped or tried again leaves no half file."""
    index, outcomes = part
    table = staged_table(outcomes, prompt_hashes, source)
    file = Path(folder) / f"part-{index:02d}.parquet"
    aside = file.with_suffix(".tmp")
    pq.write_table(table, aside, compression="zstd")
    aside.replace(file)


def part_files(folders: Iterable[Path], low: int = 0, high: int = PARTS) -> Iterator[Path]:
    """The files of parts low to high - 1 of the waves that have an outcome."""
    for folder in folders:
        for index in range(low, high):
            file = folder / f"part-{index:02d}.parquet"
            if file.exists():
                yield file
