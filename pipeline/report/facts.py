"""The figures of the report, from the output folder alone. What is sampled is drawn by the hash of the id and says so."""

from __future__ import annotations

import logging
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from pipeline.errors import UsageError
from pipeline.judging import shown_order
from pipeline.measures.overlap import folded, trigrams
from pipeline.measures.topicality import stems
from pipeline.records import CONTEXTS, PASSAGES, TEXT_COLUMNS
from pipeline.splits import unit_hash
from pipeline.tables import ACCEPTED, REJECTED

logging.getLogger("bm25s").setLevel(logging.ERROR)  # it logs every index at debug level to the terminal

SAMPLE = 1000
"""Rows that the costly figures are computed over: enough for two digits of a share, and a few seconds."""
BROWSED = 200
NEAR = 0.8
"""Word-trigram Jaccard from which two instructions count as near-duplicates."""

_COLUMNS = ("id", *TEXT_COLUMNS, "dimension", "form", "relevance", "rationale")
_ENDING = ("split", "stage", "reason", "detail")


@dataclass(frozen=True, slots=True)
class Rows:
    """The shards of a folder as tables: accepted ones with their split, rejected ones with stage, reason and detail."""

    accepted: pa.Table
    rejected: pa.Table

    @classmethod
    def read(cls, manifest: Mapping[str, Any], folder: Path) -> Rows:
        """Read what the manifest names. A file that is missing, cut off or of another size is a UsageError."""
        # A data set without a row of a kind has no file of it.
        split = pa.field("split", pa.string())
        tables = {
            "accepted": [pa.schema([*(ACCEPTED.field(name) for name in _COLUMNS), split]).empty_table()],
            "rejected": [pa.schema([REJECTED.field(name) for name in (*_COLUMNS, *_ENDING)]).empty_table()],
        }
        for file in manifest["files"]:
            kind = "rejected" if file["path"].startswith("rejected/") else "accepted"
            extra = _ENDING if kind == "rejected" else ()
            try:
                table = pq.read_table(folder / file["path"], columns=[*_COLUMNS, *extra])
            except (OSError, ValueError) as error:
                raise UsageError(f"can't read {folder / file['path']}: {' '.join(str(error).split())[:200]}") from error
            if table.num_rows != file["rows"]:
                raise UsageError(f"{folder / file['path']} has {table.num_rows} rows, the manifest says {file['rows']}")
            if kind == "accepted":
                name = file["path"].split("/")[1].split("-")[0]
                table = table.append_column(split, pa.array([name] * table.num_rows, pa.string()))
            tables[kind].append(table)
        return cls(*(pa.concat_tables(tables[kind]) for kind in ("accepted", "rejected")))


def drawn(table: pa.Table, size: int, purpose: str = "report") -> list[dict[str, Any]]:
    """At most `size` rows, the same ones every time, in the order of their hash."""
    ids = table["id"].to_pylist()
    chosen = sorted(range(len(ids)), key=lambda i: unit_hash(f"{purpose}:{ids[i]}"))[:size]
    rows: list[dict[str, Any]] = table.take(pa.array(chosen, pa.int64())).to_pylist()
    return rows


def word_counts(table: pa.Table, column: str) -> np.ndarray:
    """Words of every text of a column, by white space; rows without a text are left out."""
    counted = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(table[column].drop_null())))
    return np.asarray(counted.to_numpy())


def crossed(rows: Rows) -> dict[str, dict[str, tuple[int, int]]]:
    """dimension -> form -> (accepted, all)."""
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for table, accepted in ((rows.accepted, 1), (rows.rejected, 0)):
        counts = table.group_by(["dimension", "form"]).aggregate([([], "count_all")])
        for row in counts.to_pylist():
            before = found[row["dimension"]].get(row["form"], (0, 0))
            n = row["count_all"]
            found[row["dimension"]][row["form"]] = (before[0] + accepted * n, before[1] + n)
    return dict(sorted(found.items()))


def diversity(instructions: Sequence[str]) -> dict[str, Any]:
    """How varied instructions are.

    distinct: share of distinct n-grams, n = 1 to 3 (Li et al. 2016). compression: size over compressed size; the higher, the
    more repetitive (Shaib et al. 2024, arXiv 2403.00553). near: share with a near-duplicate among them.
    """
    tokens = [folded(text) for text in instructions]
    distinct = {}
    for n in (1, 2, 3):
        grams = [gram for words in tokens for gram in zip(*(words[i:] for i in range(n)), strict=False)]
        distinct[n] = len(set(grams)) / len(grams) if grams else 0.0
    whole = "\n".join(instructions).encode()
    openings = Counter(" ".join(words[:3]) for words in tokens if words)
    return {
        "n": len(instructions),
        "distinct": distinct,
        "compression": len(whole) / len(zlib.compress(whole, 9)) if whole else 0.0,
        "near": near_duplicates(instructions),
        "openings": [
            (text, n / max(1, len(tokens))) for text, n in sorted(openings.items(), key=lambda x: (-x[1], x[0]))[:8]
        ],
    }


