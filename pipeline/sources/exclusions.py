"""Queries of benchmarks that must not become seeds, and when a query equals or nearly equals one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.measures.overlap import fold
from pipeline.near_duplicates import DEFAULT, QueryIndex
from pipeline.sources.lines import read_blocks
from pipeline.sources.report import FileRead, SourceError, SourceReport, excerpt

MTEB: Final = "mteb:"
"""What a task of mteb is named with, where a file may stand."""


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
    """Read `qid<tab>text` lines, one query a line, or (`.jsonl`) objects with `text`, plain or `.gz`; or `mteb:TASK`.

    Raises SourceError where a file is missing or holds no query, for a line of JSON that has no text, and where a task's queries
    can't be had.
    """
    report = SourceReport("", "", "", "")
    queries: list[str] = []
    for given in paths:
        if str(given).startswith(MTEB):
            queries += _queries_of_task(str(given), report)
            continue
        path = Path(given)
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


def _queries_of_task(given: str, report: SourceReport) -> list[str]:
    """The queries of a task of mteb, all its evaluated splits and languages, without its corpus."""
    name = given.removeprefix(MTEB)
    try:
        import mteb  # noqa: PLC0415, an extra, and seconds to import
        from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader  # noqa: PLC0415
    except ImportError:
        raise SourceError(f"--exclude-queries {given} needs mteb: pip install 'inf-ir[bench]'.") from None
    try:
        task = mteb.get_task(name)
    except KeyError:
        raise SourceError(f"--exclude-queries {given}: mteb has no task of that name.") from None
    where, subsets = task.metadata.dataset, task.hf_subsets if task.metadata.is_multilingual else ["default"]
    queries: list[str] = []
    try:
        for subset in subsets:
            for split in task.eval_splits:
                loader = RetrievalDatasetLoader(where["path"], where["revision"], split=split, config=subset)
                queries += loader._load_queries(None)["text"]  # its public load() fetches the whole corpus too
    except Exception as error:  # what mteb and the Hub raise is no closed list
        first = excerpt((str(error).splitlines() or [""])[0]).rstrip(".")
        raise SourceError(
            f"--exclude-queries {given}: its queries can't be had ({type(error).__name__}: {first}). They come from the Hub, so "
            "it must be a retrieval task, and the Hub within reach or its data in the cache; a file of queries does as well."
        ) from None
    report.files.append(FileRead(f"{given}@{where['revision']}"))
    return list(dict.fromkeys(queries))


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
