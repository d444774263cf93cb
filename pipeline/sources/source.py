"""What every layout is read into: judged pairs and their raw texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.sources.exclusions import Exclusions
from pipeline.sources.report import Progress, SourceReport

LICENCE_SAMPLE: Final = "Written for this project; Apache-2.0."
LICENCE_MS_MARCO: Final = "MS MARCO: for non-commercial research purposes only, as its terms of use say."
LICENCE_UNKNOWN: Final = (
    "Not stated by the files. If this is MS MARCO: for non-commercial research purposes only, as its terms of use say."
)


@dataclass
class Judged:
    """Pairs judged relevant whose query and passage are there, as read: nothing is cleaned yet.

    pairs: (query id, document id), unique, in the order of the source, which means nothing.
    """

    report: SourceReport
    pairs: list[tuple[str, str]] = field(default_factory=list)
    queries: dict[str, str] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A source that was found. Reading it may take minutes, finding it does not."""

    @property
    def exclusions(self) -> Exclusions:
        """The benchmark queries that no seed may hold."""

    def read(self, progress: Progress | None = None) -> Judged:
        """Read it all. Raises SourceError where nothing usable is there."""