def near_duplicates(texts: Sequence[str]) -> float:
    """The share of texts with another one at a word-trigram Jaccard of `NEAR` or more."""
    if len(texts) < 2:
        return 0.0
    sets = [trigrams(text) for text in texts]
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(gram, len(numbers)) for grams in sets for gram in grams]
    sizes = np.array([len(grams) for grams in sets])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    held = csr_array(
        (np.ones(len(columns), dtype=np.int32), np.array(columns), starts), shape=(len(sets), len(numbers))
    )
    both = (held @ held.T).toarray()
    jaccard = both / (sizes[:, None] + sizes[None, :] - both)
    np.fill_diagonal(jaccard, 0)
    return float((jaccard.max(axis=1) >= NEAR).mean())


def grades(rows: Rows) -> np.ndarray:
    """Every judged row's matrix: (rows, 3 contexts, 3 passages)."""
    judged = [m for table in (rows.accepted, rows.rejected) for m in table["relevance"].drop_null().to_pylist()]
    return np.array(judged, dtype=np.int8).reshape(-1, 3, 3)


def by_position(rows: Rows) -> list[float]:
    """Mean grade of the passage shown first, second, third: flat where position taught the judge nothing."""
    sums, n = np.zeros(3), 0
    for table in (rows.accepted, rows.rejected):
        for row in drawn(table.filter(pc.field("relevance").is_valid()), SAMPLE):
            matrix = np.array(row["relevance"])
            sums += matrix[:, list(shown_order(row["id"], "passages"))].mean(axis=0)
            n += 1
    return [float(x) for x in sums / n] if n else []


def overlaps(sample: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Shared word stems over all of both: of I+ with P+, and of each hard negative with P+."""
    pairs = {
        "I+ and P+": ("instruction_positive", "document"),
        "P-1 and P+": ("hard_negative_document_1", "document"),
        "P-2 and P+": ("hard_negative_document_2", "document"),
    }
    return {
        name: np.array([_jaccard(stems(row[a]), stems(row[b])) for row in sample]) for name, (a, b) in pairs.items()
    }


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def bm25_accuracy(sample: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How much of the tuples BM25 solves: the context's own passage above the other two (a tie is wrong).

    Keys: for (I+, Q+) with and without the instruction, all three contexts right (strict) with it. Guessing: 1/3 and 1/27.
    """
    if not sample:
        return {}
    passages = [row[name] for row in sample for name in PASSAGES]
    retriever = bm25s.BM25()
    vocabulary = bm25s.tokenize(passages, stopwords=None, show_progress=False)
    retriever.index(vocabulary, show_progress=False)

    def right(row: int, context: int, with_instruction: bool) -> bool:
        instruction, query = (sample[row][name] for name in CONTEXTS[context])
        text = f"{query} {instruction}" if with_instruction else query
        words = bm25s.tokenize([text], stopwords=None, show_progress=False, return_ids=False)[0]
        known = [word for word in words if word in retriever.vocab_dict]
        scores = retriever.get_scores(known)[row * 3 : row * 3 + 3] if known else np.zeros(3)
        return bool(scores[context] > np.delete(scores, context).max())

    n = len(sample)
    with_instruction = np.array([[right(i, c, True) for c in range(3)] for i in range(n)])
    return {
        "(I+, Q+) with the instruction": float(with_instruction[:, 0].mean()),
        "(I+, Q+), query alone": float(np.mean([right(i, 0, False) for i in range(n)])),
        "all three contexts (strict)": float(with_instruction.all(axis=1).mean()),
    }


def deciding_examples(rows: Rows) -> list[dict[str, Any]]:
    """A rejected row for every reason of the judge and the rules, the first by hash."""
    found = []
    for reason in sorted(set(rows.rejected["reason"].to_pylist())):
        found += drawn(rows.rejected.filter(pc.field("reason") == reason), 1)
    return found


def browsed(rows: Rows) -> list[dict[str, Any]]:
    """The rows of the browser: half accepted, half rejected where there are so many, spread over dimensions and reasons."""
    half = BROWSED // 2
    rejected = _spread(rows.rejected, "reason", max(half, BROWSED - rows.accepted.num_rows))
    return _spread(rows.accepted, "dimension", BROWSED - len(rejected)) + rejected


def _spread(table: pa.Table, column: str, size: int) -> list[dict[str, Any]]:
    names = sorted(set(table[column].to_pylist()))
    queues = [drawn(table.filter(pc.field(column) == name), size, "browse") for name in names]
    taken: list[dict[str, Any]] = []
    for turn in range(size):
        taken += [queue[turn] for queue in queues if turn < len(queue)]
        if len(taken) >= size:
            break
    return taken[:size]


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """5 %, median, 95 %."""
    found = np.array(list(values))
    if not len(found):
        return {"low": 0.0, "median": 0.0, "high": 0.0}
    low, median, high = np.percentile(found, [5, 50, 95])
    return {"low": float(low), "median": float(median), "high": float(high)}
