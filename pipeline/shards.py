"""From staged outcomes to the shards of a data set: the same rows give the same bytes (DESIGN invariant 3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.records import SPLITS
from pipeline.splits import unit_hash
from pipeline.staging import PARTS, part_files
from pipeline.tables import ACCEPTED, REJECTED

ROW_GROUP = 1000
"""Rows a row group: small enough that viewers and filters skip most of a file."""

NUM_SHARDS = 8
"""Train shards of a data set that does not need more at `ROWS_PER_SHARD` each."""

ROWS_PER_SHARD = 10_000
"""Some 7 MB of parquet, which a writer holds in memory while it sorts them."""

RESTORE = "run the same pipeline.run command again, it restores it without a call"
"""What to do about a file that is not what the manifest says."""

Gone = Mapping[str, tuple[str, str]]
"""id -> (reason, detail) of accepted rows that the data set as a whole rejects."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to write. kind: a split's name, or `rejected`."""

    kind: str
    index: int
    of: int

    @property
    def path(self) -> str:
        """Where it lies under the output folder."""
        folder = "rejected" if self.kind == "rejected" else "data"
        return f"{folder}/{self.kind}-{self.index:05d}-of-{self.of:05d}.parquet"

    @property
    def parts(self) -> tuple[int, int]:
        """The range of staged parts that can hold its rows."""
        return math.floor(self.index * PARTS / self.of), math.ceil((self.index + 1) * PARTS / self.of)

    def holds(self, tuple_id: str) -> bool:
        """Whether a row of this kind lies in this shard: by the hash of its id."""
        return int(unit_hash(tuple_id) * self.of) == self.index


def plan_shards(
    rows: Mapping[str, int], rejected: int, num_shards: int | None, rows_per_shard: int = ROWS_PER_SHARD
) -> list[Shard]:
    """The files of a data set: `num_shards` for training, as many as keep their size for the other splits.

    rows: accepted rows of each split; rejected: rows for `rejected/`, `rows_per_shard` a file. num_shards None: `NUM_SHARDS`, or
    as many as `rows_per_shard` asks for.
    """
    train = num_shards or max(NUM_SHARDS, math.ceil(rows["train"] / rows_per_shard))
    per_shard = max(ROW_GROUP, math.ceil(rows["train"] / train))
    counts = {"train": train}
    counts |= {split: max(1, math.ceil(rows[split] / per_shard)) for split in SPLITS[1:]}
    counts["rejected"] = max(1, math.ceil(rejected / rows_per_shard))
    return [Shard(kind, index, of) for kind, of in counts.items() for index in range(of)]


def write_shard(shard: Shard, waves: Sequence[Path], gone: Gone, folder: Path) -> None:
    """Write one shard under `folder`: its rows of all waves, sorted by id.

    A shard without rows is not written: `datasets` can't open a parquet file without any.
    """
    schema = REJECTED if shard.kind == "rejected" else ACCEPTED
    rows: list[dict[str, Any]] = []
    for file in part_files(waves, *shard.parts):
        for row in pq.read_table(file, filters=_wanted(shard, gone)).to_pylist():
            if not shard.holds(row["id"]):
                continue
            if lost := gone.get(row["id"]):
                if shard.kind != "rejected":
                    continue
                row |= {"stage": "split", "reason": lost[0], "detail": lost[1]}
            rows.append(row)
    if not rows:
        return
    rows.sort(key=lambda row: row["id"])
    file = folder / shard.path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd", row_group_size=ROW_GROUP)


def put_in_place(shards: Iterable[Shard], scratch: Path, output: Path) -> list[dict[str, Any]]:
    """Move finished shards into the output folder, remove files of an earlier layout, and describe what lies there."""
    files = []
    wanted = set()
    for shard in shards:
        if not (scratch / shard.path).exists():
            continue
        target = output / shard.path
        target.parent.mkdir(parents=True, exist_ok=True)
        (scratch / shard.path).replace(target)
        wanted.add(target)
        files.append({"path": shard.path, "rows": pq.read_metadata(target).num_rows, "sha256": file_sha256(target)})
    for folder in ("data", "rejected"):
        for old in (output / folder).glob("*.parquet"):
            if old not in wanted:
                old.unlink()
    return files


def read_shard(
    folder: Path, file: Mapping[str, Any], columns: Sequence[str], of_rejected: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """The rows of one of a manifest's `files`, a batch at a time, `of_rejected` beside the columns where it holds rejected ones.

    A file that is missing, cut off or of another size than the manifest says is a UsageError.
    """
    path = folder / file["path"]
    more = of_rejected if file["path"].startswith("rejected/") else ()
    try:
        with pq.ParquetFile(path) as parquet:
            rows = parquet.metadata.num_rows
            if rows != file["rows"]:
                raise UsageError(f"{path} has {rows} rows, the manifest says {file['rows']}")
            yield from parquet.iter_batches(ROW_GROUP, columns=[*columns, *more])
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; {RESTORE}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({' '.join(str(error).split())[:200]}); {RESTORE}") from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wanted(shard: Shard, gone: Gone) -> pc.Expression:
    """The rows of a staged part that a shard may hold."""
    if shard.kind == "rejected":
        return (pc.field("outcome") == "rejected") | pc.field("id").isin(pa.array(list(gone), pa.string()))
    return (pc.field("outcome") == "accepted") & (pc.field("split") == shard.kind)
