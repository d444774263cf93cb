"""The output folder: its layout, and the lock that keeps two runs out of each other's way."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Output:
    """Where things lie."""

    folder: Path

    @property
    def manifest(self) -> Path:
        """Counts, checksums, models, costs."""
        return self.folder / "manifest.json"

    @property
    def card(self) -> Path:
        """The data card, with the Hub's header."""
        return self.folder / "README.md"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / "report" / "index.html"

    @property
    def work(self) -> Path:
        """Memory and scratch; safe to delete, at the price of paying again."""
        return self.folder / ".work"

    @property
    def waves(self) -> Path:
        """Outcomes of finished waves."""
        return self.work / "waves"

    @property
    def mining(self) -> Path:
        """The collection and its index, where a run mines."""
        return self.work / "mining"

    @property
    def live(self) -> Path:
        """Counts for the display, one file a process."""
        return self.work / "live"

    @property
    def answers(self) -> Path:
        """The default memory."""
        return self.work / "answers.sqlite"

    @contextmanager
    def empty_scratch(self) -> Iterator[Path]:
        """A folder for shards on their way, empty, and gone afterwards."""
        scratch = self.work / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        yield scratch
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def open_output(folder: Path) -> Iterator[Output]:
    """Make the folder and hold its lock. A folder that can't be used is a UsageError."""
    output = Output(folder)
    try:
        if folder.is_dir() and not output.work.exists() and not output.manifest.exists() and any(folder.iterdir()):
            raise UsageError(
                f"{folder} holds files that no run of ours wrote; choose an --output folder that is new or empty"
            )
        for needed in (output.waves, output.live):
            needed.mkdir(parents=True, exist_ok=True)
        lock = (output.work / "lock").open("a")
    except OSError as error:
        raise UsageError(f"can't write to the output folder {folder}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another run is writing to {folder}; wait for it to end, or choose another --output"
            ) from error
        yield output
