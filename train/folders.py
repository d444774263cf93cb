"""Collections in MS MARCO's passage-ranking layout: distractors, and benchmarks without instructions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train import metrics
from train.errors import UsageError
from train.figures import Floats
from train.inputs import Context
from train.scoring import Scorer


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Queries, passages and graded judgements.

    passages: id -> text in ascending order of ids; judgements: query id -> passage id -> grade.
    """

    name: str
    queries: dict[str, str]
    passages: dict[str, str]
    judgements: dict[str, dict[str, int]]

    @classmethod
    def read(cls, where: str) -> Benchmark:
        """FOLDER:SPLIT. Grades come from `qrels.SPLIT.graded.txt` where that lies there, else `qrels.SPLIT.tsv`."""
        place, _, split = where.rpartition(":")
        if not place:
            raise UsageError(f"--benchmark {where}: expected FOLDER:SPLIT, such as trec-dl19:dl19.")
        folder = Path(place)
        graded = folder / f"qrels.{split}.graded.txt"
        file = graded if graded.is_file() else folder / f"qrels.{split}.tsv"
        judgements: dict[str, dict[str, int]] = {}
        for line, fields in _fields(file, None, 4, "qid 0 pid grade"):
            if not fields[3].lstrip("-").isdigit():
                raise UsageError(f"{file}:{line}: the grade is {fields[3]!r}, expected a whole number.")
            judgements.setdefault(fields[0], {})[fields[2]] = int(fields[3])
        named = dict(fields for _, fields in _fields(folder / f"queries.{split}.tsv", "\t", 2, "qid, tab, text"))
        queries = {
            query: text for query, text in named.items() if any(g > 0 for g in judgements.get(query, {}).values())
        }
        if not queries:
            raise UsageError(f"{file}: no query of queries.{split}.tsv has a relevant passage.")
        passages = read_collection(folder)
        return cls(folder.name, queries, {pid: passages[pid] for pid in sorted(passages)}, judgements)

    def ndcg(self, scorer: Scorer, k: int = 10) -> Floats:
        """(queries,) nDCG@k of a scorer that was made with the passages in their order."""
        ids = np.array(list(self.passages))
        table = scorer.scores([Context(text) for text in self.queries.values()])
        values = []
        for query, scores in zip(self.queries, table, strict=True):
            # all that ties with the k-th belongs to the run: ids decide among them
            kept = scores >= np.partition(scores, -min(k, len(scores)))[-min(k, len(scores))]
            run = dict(zip(ids[kept].tolist(), scores[kept].tolist(), strict=True))
            values.append(metrics.ndcg(run, self.judgements[query], k))
        return np.array(values)


def read_collection(folder: Path) -> dict[str, str]:
    """Passage id -> text of `collection.tsv`."""
    return dict(fields for _, fields in _fields(folder / "collection.tsv", "\t", 2, "pid, tab, text"))


def _fields(file: Path, separator: str | None, number: int, layout: str) -> Iterator[tuple[int, list[str]]]:
    try:
        # lines end in \n alone: passages hold U+0085 and U+2028
        lines = file.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read ({error}): expected MS MARCO's passage-ranking layout.") from None
    for place, line in enumerate(lines, start=1):
        if line:
            fields = line.rstrip("\r").split(separator, number - 1)
            if len(fields) != number:
                raise UsageError(f"{file}:{place}: {len(fields)} columns, expected {number} ({layout}).")
            yield place, fields
