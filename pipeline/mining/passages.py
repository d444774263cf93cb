"""All passages of a collection in one file that is mapped, not read: memory holds what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

BATCH: Final = 20_000
"""Passages a record batch: every batch but the last has so many, so a place is found by division."""

_SCHEMA: Final = pa.schema([("id", pa.string()), ("text", pa.string())])


class Passages:
    """Ids and texts as read, by their place, 0 to len - 1."""

    def __init__(self, file: Path) -> None:
        self._file = pa.memory_map(str(file))
        reader = pa.ipc.open_file(self._file)
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self._batches)

    def id(self, place: int) -> str:
        """The id at a place."""
        return str(self._batches[place // BATCH].column(0)[place % BATCH])

    def text(self, place: int) -> str:
        """The text at a place."""
        return str(self._batches[place // BATCH].column(1)[place % BATCH])

    def texts(self) -> Iterator[str]:
        """All texts in their order."""
        for batch in self._batches:
            yield from batch.column(1).to_pylist()


def write_passages(file: Path, read: Callable[[Callable[[str, str], None]], None]) -> None:
    """Write all that `read` hands over, a batch in memory at a time."""
    ids: list[str] = []
    texts: list[str] = []
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:

        def take(key: str, text: str) -> None:
            ids.append(key)
            texts.append(text)
            if len(ids) == BATCH:
                flush()

        def flush() -> None:
            writer.write_batch(pa.record_batch([pa.array(ids, pa.string()), pa.array(texts, pa.string())], _SCHEMA))
            ids.clear()
            texts.clear()

        read(take)
        if ids:
            flush()
