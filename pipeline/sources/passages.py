"""Every passage that a source holds, judged or not: what hard negatives are mined from."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.sources.lines import MAX_LINE, read_blocks
from pipeline.sources.parquet import read_rows
from pipeline.sources.qa import QaFile, QaReader
from pipeline.sources.ranking import RankingFolder, text_columns
from pipeline.sources.report import Progress, SourceError, SourceReport
from pipeline.sources.source import Source

Take = Callable[[str, str], None]
"""Takes a passage's id and its text as read."""


def read_passages(source: Source, take: Take, progress: Progress | None = None) -> None:
    """Read the source once more, for its passages. Lines that can't be used were counted by the reading before: left out here.

    An id may come more than once. Raises SourceError for a stream, which may not give the same passages twice.
    """
    scratch = SourceReport("", "", "", "")
    if isinstance(source, RankingFolder) and source.collection.suffix == ".parquet":
        for _, (key, text) in read_rows(source.collection, text_columns, scratch, progress):
            take(key.decode("utf-8"), text.decode("utf-8"))
    elif isinstance(source, RankingFolder):
        for block in read_blocks(source.collection, scratch, progress):
            for line in block.lines:
                _take_line(line, take)
    elif isinstance(source, QaFile):
        source.read_into(_Passages(scratch, take), progress)
    else:
        check_mineable(source)


def check_mineable(source: Source) -> None:
    """Raise SourceError for a source whose passages can't be read: what the run would find out too late."""
    if not isinstance(source, RankingFolder | QaFile):
        raise SourceError(
            "--mine reads the passages of the source a second time, which a stream from the Hub can't promise to give again: "
            "download the data set and give its file as --source."
        )


def _take_line(line: bytes, take: Take) -> None:
    key, tab, text = line.rstrip(b"\r").partition(b"\t")
    if tab and key and len(line) <= MAX_LINE:
        try:
            take(key.decode("ascii"), text.decode("utf-8"))
        except UnicodeDecodeError:
            return


class _Passages(QaReader):
    """Takes the passages of records where the reader of seeds takes pairs."""

    def __init__(self, report: SourceReport, take: Take) -> None:
        super().__init__(report)
        self._take_passage = take

    def _take_record(self, query_id: str, query: str, passages: list[tuple[bool, str]], where: str) -> None:  # noqa: ARG002
        for _, text in passages:
            self._take_passage(self.passage_id(text), text)
