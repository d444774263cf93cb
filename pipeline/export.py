"""`python -m pipeline.export OUTPUT --format F --to DIR`: shards in the layouts that trainers read without a line of code.

Rows are read and written in batches, split by split, so memory does not grow with the data set, but for the passages' ids in a
corpus (beir, mteb). The folder is written aside and renamed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jsonlines
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline import manifest as manifests
from pipeline.commandline import Parser
from pipeline.errors import UsageError
from pipeline.records import (
    CONTEXTS,
    DOCUMENT,
    HARD_NEGATIVE_DOCUMENT_2,
    MINED_DOCUMENTS,
    MINED_RELEVANCE,
    PASSAGES,
    QUERY_POSITIVE,
    SPLITS,
    TEXT_COLUMNS,
)
from pipeline.shards import read_shard

BATCH = 1000

EPILOG = """\
example:
  python -m pipeline.export data/infir --format sentence-transformers --to data/st
  then: load_dataset("parquet", data_files={"train": "data/st/train.parquet"}) goes to SentenceTransformerTrainer as it is

formats:
  inf-ir                 JSONL of the seven columns, as the authors' trainer reads them
  tevatron               JSONL: query_id, query, positive_passages, negative_passages (docid, title, text); the query holds
                         query and instruction, query first, as Promptriever's set does, and both apart in columns of their
                         own; the instruction negative stands first (--negatives_first_n 1)
  sentence-transformers  parquet: anchor, positive, negative_1, negative_2; with --mined also SPLIT-mined.parquet: anchor,
                         positive, negative, a row for each mined passage, since columns must be as many in every row (give
                         the trainer both, {"tuples": …, "mined": …}, and batch_sampler="no_duplicates")
  flagembedding          JSONL: query, pos, neg, prompt (the instruction)
  beir                   corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv; a query is query and instruction
  mteb                   FollowIR's layout: query pairs QID-og (I+) and QID-changed (I-), instructions apart, and
                         qrel_diff.jsonl, the documents whose relevance the altered instruction removed: mteb computes p-MRR

Training rows are three a tuple: (I+, Q+) with P+, (I-, Q+) with P-1, (I+, Q-) with P-2, each with the other two as negatives.
--no-instructions leaves only (Q+, P+), with the negatives of Q+ alone: the plain retrieval set for an ablation.

--mined adds what pipeline.run --mine found: passages of the source as further negatives of (I+, Q+) (of Q+ without
instructions), behind the tuple's own (tevatron, flagembedding), in a file of their own (sentence-transformers), or as
documents of the corpus that are relevant to no query (beir, mteb). One that the judge grades relevant is never among them; a
corpus leaves it out for all queries. inf-ir has no place for them.
"""

MINED_COLUMNS = ("mined_document_ids", MINED_DOCUMENTS, MINED_RELEVANCE)
CORPORA = ("beir", "mteb")
"""Formats that hold passages apart from queries."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """A training row: a context, its own passage, the tuple's other two, the harder first, and what was mined for it.

    Passages are (id, text).
    """

    id: str
    query: str
    instruction: str | None
    positive: tuple[str, str]
    negatives: tuple[tuple[str, str], ...]
    mined: tuple[tuple[str, str], ...] = ()

    @property
    def passages(self) -> tuple[tuple[str, str], ...]:
        """All of them, the positive first."""
        return (self.positive, *self.negatives, *self.mined)

    @property
    def text(self) -> str:
        """Query first, then instruction, joined by a space."""
        return f"{self.query} {self.instruction}" if self.instruction else self.query


def pairs(row: Row, instructions: bool) -> list[Pair]:
    """The training rows of a tuple; equal texts have equal ids. Passages were mined, and graded, for the first alone."""
    passages = [(docid(row, name), row[name]) for name in PASSAGES]
    if not instructions:
        # P-1 answers Q+ too, so without the instruction it is no negative.
        return [Pair(row["id"], row[QUERY_POSITIVE], None, passages[0], (passages[2],), row["mined"])]
    made = []
    for c, (instruction, query) in enumerate(CONTEXTS):
        # The instruction negative first: it answers the same query and breaks the instruction.
        order = {0: (1, 2), 1: (0, 2), 2: (0, 1)}[c]
        negatives = tuple(passages[i] for i in order)
        mined = row["mined"] if c == 0 else ()
        made.append(Pair(f"{row['id']}-{c}", row[query], row[instruction], passages[c], negatives, mined))
    return made


def docid(row: Row, name: str) -> str:
    """The source's id of P+, and a hash for a generated passage."""
    if name == DOCUMENT:
        return str(row["document_id"])
    return "g" + hashlib.sha256(row[name].encode()).hexdigest()[:20]


