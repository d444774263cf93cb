"""MS MARCO's QA format, v1.1 and v2.1: `.jsonl`, column-oriented `.json` (both also as `.gz`), `.parquet`.

A record has a query, its id and about ten passages with `is_selected`; each selected passage makes a pair.
Lines and parquet are read piece by piece; a column-oriented `.json` is one value and stands in memory whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.sources.exclusions import Exclusions
from pipeline.sources.lines import MAX_LINE, read_blocks, read_chunks
from pipeline.sources.parquet import ROWS, open_parquet
from pipeline.sources.report import Progress, SourceError, SourceReport
from pipeline.sources.source import LICENCE_UNKNOWN, Judged

COLUMNS: Final = ("query", "query_id", "passages")
SUFFIXES: Final = (".json", ".jsonl", ".parquet", ".json.gz", ".jsonl.gz")


class QaReader:
    """Takes records of any origin and builds pairs: the one place that knows what a record looks like."""

    def __init__(self, report: SourceReport) -> None:
        self.report = report
        self.judged = Judged(report)
        self._pairs: dict[tuple[str, str], None] = {}
        self._records = 0
        self._wrong = 0
        self._first_wrong = ""

    def malformed(self, kind: str, where: str, data: str | bytes, meaning: str) -> None:
        """Count a record that can't be used."""
        self.report.malformed.note(kind, where, data)
        self._records += 1
        self._wrong += 1
        self._first_wrong = self._first_wrong or f"{where}: {meaning}"

    def take(self, record: object, where: str) -> None:
        """Take a record's pairs, or count what is wrong with it."""
        try:
            query_id, query, passages = _parts(record)
        except (KeyError, TypeError, ValueError) as error:
            missing = f"no field {error}" if isinstance(error, KeyError) else str(error)
            self.malformed("wrong_shape", where, json.dumps(record, default=str)[:200], missing)
            return
        if not query.strip():
            self.malformed("empty_text", where, f"query {query_id}", "an empty query")
            return
        self._records += 1
        self._take_record(query_id, query, passages, where)

    def _take_record(self, query_id: str, query: str, passages: list[tuple[bool, str]], where: str) -> None:
        for selected, text in passages:
            self.report.judgements += 1
            if not selected:
                self.report.not_relevant += 1
            elif not text.strip():
                self.report.malformed.note("empty_text", where, f"passage of query {query_id}")
            else:
                self._take_pair(query_id, query, text, where)

    @staticmethod
    def passage_id(text: str) -> str:
        """Passages have no id of their own in this format: the hash of their text."""
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def _take_pair(self, query_id: str, query: str, text: str, where: str) -> None:
        document_id = self.passage_id(text)
        if (query_id, document_id) in self._pairs:
            self.report.duplicates.note("judgement", where, f"{query_id} {document_id}")
        self._pairs[query_id, document_id] = None
        before = self.judged.queries.setdefault(query_id, query)
        if before != query:
            self.report.duplicates.note("id_with_another_text", where, query_id)
            self.judged.queries[query_id] = min(before, query)
        self.judged.documents[document_id] = text

    def finish(self, name: str) -> Judged:
        """The pairs. Raises SourceError if there is none or most records are malformed."""
        self.report.lines.setdefault(name, self._records)
        if self._wrong * 2 > self._records:
            raise SourceError(
                f"{self._first_wrong}. {self._wrong:,} of {self._records:,} records are malformed. "
                f"Is this MS MARCO's QA format (query, query_id, passages with is_selected)?"
            )
        self.judged.pairs = list(self._pairs)
        self.report.eligible = len(self.judged.pairs)
        if not self.judged.pairs:
            raise SourceError(
                f"{name}: no usable pair: {self._records:,} records hold {self.report.judgements:,} passages and none "
                f"is selected. Test splits are published without judgements; choose another file or --source-split."
            )
        return self.judged


def _parts(record: object) -> tuple[str, str, list[tuple[bool, str]]]:
    """Query id, query, passages. Raises KeyError, TypeError or ValueError where the record is not of this format."""
    if not isinstance(record, Mapping):
        raise TypeError("a record is not an object")
    query_id, query, passages = record["query_id"], record["query"], record["passages"]
    if isinstance(query_id, bool) or not isinstance(query_id, int | str) or not isinstance(query, str):
        raise TypeError("query_id is not a number or token, or query is not text")
    if not (token := str(query_id)).isprintable() or not token or " " in token or len(token) > 128:
        raise ValueError("query_id is not a plain token")
    if isinstance(passages, Mapping):  # as `datasets` stores it: one object of lists
        selected, texts = passages["is_selected"], passages["passage_text"]
        if not _is_list(selected) or not _is_list(texts) or len(selected) != len(texts):
            raise ValueError("is_selected and passage_text are not lists of one length")
        passages = [{"is_selected": s, "passage_text": t} for s, t in zip(selected, texts, strict=True)]
    if not _is_list(passages):
        raise TypeError("passages is not a list")
    return token, query, [_passage(passage) for passage in passages]


