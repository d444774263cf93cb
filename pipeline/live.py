"""Counts that a person watches while a run goes on, summed over the run's processes.

Each process keeps its own counts and writes them, at most twice a second, to a small file of its own. They are for the
display alone: the manifest counts what was written.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

_EVERY_S = 0.5
_opened: dict[str, LiveCounts] = {}
_opening = threading.Lock()


class LiveCounts:
    """The counts of this process. Safe to use from several threads."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder) / f"{os.getpid()}.json"
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._written = 0.0

    def add(self, name: str, n: int = 1) -> None:
        """Count."""
        with self._lock:
            self._counts[name] += n
            due = time.monotonic() - self._written >= _EVERY_S
        if due:
            self.flush()

    def flush(self) -> None:
        """Write the counts aside and rename, so that a reader never sees half a file."""
        with self._lock:
            self._written = time.monotonic()
            aside = self._file.with_suffix(f".{threading.get_ident()}.tmp")
            try:
                aside.write_text(json.dumps(self._counts), "utf-8")
                aside.replace(self._file)
            except OSError:
                pass  # a display is not worth a run: a full disk is told by what writes the data


def open_counts(folder: str) -> LiveCounts:
    """The counts of this process under a folder that exists."""
    with _opening:
        if folder not in _opened:
            _opened[folder] = LiveCounts(folder)
        return _opened[folder]


def read_counts(folder: Path) -> Counter[str]:
    """The sum over the processes of a run."""
    total: Counter[str] = Counter()
    for file in folder.glob("*.json"):
        try:
            total.update(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError):
            continue  # a file that is being replaced or is another's: the next look has it
    return total
