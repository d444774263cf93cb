"""Renders the report: figures, pictures and rows into one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline import manifest as manifests
from pipeline.card import made_offline
from pipeline.dimensions import Dimensions
from pipeline.errors import UsageError
from pipeline.records import JUDGE_MINED, REASONS, SPLITS
from pipeline.report import charts, facts
from pipeline.tasks import load_tasks

LONGEST = 4000
"""Characters of a text that the row browser carries: 200 rows of seven texts must stay a page."""

CONTEXT_NAMES = ("I+ Q+", "I- Q+", "I+ Q-")
PASSAGE_NAMES = ("P+", "P-1", "P-2")


def write_report(manifest: Mapping[str, Any], folder: Path) -> Path:
    """Write report/index.html from the manifest and the shards of a folder, aside and renamed."""
    text = render(manifest, facts.Rows.read(manifest, folder), _agreement(folder))
    file = folder / "report" / "index.html"
    file.parent.mkdir(exist_ok=True)
    aside = file.with_suffix(".tmp")
    aside.write_text(text, "utf-8")
    aside.replace(file)
    return file


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an output folder. Anything else is a UsageError."""
    made = manifests.read(folder / "manifest.json")
    if made is None:
        raise UsageError(
            f"{folder} is not an output folder: it has no manifest.json that adds up. Run pipeline.run first."
        )
    return made


def render(manifest: Mapping[str, Any], rows: facts.Rows, agreement: Mapping[str, Any] | None) -> str:
    """The page. Every text of a data set passes the template's escaping, or goes in as JSON that no text can close."""
    sample = facts.drawn(rows.accepted, facts.SAMPLE)
    judged = facts.grades(rows)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["share"] = lambda x: "–" if x is None else f"{x:.1%}"
    template = environment.from_string(resources.files("pipeline.report").joinpath("page.html").read_text("utf-8"))
    lengths = {
        "instructions": {name: facts.word_counts(rows.accepted, c) for name, c in _INSTRUCTIONS.items()},
        "passages": {name: facts.word_counts(rows.accepted, c) for name, c in _PASSAGES.items()},
        "queries": {name: facts.word_counts(rows.accepted, c) for name, c in _QUERIES.items()},
    }
    overlaps = facts.overlaps(sample)
    return template.render(
        m=manifest,
        offline=made_offline(manifest),
        splits=SPLITS,
        tasks=list(manifest["calls"]),
        reasons=REASONS,
        sampled=len(sample),
        crossed=facts.crossed(rows),
        forms=[form.name for form in Dimensions.load().forms],
        length_table={name: facts.quantiles(values) for group in lengths.values() for name, values in group.items()},
        length_charts=[
            Markup(charts.histogram(lengths["instructions"], "words of an instruction")),  # noqa: S704, our own SVG
            Markup(charts.histogram(lengths["passages"], "words of a passage")),  # noqa: S704
        ],
        diversity=facts.diversity([row["instruction_positive"] for row in sample]),
        matrix=judged.mean(axis=0).tolist() if len(judged) else [],
        judged=len(judged),
        grades_chart=Markup(charts.grade_shares(judged, CONTEXT_NAMES, PASSAGE_NAMES)),  # noqa: S704
        contexts=CONTEXT_NAMES,
        passages=PASSAGE_NAMES,
        positions=facts.by_position(rows),
        overlap_table={name: facts.quantiles(values) for name, values in overlaps.items()},
        overlap_chart=Markup(charts.histogram(overlaps, "shared word stems (Jaccard)", top=1.0)),  # noqa: S704
        bm25=facts.bm25_accuracy(sample),
        examples=[_shown(row) for row in facts.deciding_examples(rows)],
        prompts=_prompts(manifest),
        agreement=agreement,
        rows_json=Markup(_json([_shown(row) for row in facts.browsed(rows)])),  # noqa: S704, escaped there
    )


_INSTRUCTIONS = {"I+": "instruction_positive", "I-": "instruction_negative"}
_PASSAGES = {"P+": "document", "P-1": "hard_negative_document_1", "P-2": "hard_negative_document_2"}
_QUERIES = {"Q+": "query_positive", "Q-": "query_negative"}
_SHORT = _QUERIES | _INSTRUCTIONS | _PASSAGES


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the browser and the examples show it."""
    shown = {name: _visible(row[column]) for name, column in _SHORT.items() if row[column] is not None}
    return shown | {
        "id": _visible(row["id"]),
        "dimension": row["dimension"],
        "form": row["form"],
        "split": row["split"],
        "relevance": row["relevance"],
        "rationale": _visible(row["rationale"] or ""),
        "stage": row.get("stage"),
        "reason": row.get("reason"),
        "detail": _visible(row.get("detail") or ""),
    }


def _visible(text: str) -> str:
    """Control and direction marks as a sign of their own, so that a text can't rearrange the page around it; long ones cut."""
    seen = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text[:LONGEST])
    return seen if len(text) <= LONGEST else f"{seen} … ({len(text):,} characters)"


def _json(value: Any) -> str:
    """JSON that can stand in a script element: no text inside can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _prompts(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The prompts in full, where those that are installed are those of the data set."""
    shown = []
    for name, task in load_tasks(mining=JUDGE_MINED in manifest["prompts"]).items():
        same = manifest["prompts"].get(name) == task.prompt_hash
        schema = json.dumps(task.schema, indent=2, ensure_ascii=False)
        shown.append(
            {"name": name, "task": task if same else None, "schema": schema, "hash": manifest["prompts"].get(name)}
        )
    return shown


def _agreement(folder: Path) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = json.loads((folder / "audit" / "agreement.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found