def _passage(passage: Any) -> tuple[bool, str]:
    selected, text = passage["is_selected"], passage["passage_text"]
    if selected not in (0, 1) or not isinstance(text, str):
        raise ValueError("is_selected is not 0 or 1, or passage_text is not text")
    return bool(selected), text


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


@dataclass(frozen=True)
class QaFile:
    """One file in QA format. It is one split; which one, its name tells, not its content."""

    path: Path
    split: str
    exclusions: Exclusions

    def read(self, progress: Progress | None = None) -> Judged:
        """Read it all, keeping the selected passages only."""
        name = self.path.name
        report = SourceReport(name, "qa", self.split, LICENCE_UNKNOWN, list(self.exclusions.files))
        reader = QaReader(report)
        self.read_into(reader, progress)
        return reader.finish(name)

    def read_into(self, reader: QaReader, progress: Progress | None) -> None:
        """Hand every record to a reader."""
        name = self.path.name
        if name.endswith(".parquet"):
            self._read_parquet(reader, progress)
        elif name.endswith((".jsonl", ".jsonl.gz")):
            self._read_lines(reader, progress)
        else:
            self._read_json(reader, progress)

    def _read_lines(self, reader: QaReader, progress: Progress | None) -> None:
        for block in read_blocks(self.path, reader.report, progress):
            for number, line in enumerate(block.lines, block.first):
                self._take_line(reader, number, line)

    def _take_line(self, reader: QaReader, number: int, line: bytes) -> None:
        where = f"{self.path.name}:{number}"
        if len(line) > MAX_LINE:
            reader.malformed("overlong", where, line, f"a line of more than {MAX_LINE:,} bytes")
        elif not line.strip():
            reader.report.malformed.note("empty_line", where)
        else:
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                reader.malformed("bad_utf8", where, line, "not UTF-8")
            except (ValueError, RecursionError) as error:
                reader.malformed("bad_json", where, line, f"not JSON ({error})")
            else:
                reader.take(record, where)

    def _read_json(self, reader: QaReader, progress: Progress | None) -> None:
        data = b"".join(read_chunks(self.path, reader.report, progress))
        try:
            content = json.loads(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise SourceError(f"{self.path.name}:{line}: not UTF-8. Is this a JSON file?") from None
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise SourceError(
                    f"{self.path.name}:{error.lineno}: not JSON ({error.msg}). Was the file fetched to its end?"
                ) from None
            # v1.1 was published as .json files with a record in each line.
            for line_number, text in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
                self._take_line(reader, line_number, text)
            return
        except RecursionError:
            raise SourceError(f"{self.path.name}: nested too deeply to be MS MARCO's QA format.") from None
        for where, record in self._records(content):
            reader.take(record, where)

    def _records(self, content: Any) -> Iterator[tuple[str, object]]:
        name = self.path.name
        if isinstance(content, list):
            yield from ((f"{name}: record {i}", record) for i, record in enumerate(content))
            return
        if not isinstance(content, dict) or any(not isinstance(content.get(c), dict) for c in COLUMNS):
            if isinstance(content, dict) and isinstance(content.get("query"), str):
                yield f"{name}: record 0", content
                return
            raise SourceError(
                f"{name} is not MS MARCO's QA format: expected the columns {', '.join(COLUMNS)}, "
                f"each an object of one value a record."
            )
        for key in content["query_id"]:
            yield f"{name}: record {key}", {c: content[c][key] for c in COLUMNS if key in content[c]}

    def _read_parquet(self, reader: QaReader, progress: Progress | None) -> None:
        name = self.path.name
        with open_parquet(self.path, reader.report) as file:
            if missing := [c for c in COLUMNS if c not in file.schema_arrow.names]:
                raise SourceError(f"{name} is not MS MARCO's QA format: it has no column {' or '.join(missing)}.")
            number = 0
            for batch in file.iter_batches(ROWS, columns=list(COLUMNS)):
                for record in batch.to_pylist():
                    reader.take(record, f"{name}: record {number}")
                    number += 1
                if progress:
                    progress(f"reading {name}", number, file.metadata.num_rows)
