"""Parquet files as rows: hashed first, then read a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.report import FileRead, Progress, SourceError, SourceReport

ROWS: Final = 1_000


@contextmanager
def open_parquet(path: Path, report: SourceReport) -> Iterator[pq.ParquetFile]:
    """The file; its size and hash are added to the report. What can't be read as parquet, now or later, is a SourceError."""
    try:
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
            report.files.append(FileRead(path.name, raw.tell(), digest))
            raw.seek(0)
            with pq.ParquetFile(raw) as file:
                yield file
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path.name} can't be read as parquet: {str(error).splitlines()[0]}.") from None


def read_rows(
    path: Path, columns: Callable[[Sequence[str]], Sequence[str]], report: SourceReport, progress: Progress | None
) -> Iterator[tuple[int, list[bytes]]]:
    """Number, from 1, and cells of each row, in UTF-8, a missing one empty. columns: which of the file's columns, by name."""
    number = 0
    with open_parquet(path, report) as file:
        names = list(columns(file.schema_arrow.names))
        for batch in file.iter_batches(ROWS, columns=names):
            cells = [map(_cell, batch.column(name).to_pylist()) for name in names]
            for row in zip(*cells, strict=True):
                number += 1
                yield number, list(row)
            if progress:
                progress(f"reading {path.name}", number, file.metadata.num_rows)
    report.lines[path.name] = number


def _cell(value: Any) -> bytes:
    return b"" if value is None else str(value).encode("utf-8")