class Target:
    """A folder that is being written: files open for one split, aside; `done` renames them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._aside = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        self._open = ExitStack()
        self._files: dict[str, IO[str]] = {}
        self.seen: set[bytes] = set()

    def file(self, name: str) -> IO[str]:
        """A text file under the folder, opened once; its lines end in \\n alone."""
        if name not in self._files:
            path = self._aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = self._open.enter_context(path.open("w", encoding="utf-8", newline="\n"))
        return self._files[name]

    def json(self, name: str, value: Mapping[str, Any]) -> None:
        """One line of JSON."""
        jsonlines.Writer(self.file(name), dumps=_dumps).write(value)

    def first(self, text: str) -> bool:
        """Whether an id comes for the first time: some 70 bytes an id are remembered."""
        key = hashlib.sha256(text.encode()).digest()[:8]
        new = key not in self.seen
        self.seen.add(key)
        return new

    def path(self, name: str) -> Path:
        """Where a file that a library writes by itself lies for now."""
        return self._aside / name

    def done(self) -> None:
        """Close everything and put the folder in its place."""
        self._open.close()
        if self.folder.exists():
            self.folder.rmdir()
        self._aside.rename(self.folder)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._open.close()
        shutil.rmtree(self._aside, ignore_errors=True)


def write_inf_ir(rows: Iterator[Row], split: str, target: Target, instructions: bool) -> None:
    """The seven columns."""
    columns = TEXT_COLUMNS if instructions else (QUERY_POSITIVE, DOCUMENT, HARD_NEGATIVE_DOCUMENT_2)
    target.file(f"{split}.jsonl")
    for row in rows:
        target.json(f"{split}.jsonl", {name: row[name] for name in columns})


def write_tevatron(rows: Iterator[Row], split: str, target: Target, instructions: bool) -> None:
    """`Tevatron/msmarco-passage-aug`'s columns, and Promptriever's for the instruction."""
    target.file(f"{split}.jsonl")
    for row in rows:
        for pair in pairs(row, instructions):
            passages = [{"docid": i, "title": "", "text": text} for i, text in pair.passages]
            extra = {"only_query": pair.query, "only_instruction": pair.instruction} if instructions else {}
            target.json(
                f"{split}.jsonl",
                {
                    "query_id": pair.id,
                    "query": pair.text,
                    "positive_passages": passages[:1],
                    "negative_passages": passages[1:],
                }
                | extra,
            )


def write_sentence_transformers(rows: Iterator[Row], split: str, target: Target, instructions: bool) -> None:
    """Parquet with the columns in the order that losses read: anchor, positive, negatives; mined ones one a row, apart."""
    names = ["anchor", "positive", "negative_1", *(["negative_2"] if instructions else [])]
    tuples, mined = (_schema(columns) for columns in (names, ["anchor", "positive", "negative"]))
    with ExitStack() as files:
        writer = files.enter_context(_parquet(target.path(f"{split}.parquet"), tuples))
        mined_writer = None  # a file without rows can't be loaded
        for batch in _batches(pair for row in rows for pair in pairs(row, instructions)):
            texts = [[pair.text, pair.positive[1], *(text for _, text in pair.negatives)] for pair in batch]
            writer.write_batch(_record_batch(texts, tuples))
            triplets = [[pair.text, pair.positive[1], text] for pair in batch for _, text in pair.mined]
            if triplets:
                mined_writer = mined_writer or files.enter_context(
                    _parquet(target.path(f"{split}-mined.parquet"), mined)
                )
                mined_writer.write_batch(_record_batch(triplets, mined))


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])


def _parquet(path: Path, schema: pa.Schema) -> Any:
    return pq.ParquetWriter(path, schema, compression="zstd")


def _record_batch(rows: Sequence[Sequence[str]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def write_flagembedding(rows: Iterator[Row], split: str, target: Target, instructions: bool) -> None:
    """The query, with the instruction as its prompt."""
    target.file(f"{split}.jsonl")
    for row in rows:
        for pair in pairs(row, instructions):
            positive, *negatives = (text for _, text in pair.passages)
            texts = {"query": pair.query, "pos": [positive], "neg": negatives}
            target.json(f"{split}.jsonl", texts | ({"prompt": pair.instruction} if instructions else {}))


def write_beir(rows: Iterator[Row], split: str, target: Target, instructions: bool) -> None:
    """Corpus and queries of all splits in one file each; judgements by split."""
    target.file("corpus.jsonl")
    target.file("queries.jsonl")
    qrels = target.file(f"qrels/{split}.tsv")
    qrels.write("query-id\tcorpus-id\tscore\n")
    for row in rows:
        for pair in pairs(row, instructions):
            _corpus(target, pair.passages)
            name = pair.id if instructions else row["query_id"]  # one query can have several passages
            if target.first(f"query {name}"):
                target.json("queries.jsonl", {"_id": name, "text": pair.text})
            qrels.write(f"{_field(name)}\t{_field(pair.positive[0])}\t1\n")


def write_mteb(rows: Iterator[Row], split: str, target: Target, instructions: bool) -> None:
    """FollowIR's layout: each query under its instruction (-og) and under the altered one (-changed)."""
    if not instructions:
        raise UsageError("--format mteb is about instructions; take beir with --no-instructions")
    qrels = f"qrels/{split}.jsonl"
    for name in (*MTEB_PARTS.values(), qrels):
        target.file(name)
    for row in rows:
        original, altered, _ = pairs(row, instructions=True)
        _corpus(target, original.passages)
        for name, pair in ((f"{row['id']}-og", original), (f"{row['id']}-changed", altered)):
            target.json(MTEB_PARTS["queries"], {"_id": name, "text": pair.query})
            target.json(MTEB_PARTS["instruction"], {"query-id": name, "instruction": pair.instruction})
            target.json(qrels, {"query-id": name, "corpus-id": pair.positive[0], "score": 1})
        target.json(MTEB_PARTS["qrel_diff"], {"query-id": row["id"], "corpus-ids": [original.positive[0]]})


