"""The rows that people grade: drawn evenly over dimensions and the judge's verdicts, shown without any grade."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline import manifest as manifests
from pipeline.errors import UsageError
from pipeline.judging import shown_order
from pipeline.records import CONTEXTS, PASSAGES, TEXT_COLUMNS

_COLUMNS = ["id", *TEXT_COLUMNS, "dimension", "form", "relevance"]


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


def judged_rows(output: Path) -> list[dict[str, Any]]:
    """Every row that the judge graded, accepted or not. A folder that is no whole output is a UsageError."""
    made = manifests.read(output / "manifest.json")
    if made is None:
        raise UsageError(
            f"{output} is not an output folder: it has no manifest.json that adds up. Run pipeline.run first."
        )
    rows: list[dict[str, Any]] = []
    for file in made["files"]:
        path = output / file["path"]
        columns = [*_COLUMNS, *(["reason"] if file["path"].startswith("rejected/") else [])]
        try:
            table = pq.read_table(path, columns=columns)
        except (OSError, ValueError) as error:
            raise UsageError(f"can't read {path}: {' '.join(str(error).split())[:200]}") from error
        rows += [row for row in table.to_pylist() if row["relevance"]]
    return rows


def draw(output: Path, size: int, seed: int) -> Sample:
    """Draw rows in turn from every stratum of (dimension, verdict), by the hash of seed and id."""
    strata: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in judged_rows(output):
        strata[row["dimension"], row.get("reason") or "accepted"].append(row)
    if not strata:
        raise UsageError(f"{output} holds no row that the judge graded")
    for rows in strata.values():
        rows.sort(key=lambda row: _place(seed, row["id"]))
    drawn: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    order = sorted(strata, key=lambda stratum: _place(seed, "/".join(stratum)))
    depth = 0
    while sum(map(len, drawn.values())) < size and any(depth < len(rows) for rows in strata.values()):
        for stratum in order:
            if depth < len(strata[stratum]) and sum(map(len, drawn.values())) < size:
                drawn[stratum].append(strata[stratum][depth])
        depth += 1
    shown = [_row(row, len(strata[s]) / len(drawn[s])) for s in order for row in drawn[s]]
    shown.sort(key=lambda row: _place(seed + 1, row.id))  # verdicts mixed, so that a run of them teaches nothing
    name = hashlib.sha256(json.dumps([asdict(row) for row in shown], sort_keys=True).encode()).hexdigest()[:16]
    return Sample(name, tuple(shown))


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


def _place(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).hexdigest()
