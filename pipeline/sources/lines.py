"""Files as blocks of lines: plain or gzip, hashed on the way, in memory that does not follow the length of a line."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.report import FileRead, Progress, SourceError, SourceReport

CHUNK: Final = 1 << 20
_LINE_FEED: Final = 10
MAX_LINE: Final = 1_000_000
"""Bytes. The longest passage of MS MARCO is under 2 kB; a line this long is a broken file, not a text."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines. `first` is the number of the first, from 1.

    plain: no line in it is overlong or ends in `\\r`, and it is not the file's first line, so that
    only its encoding and its columns can be wrong.
    A line over MAX_LINE is cut, and stays longer than MAX_LINE.
    """

    first: int
    data: bytes
    ends: NDArray[np.int64]
    """Where in the data the `\\n` of each line is."""
    plain: bool

    @property
    def lines(self) -> list[bytes]:
        """Its lines without their `\\n`."""
        return self.data[:-1].split(b"\n")


def find(folder: Path, name: str) -> Path | None:
    """The file `name` in the folder, else `name.gz`, else the parquet file in the place of the `.tsv`."""
    names = (name, f"{name}.gz", f"{name.removesuffix('.tsv')}.parquet")
    return next((p for p in (folder / n for n in names) if p.is_file()), None)


class Hashed:
    """A file opened for reading that counts what it hands out, and hashes it on a thread, while the reader goes on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "hash")
        self._hashing: Future[None] | None = None
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        data = self._file.read(size)
        self._finish()
        self._hashing = self._thread.submit(self._hash.update, data)
        self.bytes += len(data)
        return data

    def sha256(self) -> str:
        """Of everything read so far, in hex."""
        self._finish()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _finish(self) -> None:
        if self._hashing:
            self._hashing.result()


def read_chunks(path: Path, report: SourceReport, progress: Progress | None) -> Iterator[bytes]:
    """The file's bytes, unzipped, in chunks of at most CHUNK; its size and hash are added to the report at the end.

    Raises SourceError where the file can't be read or its gzip is broken: nothing read from it may be used then.
    """
    try:
        total = path.stat().st_size
        with path.open("rb") as raw, closing(Hashed(raw)) as hashed:
            # GzipFile needs no more of a file than read().
            data = gzip.GzipFile(fileobj=cast(BinaryIO, hashed)) if path.suffix == ".gz" else hashed
            while chunk := data.read(CHUNK):
                if progress:
                    progress(f"reading {path.name}", hashed.bytes, total)
                yield chunk
            report.files.append(FileRead(path.name, hashed.bytes, hashed.sha256()))
    except EOFError:
        raise SourceError(
            f"{path.name} ends in the middle of its gzip stream; nothing of it is used. Fetch the file again."
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(
            f"{path.name} is not a sound gzip file ({error}); nothing of it is used. Fetch the file again."
        ) from None
    except OSError as error:
        raise SourceError(f"{path.name} can't be read: {error.strerror or error}.") from None
    except Exception as error:
        if isinstance(path, Path):
            raise
        # every store has errors of its own, and what was read of the file is not whole
        raise SourceError(
            f"{path.name} can't be read to its end ({type(error).__name__}); start the run again."
        ) from None


def read_blocks(path: Path, report: SourceReport, progress: Progress | None) -> Iterator[Block]:
    r"""The file's lines, split at `\n` alone: passages hold U+0085 and U+2028, which are no line ends here."""
    rest, number = b"", 1
    for chunk in read_chunks(path, report, progress):
        cut = chunk.rfind(b"\n")
        if cut < 0:
            rest = (rest + chunk)[: MAX_LINE + 1]
            continue
        data = b"".join((rest, memoryview(chunk)[: cut + 1]))
        rest = chunk[cut + 1 :][: MAX_LINE + 1]
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _LINE_FEED)
        if number == 1:  # the first line alone, so that the rest of its chunk can be plain
            first, number = int(ends[0]) + 1, 2
            yield Block(1, data[:first], ends[:1], plain=False)
            data, ends = data[first:], ends[1:] - first
        if len(ends):
            yield Block(number, data, ends, plain=not _is_odd(data, int(ends[0])))
            number += len(ends)
    if rest:
        yield Block(number, rest + b"\n", np.array([len(rest)]), plain=False)
        number += 1
    report.lines[path.name] = number - 1


def _is_odd(data: bytes, first_end: int) -> bool:
    # Only the first line can begin before the chunk: only it can be overlong.
    # Looking for a single byte is ten times as fast as for two: most blocks end the search there.
    return first_end > MAX_LINE or (b"\r" in data and b"\r\n" in data)