def write_mteb_card(target: Target, splits: Sequence[str]) -> None:
    """The header by which mteb and `datasets` find the parts of FollowIR's layout, under its own names."""
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": name, "path": path}]} for name, path in MTEB_PARTS.items()
    ]
    qrels = [{"split": split, "path": f"qrels/{split}.jsonl"} for split in splits]
    configs.append({"config_name": "default", "data_files": qrels})
    target.file("README.md").write(f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n{MTEB_CARD}")


MTEB_PARTS = {name: f"{name}.jsonl" for name in ("corpus", "queries", "instruction", "qrel_diff")}
MTEB_CARD = """
FollowIR's layout (arXiv 2403.15246). A class of mteb's FollowIR tasks, such as `Core17InstructionRetrieval`, whose metadata names
this folder as its data set's path, loads it and computes p-MRR.
"""

FORMATS: dict[str, Callable[[Iterator[Row], str, Target, bool], None]] = {
    "inf-ir": write_inf_ir,
    "tevatron": write_tevatron,
    "sentence-transformers": write_sentence_transformers,
    "flagembedding": write_flagembedding,
    "beir": write_beir,
    "mteb": write_mteb,
}


def export(
    output: Path, format_: str, to: Path, splits: Sequence[str], instructions: bool, mined: bool = False
) -> dict[str, int]:
    """Write the splits of an output folder; rows read, by split. Anything unusable is a UsageError, and nothing is left."""
    made = manifests.read_output(output)
    if mined and format_ == "inf-ir":
        raise UsageError("--format inf-ir has the seven columns alone, and no place for --mined; take another format")
    if mined and not (made.get("mining") or {}).get("passages"):
        raise UsageError(
            f"{output} holds no mined passages: curate with pipeline.run --mine bm25, or leave --mined out"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to} holds files already; choose a folder that is new or empty")
    target = Target(to)
    counts = dict.fromkeys(splits, 0)
    try:
        files = {
            split: [file for file in made["files"] if file["path"].startswith(f"data/{split}-")] for split in splits
        }
        negatives = MinedNegatives(made["thresholds"]["relevant"]) if mined else None
        if negatives and format_ in CORPORA:
            negatives.leave_out_everywhere(output, [file for split in splits for file in files[split]])
        for split in splits:
            rows = _rows(output, files[split], negatives)
            FORMATS[format_](_counted(rows, counts, split), split, target, instructions)
            if counts[split] != made["splits"][split]:
                raise UsageError(
                    f"{output} holds {counts[split]} rows of {split}, its manifest says {made['splits'][split]}"
                )
        if format_ == "mteb":
            write_mteb_card(target, splits)
        target.done()
    except BaseException:
        target.abandon()
        raise
    return counts


class MinedNegatives:
    """Which mined passages of a row are negatives: all but those that the judge grades `relevant` or more."""

    def __init__(self, relevant: int) -> None:
        self._relevant = relevant
        self._nowhere: set[str] = set()

    def leave_out_everywhere(self, output: Path, files: Sequence[Mapping[str, Any]]) -> None:
        """Of passages that are right for some row of the files: in a corpus they would count as wrong for it."""
        for file in files:
            for batch in read_shard(output, file, MINED_COLUMNS):
                for row in batch.to_pylist():
                    self._nowhere |= {name for name, _, grade in self._graded(row) if self._right(grade)}

    def of(self, row: Row) -> tuple[tuple[str, str], ...]:
        """(id, text), the closest first."""
        return tuple(
            (name, text)
            for name, text, grade in self._graded(row)
            if not self._right(grade) and name not in self._nowhere
        )

    def _right(self, grade: int | None) -> bool:
        return grade is not None and grade >= self._relevant

    def _graded(self, row: Row) -> Iterator[tuple[str, str, int | None]]:
        return zip(*(row[name] or () for name in MINED_COLUMNS), strict=True)


def _rows(output: Path, files: Sequence[Mapping[str, Any]], mined: MinedNegatives | None) -> Iterator[Row]:
    """The rows, each with its mined negatives, (id, text), as `mined`: none where they are not asked for."""
    columns = ["id", "query_id", "document_id", *TEXT_COLUMNS, *(MINED_COLUMNS if mined else ())]
    for file in files:
        for batch in read_shard(output, file, columns):
            for row in batch.to_pylist():
                yield row | {"mined": mined.of(row) if mined else ()}


def _counted(rows: Iterator[Row], counts: dict[str, int], split: str) -> Iterator[Row]:
    for row in rows:
        counts[split] += 1
        yield row


def _batches(items: Iterator[Pair]) -> Iterator[list[Pair]]:
    batch: list[Pair] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _corpus(target: Target, passages: Sequence[tuple[str, str]]) -> None:
    for name, text in passages:
        if target.first(name):
            target.json("corpus.jsonl", {"_id": name, "title": "", "text": text})


def _field(text: str) -> str:
    """An id in a tab-separated line."""
    return " ".join(text.split())


def _dumps(value: Any) -> str:
    """JSON on one line for every reader: U+2028 and U+2029, which some take for line ends, are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(
        prog="python -m pipeline.export",
        description="Write the accepted rows of an output folder in the layout that a trainer or a benchmark reads.",
        epilog=EPILOG + "\nexit status: 0, or 2 with one line on what could not be used",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="an output folder of pipeline.run")
    parser.add_argument("--format", required=True, choices=list(FORMATS), metavar="FORMAT", help="one of those below")
    parser.add_argument("--to", type=Path, required=True, help="a folder that is new or empty")
    parser.add_argument(
        "--split",
        action="append",
        choices=SPLITS,
        metavar="SPLIT",
        help="train, validation or test; may be repeated (default: all)",
    )
    parser.add_argument("--no-instructions", action="store_true", help="queries alone, for the ablation")
    parser.add_argument("--mined", action="store_true", help="mined passages as further negatives (default: none)")
    options = parser.parse_args(argv)
    try:
        counts = export(
            options.output,
            options.format,
            options.to,
            options.split or SPLITS,
            not options.no_instructions,
            options.mined,
        )
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.to}: " + ", ".join(f"{n:,} rows of {split}" for split, n in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
