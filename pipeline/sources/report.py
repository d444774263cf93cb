"""What reading a source found, for the manifest and the terminal: counts of all that was wrong, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.errors import UsageError

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and of how much (None: unknown)."""


class SourceError(UsageError):
    """The source can't be used. `str()` is one sentence for a person: which file, which line, what to do."""


EXAMPLES_KEPT: Final = 3
EXCERPT_LENGTH: Final = 80

MALFORMED: Final[dict[str, str]] = {
    "columns": "too few columns; line left out",
    "tabs_in_text": "tabs inside the text; folded to spaces",
    "empty_text": "no text; left out",
    "empty_line": "empty line; left out",
    "bad_utf8": "not UTF-8; line left out",
    "crlf": "Windows line end; stripped",
    "byte_order_mark": "byte order mark; stripped",
    "header": "a header line; left out",
    "overlong": "a line over 1 MB; left out",
    "bad_id": "an id that is not a plain token; line left out",
    "bad_grade": "a grade that is not a whole number; judgement left out",
    "bad_json": "not JSON; line left out",
    "wrong_shape": "a record without the expected fields; left out",
}
"""Kinds of malformed input, and what happens to it."""

HARMLESS: Final = frozenset({"crlf", "byte_order_mark", "header", "empty_line"})
"""Kinds that do not make a file suspect, however many of its lines have them."""


def excerpt(data: bytes | str) -> str:
    """The start of a line as printable ASCII without line breaks: safe for a terminal, a manifest and a card."""
    text = data[: EXCERPT_LENGTH * 4].decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    short = text[:EXCERPT_LENGTH].encode("unicode_escape").decode("ascii")
    return short if len(text) <= EXCERPT_LENGTH else f"{short} …"


@dataclass
class Tally:
    """Counts by kind, with the first few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, where: str, data: bytes | str = b"") -> None:
        """Count one; `where` is `file:line`, `data` the line itself."""
        self.counts[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES_KEPT:
            kept.append(f"{where}: {excerpt(data)}" if data else where)


@dataclass
class FileRead:
    """A file as it was read. `name` has no folder in it, `bytes` and `sha256` are of the file as it lies there."""

    name: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass
class SourceReport:
    """The account of one reading. Every judgement read is not relevant, a duplicate, dangling, textless, or eligible.

    `eligible` pairs are there; `examined` of them were cleaned to get `sampled`; `dropped` says why the others fell;
    `near_duplicate_clusters` counts, by size, the clusters of a seed and its twins that were dropped for it.
    """

    name: str
    layout: str
    split: str
    licence: str
    files: list[FileRead] = field(default_factory=list)
    lines: Counter[str] = field(default_factory=Counter)
    judgements: int = 0
    not_relevant: int = 0
    malformed: Tally = field(default_factory=Tally)
    duplicates: Tally = field(default_factory=Tally)
    dangling: Tally = field(default_factory=Tally)
    dropped: Tally = field(default_factory=Tally)
    excluded_queries: int = 0
    near_duplicate_clusters: Counter[int] = field(default_factory=Counter)
    eligible: int = 0
    examined: int = 0
    sampled: int = 0

    def as_manifest(self) -> dict[str, Any]:
        """The report as plain JSON values, the same for the same input."""
        tallies = {
            "malformed": self.malformed,
            "duplicates": self.duplicates,
            "dangling": self.dangling,
            "dropped": self.dropped,
        }
        return {
            "name": self.name,
            "layout": self.layout,
            "split": self.split,
            "licence": self.licence,
            "files": [{"name": f.name, "bytes": f.bytes, "sha256": f.sha256} for f in self.files],
            "lines": dict(sorted(self.lines.items())),
            "judgements": self.judgements,
            "not_relevant": self.not_relevant,
            **{name: dict(sorted(tally.counts.items())) for name, tally in tallies.items()},
            "excluded_queries": self.excluded_queries,
            "eligible": self.eligible,
            "examined": self.examined,
            "sampled": self.sampled,
            "examples": {
                name: dict(sorted(tally.examples.items())) for name, tally in tallies.items() if tally.examples
            },
        }


def summary_lines(report: SourceReport) -> list[str]:
    """The report in a few lines for the terminal: what was read, and each kind of trouble with its first example."""
    lines = [
        f"{report.name}, split {report.split}: {report.judgements:,} judgements, {report.eligible:,} usable pairs, "
        f"{report.examined:,} examined, {report.sampled:,} taken"
    ]
    for title, tally in (
        ("malformed", report.malformed),
        ("duplicate", report.duplicates),
        ("dangling", report.dangling),
        ("dropped", report.dropped),
    ):
        for kind, count in sorted(tally.counts.items()):
            meaning = MALFORMED.get(kind, kind.replace("_", " "))
            example = tally.examples.get(kind)
            lines.append(f"  {title}: {count:,} × {meaning}" + (f" (first: {example[0]})" if example else ""))
    return lines
