"""What people answered: one append-only file a person, written after each answer, so that nothing is lost."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

from pipeline.audit.sample import Sample
from pipeline.errors import UsageError

Cell = tuple[str, int, int]
"""row id, shown context, shown passage"""

GRADES = (0, 1, 2, 3)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_HEADER = ("row", "context", "passage", "instruction", "query", "text", "grade (0 to 3)")


class Annotations:
    """One person's grades. The last answer to a cell counts; an undo takes the last answer back."""

    def __init__(self, folder: Path, sample: Sample, annotator: str) -> None:
        if not _NAME.fullmatch(annotator):
            raise UsageError(f"{annotator!r} is no annotator's name: letters, digits, - and _, 40 at most")
        self.annotator = annotator
        self._sample = sample
        self._cells = frozenset(sample.cells)
        self._file = folder / f"{annotator}.jsonl"
        self._lock = threading.Lock()
        self._answers: list[tuple[Cell, int]] = []
        self._whole: int | None = None  # bytes before a last line that was cut off, until it is cut away
        self._read()

    @property
    def grades(self) -> dict[Cell, int]:
        """The grade of every answered cell."""
        return dict(self._answers)

    @property
    def next_cell(self) -> Cell | None:
        """The first cell without a grade."""
        done = self.grades
        return next((cell for cell in self._sample.cells if cell not in done), None)

    def grade(self, cell: Cell, grade: int) -> None:
        """Keep an answer; durable when this returns. ValueError for a cell or a grade that doesn't exist."""
        if cell not in self._cells or grade not in GRADES:
            raise ValueError(f"no cell {cell} or no grade {grade}")
        with self._lock:
            self._append({"row": cell[0], "context": cell[1], "passage": cell[2], "grade": grade})
            self._answers.append((cell, grade))

    def undo(self) -> Cell | None:
        """Take the last answer back; the cell that it was for."""
        with self._lock:
            if not self._answers:
                return None
            self._append({"undo": True})
            return self._answers.pop()[0]

    def _append(self, entry: dict[str, object]) -> None:
        entry |= {"sample": self._sample.name, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        if self._whole is not None:
            os.truncate(self._file, self._whole)
            self._whole = None
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        if not self._file.exists():
            return
        text = self._file.read_bytes()
        *lines, torn = text.split(b"\n")
        if torn:  # an answer is durable with its end of line; this one was never acknowledged
            self._whole = len(text) - len(torn)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                name = entry["sample"]
                cell = None if entry.get("undo") else (entry["row"], entry["context"], entry["passage"])
                grade = entry.get("grade")
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UsageError(
                    f"{self._file}:{number}: not an answer of ours; expected one JSON object a line"
                ) from None
            if name != self._sample.name or (cell and (cell not in self._cells or grade not in GRADES)):
                raise UsageError(
                    f"{self._file}:{number}: an answer to another sample ({name}); this one is {self._sample.name}. "
                    "Move the file away, or bring back the sample.json that it belongs to"
                )
            if cell is None:
                del self._answers[-1:]
            else:
                self._answers.append((cell, grade))


def read_all(folder: Path, sample: Sample) -> list[Annotations]:
    """Everybody's grades, by name."""
    return [Annotations(folder, sample, file.stem) for file in sorted(folder.glob("*.jsonl"))]


def write_sheet(sample: Sample, file: Path) -> None:
    """A CSV with a line for each cell and an empty column for the grade, for people who prefer a spreadsheet."""
    rows = {row.id: row for row in sample.rows}
    with file.open("x", encoding="utf-8-sig", newline="") as sheet:
        writer = csv.writer(sheet)
        writer.writerow(_HEADER)
        for name, c, p in sample.cells:
            row = rows[name]
            texts = (*row.contexts[c], row.passages[p])
            writer.writerow([_text(name), c + 1, p + 1, *map(_text, texts), ""])


def read_sheet(file: Path, annotations: Annotations, sample: Sample) -> int:
    """Take the grades of a filled sheet; how many. A malformed line is a UsageError, and nothing is taken.

    Spreadsheets save with commas, semicolons or tabs, as the country has it: the header tells.
    """
    names = {_text(row.id): row.id for row in sample.rows}
    cells = frozenset(sample.cells)
    grades: list[tuple[Cell, int]] = []
    try:
        text = file.read_text("utf-8-sig")
        comma = max(",;\t", key=text.split("\n", 1)[0].count)
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=comma))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"can't read {file} as CSV in UTF-8: {error}") from error
    if not lines or tuple(lines[0]) != _HEADER:
        raise UsageError(f"{file}:1: expected the header of a sheet of to-csv: {','.join(_HEADER)}")
    for number, line in enumerate(lines[1:], start=2):
        if not "".join(line).strip() or (len(line) == len(_HEADER) and not line[-1].strip()):
            continue
        try:
            name, context, passage, *_, grade_text = line
            cell, grade = (names[name], int(context) - 1, int(passage) - 1), int(grade_text)
            if len(line) != len(_HEADER) or cell not in cells or grade not in GRADES:
                raise ValueError
        except (KeyError, ValueError):
            raise UsageError(
                f"{file}, row {number}: expected a cell of this sample and a grade of 0 to 3, found "
                f"{line[-1][:40]!r} for row {line[0][:40]!r}"
            ) from None
        grades.append((cell, grade))
    for cell, grade in grades:
        annotations.grade(cell, grade)
    return len(grades)


def _text(text: str) -> str:
    """A text that no spreadsheet takes for a formula or stumbles over."""
    seen = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    return f"'{seen}" if seen.startswith(_FORMULA) else seen
