"""MS MARCO's passage-ranking layout: `collection.tsv`, `queries.SPLIT.tsv`, `qrels.SPLIT.tsv`, plain, `.gz` or `.parquet`.

The judgements are read first; of queries and collection only what they name is kept, so memory follows the judged
pairs and not the collection. Blocks of lines are scanned by numpy, and whatever is odd about a line is found out in
`TextTable.sort_out`, which few lines reach: that keeps up with a database's join (benchmarks/RESULTS.md), and counts every
line that is not as it should be, which no CSV reader does.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from pipeline.sources.exclusions import Exclusions
from pipeline.sources.lines import MAX_LINE, Block, find, read_blocks
from pipeline.sources.parquet import read_rows
from pipeline.sources.report import HARMLESS, Progress, SourceError, SourceReport
from pipeline.sources.scan import Notable, Scanner, is_utf8, tabs_of_each
from pipeline.sources.source import LICENCE_UNKNOWN, Judged

_QRELS = re.compile(r"qrels\.(.+?)\.(tsv|tsv\.gz|parquet)")
_ID = re.compile(rb"[!-~]{1,128}")
_HEADER_IDS: Final = frozenset(
    (b"id", b"_id", b"qid", b"pid", b"docid", b"docno", b"query-id", b"query_id", b"corpus-id", b"passage_id")
)
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RankingFolder:
    """A folder in this layout, with the three files of one split found."""

    name: str
    split: str
    collection: Path
    queries: Path
    qrels: Path
    exclusions: Exclusions
    licence: str = LICENCE_UNKNOWN

    def read(self, progress: Progress | None = None) -> Judged:
        """Read judgements, then the queries and passages they name."""
        # A million new strings and pairs that all stay: the collector would look through them again and again for nothing.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._read(progress)
        finally:
            if collecting:
                gc.enable()

    def _read(self, progress: Progress | None) -> Judged:
        report = SourceReport(self.name, "ranking", self.split, self.licence, list(self.exclusions.files))
        judgements = _Judgements(self.qrels, report, progress)
        queries = TextTable(self.queries, "qid text", report).read(judgements.queries, progress)
        if not queries and judgements.pairs:
            judgements.explain_unmatched(self.queries)
        documents = TextTable(self.collection, "pid text", report).read(judgements.documents, progress)
        judged = Judged(report)
        for (qid, pid), number in judgements.pairs.items():
            if qid in queries and pid in documents:
                judged.pairs.append((qid, pid))
                continue
            where = f"{self.qrels.name}:{number}"
            if qid not in queries:
                report.dangling.note("query_missing", where, f"query {qid}")
            if pid not in documents:
                report.dangling.note("passage_missing", where, f"passage {pid}")
        if lost := len(judgements.pairs) - len(judged.pairs):
            report.dangling.counts["judgements"] = lost
        report.eligible = len(judged.pairs)
        if not judged.pairs:
            raise SourceError(self._why_nothing(report, positive=len(judgements.pairs)))
        judged.queries, judged.documents = queries, documents
        return judged

    def _why_nothing(self, report: SourceReport, positive: int) -> str:
        start = f"{self.name}, split {self.split}: no usable pair: "
        if not positive:
            return (
                f"{start}{self.qrels.name} holds {report.judgements:,} judgements and none has a grade of 1 or more. "
                f"Choose another --source-split."
            )
        lost = report.dangling.counts
        if lost["passage_missing"] == positive:
            why = f"point at passages that are not in {self.collection.name}"
        elif lost["query_missing"] == positive:
            why = f"point at queries that are not in {self.queries.name}"
        else:
            why = f"lack their query in {self.queries.name} or their passage in {self.collection.name}"
        return f"{start}all {positive:,} judgements {why}. Use files that belong together, or another --source-split."


def open_ranking(folder: Path, name: str, split: str, exclusions: Exclusions, licence: str) -> RankingFolder:
    """Find the three files. Raises SourceError that names what is missing and the splits that are there."""
    found = (_QRELS.fullmatch(path.name) for path in folder.glob("*"))
    splits = sorted({match[1] for match in found if match})
    if not splits:
        raise SourceError(
            f"{name} is no MS MARCO passage-ranking folder: no qrels.SPLIT.tsv in it. "
            f"For QA-format data give the .json, .jsonl or .parquet file itself as --source."
        )
    if split not in splits:
        raise SourceError(f"{name} has no split {split!r} (no qrels.{split}.tsv); it has: {', '.join(splits)}.")
    wanted = {kind: find(folder, kind) for kind in ("collection.tsv", f"queries.{split}.tsv", f"qrels.{split}.tsv")}
    missing = [kind for kind, path in wanted.items() if path is None]
    if missing:
        raise SourceError(
            f"{name} lacks {' and '.join(missing)} (plain, .gz or .parquet), which split {split!r} needs; "
            f"splits there: {', '.join(splits)}."
        )
    collection, queries, qrels = (path for path in wanted.values() if path)
    return RankingFolder(name, split, collection, queries, qrels, exclusions, licence)


def text_columns(names: Sequence[str]) -> list[str]:
    """Of a parquet file of texts: the first column is the id, the text is the one named so, else the second."""
    if len(names) < 2:
        raise SourceError(f"a parquet file of texts needs the columns id and text, this one has {', '.join(names)}.")
    return [names[0], "text" if "text" in names[1:] else names[1]]


class _Table:
    """What both kinds of file share: telling what is wrong with a line, and refusing a file that is mostly wrong."""

    def __init__(self, path: Path, expected: str, report: SourceReport) -> None:
        self.path, self.expected, self.report = path, expected, report
        self.wrong = 0
        self.first_wrong = ""

    def malformed(self, kind: str, number: int, line: bytes, meaning: str = "") -> None:
        """Count a malformed line; `meaning` says it in words for the sentence that refuses the file."""
        where = f"{self.path.name}:{number}"
        self.report.malformed.note(kind, where, line)
        if kind not in HARMLESS:
            self.wrong += 1
            self.first_wrong = self.first_wrong or f"{where}: {meaning or kind.replace('_', ' ')}"

    def strip(self, number: int, line: bytes) -> bytes | None:
        """The line without what is only around it; None where there is no line to read."""
        if len(line) > MAX_LINE:
            self.malformed("overlong", number, line, f"a line of more than {MAX_LINE:,} bytes")
            return None
        if number == 1 and line.startswith(_BOM):
            self.malformed("byte_order_mark", number, line)
            line = line.removeprefix(_BOM)
        if line.endswith(b"\r"):
            self.malformed("crlf", number, line)
            line = line[:-1]
        if not line.strip():
            self.malformed("empty_line", number, line)
            return None
        return line

    def columns(self, number: int, line: bytes, found: int, kind: str = "columns") -> None:
        """Count a line with the wrong number of columns."""
        names = self.expected.split()
        self.malformed(kind, number, line, f"{found} columns, expected {len(names)} ({self.expected})")

    def finish(self, hint: str) -> None:
        """Raise SourceError if more than half of the file's lines are malformed."""
        lines = self.report.lines[self.path.name]
        if self.wrong * 2 > lines:
            raise SourceError(f"{self.first_wrong}. {self.wrong:,} of {lines:,} lines are malformed. {hint}")


