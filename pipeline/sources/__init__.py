"""Where seeds come from: the embedded sample, MS MARCO folders, QA-format files, data sets of the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import cast

from fsspec import available_protocols
from upath import UPath

from pipeline.near_duplicates import DEFAULT
from pipeline.sources.exclusions import Exclusions, read_exclusions
from pipeline.sources.hub import open_hub
from pipeline.sources.qa import SUFFIXES, QaFile
from pipeline.sources.ranking import open_ranking
from pipeline.sources.report import Progress, SourceError, SourceReport, summary_lines
from pipeline.sources.source import LICENCE_SAMPLE, LICENCE_UNKNOWN, Judged, Source

__all__ = [
    "Exclusions",
    "Judged",
    "Progress",
    "Source",
    "SourceError",
    "SourceReport",
    "open_source",
    "summary_lines",
]

SAMPLE = "sample"


def open_source(source: str, split: str, exclude_queries: Sequence[str | Path] = (), near: float = DEFAULT) -> Source:
    """Find the source: `sample`, a passage-ranking folder or a QA-format file, local or as `s3://…`, or `hf:REPO:CONFIG`.

    exclude_queries: files of benchmark queries that no seed may hold; they are read at once. near: the Jaccard of content words
    from which a query nearly equals one of them; 0 asks for the same content words.
    Raises SourceError for what can be seen without reading the source: what is missing, and which splits there are.
    """
    exclusions = read_exclusions(exclude_queries, near or 1.0)
    if source.startswith("hf:"):
        return open_hub(source, split, exclusions)
    if source == SAMPLE:
        return open_ranking(Path(str(files("pipeline") / "sample")), SAMPLE, split, exclusions, LICENCE_SAMPLE)
    if "://" in source:
        return _open_remote(source, split, exclusions)
    return _open_path(Path(source), source, split, exclusions)


def _open_remote(source: str, split: str, exclusions: Exclusions) -> Source:
    """A folder or file of a store that fsspec knows: s3://, gs://, hdfs://, https:// … A UPath does what is asked of a Path."""
    protocol = source.partition("://")[0]
    if protocol not in available_protocols():
        raise SourceError(f"--source {source}: fsspec knows no store {protocol}://.")
    try:
        return _open_path(cast(Path, UPath(source)), source, split, exclusions)
    except SourceError:
        raise
    except Exception as error:  # every store has errors of its own
        first = (str(error).splitlines() or [""])[0].rstrip(".")
        raise SourceError(f"--source {source} can't be reached ({type(error).__name__}: {first}).") from None


def _open_path(path: Path, source: str, split: str, exclusions: Exclusions) -> Source:
    if path.is_dir():
        return open_ranking(path, path.resolve().name, split, exclusions, LICENCE_UNKNOWN)
    if not path.is_file():
        raise SourceError(
            f"--source {source}: there is no such file or folder. Give 'sample', a folder, a file or hf:REPO:CONFIG."
        )
    if not path.name.endswith(SUFFIXES):
        raise SourceError(
            f"--source {path.name}: a file must be one of {', '.join(SUFFIXES)}, in MS MARCO's QA format."
        )
    return QaFile(path, split, exclusions)
