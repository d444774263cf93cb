"""Queries of benchmarks that must not become seeds, and when a query equals or nearly equals one of them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import Stemmer

from pipeline.sources.lines import read_blocks
from pipeline.sources.report import FileRead, SourceError, SourceReport, excerpt

_NOT_WORDS = re.compile(r"[\W_]+")
# Words that a query can gain or lose and still ask the same. Those that change the question (who, when, how) stay.
_EMPTY: Final = """a an and are be been can could did do does for from give i in is it its me my of on or please should
    tell that the their there this to was were what whats which will with would you your"""
_EMPTY_WORDS: Final = frozenset(_EMPTY.split())


def fold(query: str) -> str:
    """The query in lower case with anything between words as one space: equal for queries that differ in looks only."""
    return _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", query).casefold()).strip()


@cache
def _stemmer() -> Stemmer.Stemmer:
    return Stemmer.Stemmer("english")


class Exclusions:
    """The queries to keep out, folded. `files` are the files they came from."""

    def __init__(self, queries: Sequence[str] = (), files: Sequence[FileRead] = ()) -> None:
        self.files = tuple(files)
        self._folded = {folded for query in queries if (folded := fold(query))}
        self._stems = {stems for folded in self._folded if (stems := _stems(folded))}

    def __len__(self) -> int:
        return len(self._folded)

    def match(self, query: str) -> bool:
        """Whether the query equals one of them, or has the same content words after stemming, in any order."""
        if not self._folded:
            return False
        folded = fold(query)
        return folded in self._folded or _stems(folded) in self._stems


def _stems(folded: str) -> frozenset[str]:
    words = [word for word in folded.split() if word not in _EMPTY_WORDS]
    return frozenset(_stemmer().stemWords(words))


def read_exclusions(paths: Sequence[str | Path]) -> Exclusions:
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
    return Exclusions(queries, report.files)


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
