"""Files as blocks of lines: plain or gzip, hashed on the way, in memory that does not follow the length of a line."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from pipeline.sources.report import FileRead, Progress, SourceError, SourceReport

CHUNK: Final = 1 << 20
MAX_LINE: Final = 1_000_000
"""Bytes. The longest passage of MS MARCO is under 2 kB; a line this long is a broken file, not a text."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines without their `\\n`. `first` is the number of the first, from 1.

    plain: no line in it is overlong or ends in `\\r`, and it is not the file's start, so that
    only its encoding and its columns can be wrong.
    A line over MAX_LINE is cut, and stays longer than MAX_LINE.
    """

    first: int
    lines: list[bytes]
    plain: bool


def find(folder: Path, name: str) -> Path | None:
    """The file `name` in the folder, else `name.gz`, else the parquet file in the place of the `.tsv`."""
    names = (name, f"{name}.gz", f"{name.removesuffix('.tsv')}.parquet")
    return next((p for p in (folder / n for n in names) if p.is_file()), None)


class Hashed:
    """A file opened for reading that hashes and counts what it hands out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        data = self._file.read(size)
        self._hash.update(data)
        self.bytes += len(data)
        return data

    def sha256(self) -> str:
        """Of everything read so far, in hex."""
        return self._hash.hexdigest()


def read_chunks(path: Path, report: SourceReport, progress: Progress | None) -> Iterator[bytes]:
    """The file's bytes, unzipped, in chunks of at most CHUNK; its size and hash are added to the report at the end.

    Raises SourceError where the file can't be read or its gzip is broken: nothing read from it may be used then.
    """
    try:
        total = path.stat().st_size
        with path.open("rb") as raw:
            hashed = Hashed(raw)
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


def read_blocks(path: Path, report: SourceReport, progress: Progress | None) -> Iterator[Block]:
    r"""The file's lines, split at `\n` alone: passages hold U+0085 and U+2028, which are no line ends here."""
    rest, number = b"", 1
    for chunk in read_chunks(path, report, progress):
        lines = chunk.split(b"\n")
        lines[0] = rest + lines[0]
        rest = lines.pop()[: MAX_LINE + 1]
        if lines:
            yield Block(number, lines, plain=number > 1 and not _is_odd(chunk, lines))
            number += len(lines)
    if rest:
        yield Block(number, [rest], plain=False)
        number += 1
    report.lines[path.name] = number - 1


def _is_odd(chunk: bytes, lines: list[bytes]) -> bool:
    # Only the first line can begin before the chunk: only it can be overlong, or end in a \r outside the chunk.
    # Looking for a single byte is ten times as fast as for two: most chunks end the search there.
    return len(lines[0]) > MAX_LINE or lines[0].endswith(b"\r") or (b"\r" in chunk and b"\r\n" in chunk)