class TextTable(_Table):
    """A file of ids and texts: queries or the collection."""

    def read(self, wanted: set[str], progress: Progress | None) -> dict[str, str]:
        """The texts of the wanted ids, as they stand. Of several texts for an id the smallest is kept.

        Every line is counted and checked, wanted or not; repeated ids are noticed among the wanted.
        """
        found: dict[str, str] = {}
        if self.path.suffix == ".parquet":
            self._read_parquet(found, wanted, progress)
            return found
        scanner = Scanner(wanted)
        for block in read_blocks(self.path, self.report, progress):
            if not block.plain:
                for number, line in enumerate(block.lines, block.first):
                    self._keep(found, wanted, number, self.sort_out(number, line))
                continue
            notable = scanner.notable(block.data, block.ends)
            if not self._kept_all(found, block.data, notable):
                for place, start, end in zip(notable.places, notable.starts, notable.ends, strict=True):
                    number, line = block.first + place, block.data[start:end]
                    self._keep(found, wanted, number, _plain_pair(line) or self.sort_out(number, line))
        self.finish(f"Is this file separated by tabs, with the columns {self.expected}?")
        return found

    def _kept_all(self, found: dict[str, str], data: bytes, notable: Notable) -> bool:
        """Keep the texts of wanted lines, if all are plainly fine and new: False for others, of which none is kept."""
        if notable.ids and min(notable.ids) < 0:
            return False
        names = map(sys.intern, map(str, notable.ids))  # interned: the judgements' and the texts' keys are one string
        texts = (data[tab + 1 : end].decode("utf-8") for tab, end in zip(notable.tabs, notable.ends, strict=True))
        fresh = dict(zip(names, texts, strict=True))
        if len(fresh) < len(notable.ids) or not found.keys().isdisjoint(fresh):
            return False
        found.update(fresh)
        return True

    def _keep(self, found: dict[str, str], wanted: set[str], number: int, pair: tuple[bytes, bytes] | None) -> None:
        """Keep a line's text if its id is wanted."""
        if pair and (name := sys.intern(pair[0].decode("ascii"))) in wanted:
            text = pair[1].decode("utf-8")
            found[name] = self._repeated(number, pair[0], text, found[name]) if name in found else text

    def _read_parquet(self, found: dict[str, str], wanted: set[str], progress: Progress | None) -> None:
        for number, (key, text) in read_rows(self.path, text_columns, self.report, progress):
            if not _ID.fullmatch(key):
                self.malformed("bad_id", number, key, f"the id is not a plain token ({self.expected})")
            elif not text.strip():
                self.malformed("empty_text", number, key)
            elif len(text) > MAX_LINE:
                self.malformed("overlong", number, text, f"a text of more than {MAX_LINE:,} bytes")
            else:
                self._keep(found, wanted, number, (key, text))
        self.finish(f"Are the first two columns of this file {self.expected}?")

    def sort_out(self, number: int, line: bytes) -> tuple[bytes, bytes] | None:
        """What is odd about a line, counted; its id and text if they can be used all the same."""
        stripped = self.strip(number, line)
        if stripped is None:
            return None
        key, tab, text = stripped.partition(b"\t")
        if number == 1 and key.strip().lower() in _HEADER_IDS:
            self.malformed("header", number, line)
        elif not tab:
            self.columns(number, line, 1)
        elif not is_utf8(stripped):
            self.malformed("bad_utf8", number, line, "not UTF-8")
        elif not _ID.fullmatch(key):
            self.malformed("bad_id", number, line, f"the id is not a plain token ({self.expected})")
        elif not text.strip():
            self.malformed("empty_text", number, line)
        else:
            if b"\t" in text:
                self.columns(number, line, stripped.count(b"\t") + 1, "tabs_in_text")
            return key, text
        return None

    def _repeated(self, number: int, key: bytes, text: str, before: str) -> str:
        same = text == before
        kind = "id_with_the_same_text" if same else "id_with_another_text"
        self.report.duplicates.note(kind, f"{self.path.name}:{number}", key)
        return min(text, before)


