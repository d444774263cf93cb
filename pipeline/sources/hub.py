"""`hf:REPO:CONFIG`: MS MARCO's QA format from the Hugging Face Hub, streamed through `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from pipeline.sources.exclusions import Exclusions
from pipeline.sources.qa import QaReader
from pipeline.sources.report import FileRead, Progress, SourceError, SourceReport, excerpt
from pipeline.sources.source import LICENCE_MS_MARCO, LICENCE_UNKNOWN, Judged

_EACH: Final = 1_000
"""Records between two reports of progress."""


@dataclass(frozen=True)
class HubDataset:
    """A data set of the Hub (or a local folder in the same form). Only data is loaded, never code of the repository."""

    repository: str
    config: str | None
    split: str
    exclusions: Exclusions

    @property
    def name(self) -> str:
        """As given, without the folders of a local path."""
        repository = PurePath(self.repository)
        shown = repository.name if repository.is_absolute() else self.repository
        return f"hf:{shown}" + (f":{self.config}" if self.config else "")

    def read(self, progress: Progress | None = None) -> Judged:
        """Stream the split. Raises SourceError where the Hub, the repository, its config or its split is not there."""
        licence = LICENCE_MS_MARCO if "ms_marco" in self.repository.lower() else LICENCE_UNKNOWN
        report = SourceReport(self.name, "hub", self.split, licence, list(self.exclusions.files))
        report.files.append(FileRead(self.name))
        reader = QaReader(report)
        for number, record in enumerate(self._stream()):
            reader.take(record, f"{self.name}: record {number}")
            if progress and number % _EACH == 0:
                progress(f"reading {self.name}", number, None)
        return reader.finish(self.name)

    def _stream(self) -> Iterator[dict[str, Any]]:
        # Imported here: it takes seconds, and the other layouts do without it.
        import datasets  # noqa: PLC0415

        try:
            yield from datasets.load_dataset(self.repository, self.config, split=self.split, streaming=True)
        except GeneratorExit:
            raise
        except Exception as error:  # what it raises for a missing network, repository or split is not a closed list
            first = (str(error).splitlines() or [""])[0].replace(self.repository, self.name)
            raise SourceError(
                f"{self.name}, split {self.split}, can't be loaded: {type(error).__name__}: "
                f"{excerpt(first).rstrip('.')}. Check the name and the network, or give a downloaded file as --source."
            ) from None


def open_hub(source: str, split: str, exclusions: Exclusions) -> HubDataset:
    """Parse `hf:REPO:CONFIG`; the config may be left out."""
    repository, _, config = source.removeprefix("hf:").partition(":")
    if not repository:
        raise SourceError(f"{source!r} names no repository; expected hf:REPO:CONFIG, as in hf:microsoft/ms_marco:v2.1.")
    return HubDataset(repository, config or None, split, exclusions)
