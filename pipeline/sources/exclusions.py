"""Queries of benchmarks that must not become seeds, and when a query equals or nearly equals one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.measures.overlap import fold
from pipeline.near_duplicates import DEFAULT, QueryIndex
from pipeline.sources.lines import read_blocks
from pipeline.sources.report import FileRead, SourceError, SourceReport, excerpt


class Exclusions:
    """The queries to keep out, folded. `files` are the files they came from.

    threshold: the Jaccard of content words from which a query nearly equals one of them.
    """

    def __init__(self, queries: Sequence[str] = (), files: Sequence[FileRead] = (), threshold: float = DEFAULT) -> None:
        self.files = tuple(files)
        self._queries = sorted({folded for query in queries if (folded := fold(query))})
        self._folded = frozenset(self._queries)
        self._index = QueryIndex(threshold, self._queries)
        for folded in self._queries:
            self._index.add(self._index.sketch(folded))

    def __len__(self) -> int:
        return len(self._folded)

    def match(self, query: str) -> bool:
        """Whether the query equals one of them, or nearly: by its content words after stemming, in any order."""
        if not self._folded:
            return False
        proposed = self._index.proposed(self._index.sketch(query))
        return fold(query) in self._folded or any(self._index.alike(query, self._queries[i]) for i in proposed)


def read_exclusions(paths: Sequence[str | Path], threshold: float = DEFAULT) -> Exclusions:
    """Read `qid<tab>text` lines, one query a line, or (`.jsonl`) objects with `text`; plain or `.gz`.

    Raises SourceError where a file is missing or holds no query, and for a line of JSON that has no text.
    """
    report = SourceReport("", "", "", "")
    queries: list[str] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise SourceError(f"The file of queries to exclude, {path.name}, is not there.")
        before = len(queries)
        is_json = path.name.removesuffix(".gz").endswith(".jsonl")
        for block in read_blocks(path, report, None):
            for number, line in enumerate(block.lines, block.first):
                if line.strip():
                    queries.append(_query(line, f"{path.name}:{number}", is_json))
        if len(queries) == before:
            raise SourceError(f"The file of queries to exclude, {path.name}, is empty.")
    return Exclusions(queries, report.files, threshold)


def _query(line: bytes, where: str, is_json: bool) -> str:
    try:
        text = line.decode("utf-8-sig")
        if not is_json:
            return text.rpartition("\t")[2]
        record = json.loads(text)
        if isinstance(record, dict) and isinstance(record.get("text"), str):
            return str(record["text"])
    except (ValueError, RecursionError):
        pass
    expected = 'an object with "text"' if is_json else "UTF-8"
    raise SourceError(f"{where}: a query to exclude can't be read, expected {expected}: {excerpt(line)}")