class _Judgements(_Table):
    """The judgements of a split: `qid 0 pid grade`, between tabs or spaces, or three columns under a BEIR header."""

    def __init__(self, path: Path, report: SourceReport, progress: Progress | None) -> None:
        super().__init__(path, "qid 0 pid grade", report)
        self.pairs: dict[tuple[str, str], int] = {}
        """Pairs judged relevant and the line each first stands in."""
        self.queries: set[str] = set()
        self.documents: set[str] = set()
        self._odd_second = 0
        self._first_odd_second = ""
        if path.suffix == ".parquet":
            for number, cells in read_rows(path, lambda names: names, report, progress):
                if len(cells) == 3:
                    self.expected = "qid pid grade"
                for judgement in self._judgement(number, cells, b"\t".join(cells)):
                    self._take(number, *judgement)
        else:
            for block in read_blocks(path, report, progress):
                if self._took_usual(block):
                    continue
                for number, line in enumerate(block.lines, block.first):
                    for judgement in self._parse(number, line):
                        self._take(number, *judgement)
        self.finish("Is this the file of judgements, one in a line?")
        if self._odd_second * 2 > report.judgements:
            raise SourceError(
                f"{self._first_odd_second}, expected 0 (qid 0 pid grade). Put the file's columns in this order."
            )
        if not report.judgements:
            raise SourceError(f"{path.name} holds no judgement (qid 0 pid grade).")

    def _took_usual(self, block: Block) -> bool:
        """Take a block in which every line is a new `qid 0 pid 1` between tabs, as MS MARCO's are; False for any other."""
        if not (block.plain and b" " not in block.data and tabs_of_each(block.data, block.ends, 3)):
            return False
        cells = block.data.split()
        queries, zeros, documents, grades = (cells[column::4] for column in range(4))
        if not (
            len(cells) == 4 * len(block.ends)
            and set(zeros) == {b"0"}
            and set(grades) == {b"1"}
            and all(map(bytes.isalnum, queries))
            and all(map(bytes.isalnum, documents))
        ):
            return False
        pairs = zip(_interned(queries), _interned(documents), strict=True)
        fresh = dict(zip(pairs, count(block.first)))
        if len(fresh) < len(queries) or not self.pairs.keys().isdisjoint(fresh):
            return False
        self.report.judgements += len(fresh)
        self.pairs.update(fresh)
        self.queries.update(query for query, _ in fresh)
        self.documents.update(document for _, document in fresh)
        return True

    def _parse(self, number: int, line: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        stripped = self.strip(number, line)
        if stripped is None:
            return
        cells = stripped.split(b"\t") if b"\t" in stripped else stripped.split()
        if number == 1 and cells[0].strip().lower() in _HEADER_IDS:
            self.malformed("header", number, line)
            if len(cells) == 3:
                self.expected = "qid pid grade"
            return
        yield from self._judgement(number, cells, line)

    def _judgement(self, number: int, cells: list[bytes], line: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        if len(cells) != len(self.expected.split()):
            self.columns(number, line, len(cells))
            return
        qid, pid, grade = cells[0], cells[-2], cells[-1]
        if not (_ID.fullmatch(qid) and _ID.fullmatch(pid)):
            self.malformed("bad_id", number, line, f"an id is not a plain token ({self.expected})")
        elif not re.fullmatch(rb"[+-]?[0-9]{1,9}", grade.strip()):
            self.malformed("bad_grade", number, line, f"the grade is not a whole number ({self.expected})")
        else:
            if len(cells) == 4 and cells[1] not in (b"0", b"Q0"):
                self._odd_second += 1
                self._first_odd_second = self._first_odd_second or (
                    f"{self.path.name}:{number}: the second column is {cells[1].decode('ascii', 'replace')[:20]!r}"
                )
            yield qid, pid, int(grade)

    def _take(self, number: int, qid: bytes, pid: bytes, grade: int) -> None:
        self.report.judgements += 1
        if grade <= 0:
            self.report.not_relevant += 1
            return
        pair = sys.intern(qid.decode("ascii")), sys.intern(pid.decode("ascii"))
        if self.pairs.setdefault(pair, number) != number:
            self.report.duplicates.note("judgement", f"{self.path.name}:{number}", qid + b" " + pid)
            return
        self.queries.add(pair[0])
        self.documents.add(pair[1])

    def explain_unmatched(self, queries: Path) -> None:
        """Raise SourceError if no query id matches but the passage ids do: the columns are swapped."""
        scratch = SourceReport("", "", "", "")
        if TextTable(queries, "qid text", scratch).read(self.documents, None):
            raise SourceError(
                f"{self.path.name}:{min(self.pairs.values())}: no query id (column 1) is in {queries.name}, but "
                f"passage ids (column 3) are. Are the columns swapped? Expected: qid 0 pid grade."
            )


def _interned(ids: Sequence[bytes]) -> Iterator[str]:
    return map(sys.intern, b" ".join(ids).decode("ascii").split(" "))


def _plain_pair(line: bytes) -> tuple[bytes, bytes] | None:
    """Id and text of a line of a plain block with nothing odd about it."""
    key, _, text = line.partition(b"\t")
    fine = key.isalnum() and text and not text.isspace() and b"\t" not in text and is_utf8(line)
    return (key, text) if fine else None
