"""Reads the shards of a folder, a batch at a time: counts over all rows, and in full the few that are looked at closely.

Memory follows `SAMPLE` and `BROWSED`, not the rows: a first pass counts and decides by the hash of the id which rows to draw, a
second one counts words and takes the drawn rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.drawing import Draw, place
from pipeline.judging import shown_order
from pipeline.records import MINED_DOCUMENTS, MINED_RELEVANCE, REASONS, STAGES, TEXT_COLUMNS
from pipeline.shards import read_shard

SAMPLE = 1000
"""Accepted rows that the costly figures are computed over: enough for two digits of a share, and a few seconds."""
BROWSED = 200
FALSE_NEGATIVES = 5
_MOST_WORDS = 20_000
"""Longer texts count as this long."""

Row = dict[str, Any]


@dataclass(slots=True)
class Survey:
    """What the shards hold.

    crossed: dimension -> form -> [accepted, all]. lengths: column -> n, where n[w] accepted rows have w words.
    grades: (3 contexts, 3 passages, 4 grades), judged rows. positions: (3,), the sum over judged rows of the mean grade of
    the passage that was shown there. mined: n[k] accepted rows have k mined passages; empty where nothing was mined.
    sample, examples (one for every reason), browsed, false_negatives (accepted, with a mined passage that the judge finds
    relevant): rows in full.
    """

    crossed: dict[str, dict[str, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: [0, 0]))
    )
    lengths: dict[str, np.ndarray] = field(
        default_factory=lambda: {name: np.zeros(0, np.int64) for name in TEXT_COLUMNS}
    )
    grades: np.ndarray = field(default_factory=lambda: np.zeros((3, 3, 4), np.int64))
    positions: np.ndarray = field(default_factory=lambda: np.zeros(3))
    mined: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sample: list[Row] = field(default_factory=list)
    examples: list[Row] = field(default_factory=list)
    browsed: list[Row] = field(default_factory=list)
    false_negatives: list[Row] = field(default_factory=list)

    @property
    def judged(self) -> int:
        """Rows that the judge graded."""
        return int(self.grades[0, 0].sum())


def read_survey(manifest: Mapping[str, Any], folder: Path) -> Survey:
    """Read what the manifest names. A file that is missing, cut off or of another size is a UsageError."""
    survey = Survey()
    sample, groups, wrong = Draw(SAMPLE), _Groups(), Draw(FALSE_NEGATIVES)
    columns = ["id", "dimension", "form", "relevance", *(MINED[-1:] if manifest.get("mining") else ())]
    for file in manifest["files"]:
        for batch in read_shard(folder, file, columns, ("stage", "reason")):
            _count(survey, batch)
            for row in batch.select([n for n in batch.schema.names if n != "relevance"]).to_pylist():
                at = place("report", row["id"])
                if "reason" not in row:
                    sample.offer(at, row["id"])
                    if any(grade >= manifest["thresholds"]["relevant"] for grade in _graded(row)):
                        wrong.offer(at, row["id"])
                groups.offer(at, row)
    drawn = sample.ids, groups.examples(), groups.browsed(), wrong.ids
    rows = _read_in_full(survey, manifest, folder, {name for names in drawn for name in names})
    survey.sample, survey.examples, survey.browsed, survey.false_negatives = (
        [rows[name] for name in names] for names in drawn
    )
    return survey


MINED = ("mined_document_ids", MINED_DOCUMENTS, "mined_scores", MINED_RELEVANCE)


def _graded(row: Row) -> list[int]:
    return [grade for grade in row.get(MINED_RELEVANCE) or () if grade is not None]


class _Groups:
    """Accepted rows by dimension, rejected ones by reason: what the browser is spread over."""

    def __init__(self) -> None:
        self._accepted: dict[str, Draw] = defaultdict(lambda: Draw(BROWSED))
        self._rejected: dict[tuple[str, str], Draw] = defaultdict(lambda: Draw(BROWSED))

    def offer(self, at: float, row: Row) -> None:
        if "reason" in row:
            self._rejected[row["reason"], row["stage"]].offer(at, row["id"])
        else:
            self._accepted[row["dimension"]].offer(at, row["id"])

    def examples(self) -> list[str]:
        """A row for every reason, in the order of the flow."""
        reasons = list(REASONS)
        first: dict[str, str] = {}
        for reason, stage in sorted(self._rejected, key=lambda x: (STAGES.index(x[1]), reasons.index(x[0]))):
            first.setdefault(reason, self._rejected[reason, stage].ids[0])
        return list(first.values())

    def browsed(self) -> list[str]:
        """Half accepted and half rejected where there are so many, in turn over dimensions and over reasons."""
        accepted = [self._accepted[name].ids for name in sorted(self._accepted)]
        rejected = [self._rejected[name].ids for name in sorted(self._rejected)]
        of_rejected = _in_turn(rejected, max(BROWSED // 2, BROWSED - sum(map(len, accepted))))
        return _in_turn(accepted, BROWSED - len(of_rejected)) + of_rejected


def _in_turn(queues: Sequence[Sequence[str]], size: int) -> list[str]:
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)][:size]


def _count(survey: Survey, batch: pa.RecordBatch) -> None:
    accepted = 0 if "reason" in batch.schema.names else 1
    for pair in (
        pa.Table.from_batches([batch]).group_by(["dimension", "form"]).aggregate([([], "count_all")]).to_pylist()
    ):
        cell = survey.crossed[pair["dimension"]][pair["form"]]
        cell[0] += accepted * pair["count_all"]
        cell[1] += pair["count_all"]
    if accepted and MINED_RELEVANCE in batch.schema.names:
        found = pc.list_value_length(batch[MINED_RELEVANCE]).drop_null().to_numpy(zero_copy_only=False)
        survey.mined = _sum(survey.mined, np.bincount(found))
    judged = batch.filter(pc.is_valid(batch["relevance"]))
    flat = judged["relevance"].flatten().flatten()
    matrices = np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, 3, 3)
    for grade in range(4):
        survey.grades[:, :, grade] += (matrices == grade).sum(axis=0)
    if len(matrices):
        orders = np.array([shown_order(name, "passages") for name in judged["id"].to_pylist()])
        survey.positions += np.take_along_axis(matrices.mean(axis=1), orders, axis=1).sum(axis=0)


def _read_in_full(survey: Survey, manifest: Mapping[str, Any], folder: Path, wanted: set[str]) -> dict[str, Row]:
    columns = ["id", *TEXT_COLUMNS, "dimension", "form", "relevance", "rationale"]
    columns += MINED if manifest.get("mining") else ()
    ids = pa.array(sorted(wanted), pa.string())
    rows: dict[str, Row] = {}
    for file in manifest["files"]:
        split = file["path"].split("/")[1].split("-")[0]
        for batch in read_shard(folder, file, columns, ("split", "stage", "reason", "detail")):
            for row in batch.filter(pc.is_in(batch["id"], ids)).to_pylist():
                rows[row["id"]] = {"split": split} | row
            if split != "rejected":
                for name in TEXT_COLUMNS:
                    survey.lengths[name] = _sum(survey.lengths[name], _word_counts(batch[name]))
    return rows


def _word_counts(texts: pa.Array) -> np.ndarray:
    """n, where n[w] texts have w words, by white space."""
    words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts.drop_null())))
    return np.bincount(np.minimum(words.to_numpy(zero_copy_only=False), _MOST_WORDS))


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.astype(np.int64)
    total[: len(shorter)] += shorter
    return total
