"""The rows that people grade: drawn evenly over dimensions and the judge's verdicts, shown without any grade."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import manifest as manifests
from pipeline.drawing import Draw, place
from pipeline.errors import UsageError
from pipeline.judging import shown_order
from pipeline.records import CONTEXTS, PASSAGES, TEXT_COLUMNS
from pipeline.shards import read_shard


@dataclass(frozen=True, slots=True)
class Row:
    """A row as a person sees it: contexts and passages in the orders drawn from its id, as the judge saw them.

    weight: how many judged rows of the data set it stands for.
    """

    id: str
    dimension: str
    contexts: tuple[tuple[str, str], ...]
    passages: tuple[str, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What is graded. `name` is the hash of its rows, which every annotation carries."""

    name: str
    rows: tuple[Row, ...]

    @property
    def cells(self) -> list[tuple[str, int, int]]:
        """(row id, shown context, shown passage), in the order of grading."""
        return [(row.id, c, p) for row in self.rows for c in range(3) for p in range(3)]


def audit_folder(output: Path) -> Path:
    """Where an output folder keeps its audit."""
    return output / "audit"


def judged_rows(output: Path) -> Iterator[dict[str, Any]]:
    """Every row that the judge graded, accepted or not, without its texts: id, dimension, relevance, verdict.

    A folder that is no whole output is a UsageError.
    """
    for file in manifests.read_output(output)["files"]:
        for batch in read_shard(output, file, ["id", "dimension", "relevance"], ["reason"]):
            for row in batch.filter(pc.is_valid(batch["relevance"])).to_pylist():
                yield row | {"verdict": row.get("reason", "accepted")}


def judged_grades(output: Path, sample: Sample) -> dict[str, Any]:
    """Row id -> the judge's matrix, for the rows of a sample. One that the data set hasn't is a UsageError."""
    wanted = {row.id for row in sample.rows}
    found = {row["id"]: row["relevance"] for row in judged_rows(output) if row["id"] in wanted}
    if missing := sorted(wanted - set(found)):
        raise UsageError(
            f"{audit_folder(output) / 'sample.json'} was drawn from another data set: {output} has no judged row {missing[0]}"
        )
    return found


def draw(output: Path, size: int, seed: int) -> Sample:
    """Draw rows in turn from every stratum of (dimension, the judge's verdict), by the hash of seed and id."""
    strata: dict[tuple[str, str], Draw] = defaultdict(lambda: Draw(size))
    for row in judged_rows(output):
        strata[row["dimension"], row["verdict"]].offer(place(f"audit:{seed}", row["id"]), row["id"])
    if not strata:
        raise UsageError(f"{output} holds no row that the judge graded")
    order = sorted(strata, key=lambda stratum: place(f"audit:{seed}", "/".join(stratum)))
    queues = {stratum: strata[stratum].ids for stratum in order}
    turns = ((stratum, turn) for turn in range(size) for stratum in order if turn < len(queues[stratum]))
    drawn = {queues[stratum][turn]: stratum for stratum, turn in islice(turns, size)}
    taken = Counter(drawn.values())
    weight = {name: strata[stratum].offered / taken[stratum] for name, stratum in drawn.items()}
    shown = [_row(row, weight[row["id"]]) for row in _in_full(output, set(drawn))]
    shown.sort(key=lambda row: place(f"shown:{seed}", row.id))  # verdicts mixed, so that a run of them teaches nothing
    name = hashlib.sha256(json.dumps([asdict(row) for row in shown], sort_keys=True).encode()).hexdigest()[:16]
    return Sample(name, tuple(shown))


def _in_full(output: Path, ids: set[str]) -> Iterator[dict[str, Any]]:
    wanted = pa.array(sorted(ids), pa.string())
    for file in manifests.read_output(output)["files"]:
        for batch in read_shard(output, file, ["id", *TEXT_COLUMNS, "dimension"]):
            yield from batch.filter(pc.is_in(batch["id"], wanted)).to_pylist()


def write(sample: Sample, folder: Path) -> Path:
    """Write sample.json; one that is there and is being graded is never replaced."""
    file = folder / "sample.json"
    text = json.dumps(asdict(sample), ensure_ascii=False, indent=1)
    if file.exists() and file.read_text("utf-8") != text and list(folder.glob("*.jsonl")):
        raise UsageError(
            f"{file} is another sample, and grades for it lie beside it; move that folder away to draw anew"
        )
    folder.mkdir(exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def read(folder: Path) -> Sample:
    """The sample of an audit folder."""
    try:
        raw: Mapping[str, Any] = json.loads((folder / "sample.json").read_text("utf-8"))
        rows = tuple(
            Row(r["id"], r["dimension"], tuple((i, q) for i, q in r["contexts"]), tuple(r["passages"]), r["weight"])
            for r in raw["rows"]
        )
        return Sample(raw["name"], rows)
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no sample.json; draw one with `python -m pipeline.audit sample`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / 'sample.json'} is not a sample of ours ({error})") from error


def _row(row: Mapping[str, Any], weight: float) -> Row:
    contexts = tuple((row[CONTEXTS[c][0]], row[CONTEXTS[c][1]]) for c in shown_order(row["id"], "contexts"))
    passages = tuple(row[PASSAGES[p]] for p in shown_order(row["id"], "passages"))
    return Row(row["id"], row["dimension"], contexts, passages, weight)
