"""Renders the report: figures, pictures and rows into one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from pipeline.card import made_offline, read_agreement, with_interval
from pipeline.dimensions import Dimensions
from pipeline.judging import DECIDING
from pipeline.records import DEFERRALS, JUDGE_MINED, PASSAGES, REASONS, SPLITS, STAGES
from pipeline.report import charts, facts
from pipeline.report.survey import MINED, Survey, read_survey
from pipeline.tasks import load_tasks

LONGEST, LONGEST_PASSAGE = 1000, 3000
"""Characters that the row browser carries of a text and of a passage: 200 rows of seven texts must stay a page."""
MOST_MINED = 10
"""Mined passages of a row that the browser carries, each cut like a text that is no passage."""

CONTEXT_NAMES = ("I+ Q+", "I- Q+", "I+ Q-")
PASSAGE_NAMES = ("P+", "P-1", "P-2")


def write_report(manifest: Mapping[str, Any], folder: Path) -> Path:
    """Write report/index.html from the manifest and the shards of a folder, aside and renamed."""
    text = render(manifest, read_survey(manifest, folder), read_agreement(manifest, folder))
    file = folder / "report" / "index.html"
    file.parent.mkdir(exist_ok=True)
    aside = file.with_suffix(".tmp")
    aside.write_text(text, "utf-8")
    aside.replace(file)
    return file


def render(manifest: Mapping[str, Any], survey: Survey, agreement: Mapping[str, Any] | None) -> str:
    """The page. Every text of a data set passes the template's escaping, or goes in as JSON that no text can close."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "share": lambda x: f"{x:.1%}",
        "n": lambda x: f"{x:,}",
        "interval": lambda line: with_interval(line, "kappa"),
        "usd": lambda x: "unknown" if x is None else f"{x:,.4f}",
    }
    template = environment.from_string(resources.files("pipeline.report").joinpath("page.html").read_text("utf-8"))
    lengths = {name: (np.arange(len(n)), n) for name, n in ((m, survey.lengths[c]) for m, c in _PARTS.items())}
    overlaps = {name: (values, np.ones(len(values))) for name, values in facts.overlaps(survey.sample).items()}
    dimensions = Dimensions.load()
    return template.render(
        m=manifest,
        offline=made_offline(manifest),
        splits=SPLITS,
        tasks=list(manifest["calls"]),
        reasons=REASONS,
        deferrals=DEFERRALS,
        stages=_stages(manifest),
        sampled=len(survey.sample),
        crossed=survey.crossed,
        forms=[form.name for form in dimensions.forms],
        definitions=_definitions(manifest, dimensions),
        length_table={name: _quantiles(*found) for name, found in lengths.items()},
        length_charts=[
            Markup(charts.histogram({name: lengths[name] for name in names}, f"words of {what}"))  # noqa: S704, our own SVG
            for what, names in _CHARTED.items()
        ],
        diversity=facts.diversity([row["instruction_positive"] for row in survey.sample]),
        matrix=(survey.grades @ np.arange(4) / survey.judged).tolist() if survey.judged else [],
        judged=survey.judged,
        grades_chart=Markup(charts.grade_shares(survey.grades, CONTEXT_NAMES, PASSAGE_NAMES)),  # noqa: S704
        contexts=CONTEXT_NAMES,
        passages=PASSAGE_NAMES,
        positions=(survey.positions / survey.judged).tolist() if survey.judged else [],
        overlap_table={name: _quantiles(*found) for name, found in overlaps.items()},
        overlap_chart=Markup(charts.histogram(overlaps, "shared word stems (Jaccard)", top=1.0)),  # noqa: S704
        bm25=facts.bm25_accuracy(survey.sample),
        mined=_mined(manifest, survey),
        examples=_examples(survey),
        browsed=len(survey.browsed),
        prompts=_prompts(manifest),
        agreement=agreement,
        data=Markup(_json(_data(survey))),  # noqa: S704, escaped there
    )


_CHARTED = {"a query": ("Q+", "Q-"), "an instruction": ("I+", "I-"), "a passage": ("P+", "P-1", "P-2")}
_PARTS = {
    "Q+": "query_positive",
    "Q-": "query_negative",
    "I+": "instruction_positive",
    "I-": "instruction_negative",
    "P+": "document",
    "P-1": "hard_negative_document_1",
    "P-2": "hard_negative_document_2",
}


def _quantiles(values: np.ndarray, counts: np.ndarray) -> list[float]:
    return [facts.quantile(values, counts, share) for share in (0.05, 0.5, 0.95)]


def _stages(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages at which seeds ended, in the order of the flow: reasons, most frequent first, and what is left after it."""
    left, stages = manifest["counts"]["seeds"], []
    for name in STAGES:
        reasons = manifest["rejected_by_stage"].get(name)
        if reasons:
            left -= sum(reasons.values())
            ordered = sorted(reasons.items(), key=lambda item: -item[1])
            stages.append({"name": name, "reasons": ordered, "ended": sum(reasons.values()), "left": left})
    return stages


def _definitions(manifest: Mapping[str, Any], dimensions: Dimensions) -> dict[str, str]:
    """Dimension -> what it is, where the installed ones are those of the data set."""
    if manifest["prompts"].get("dimensions") != dimensions.hash:
        return {}
    return {dimension.name: dimension.definition for dimension in dimensions.dimensions}


def _examples(survey: Survey) -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
    """The rows of the examples with their numbers in the page's data: those of a deciding cell, and all others."""
    found: dict[str, list[tuple[int, Mapping[str, Any]]]] = {"cells": [], "others": []}
    for number, row in enumerate(survey.examples):
        found["cells" if row["reason"] in DECIDING else "others"].append((number, row))
    return found


def _mined(manifest: Mapping[str, Any], survey: Survey) -> dict[str, Any] | None:
    """What was mined for the accepted rows, and rows with a false negative; None where nothing was."""
    mining = manifest.get("mining")
    if not mining or not mining["passages"]:
        return None
    k, relevant = mining["k"], manifest["thresholds"]["relevant"]
    rows = {
        f"all {k}" if k > 1 else "one": int(survey.mined[k:].sum()),
        **({"fewer": int(survey.mined[1:k].sum())} if k > 1 else {}),
        "none": int(survey.mined[:1].sum()),
    }
    graded = {int(grade): n for grade, n in mining["first_grades"].items() if grade.isdigit()}
    examples = [
        (row, next(mined for mined in row["mined"] if (mined["grade"] or 0) >= relevant))
        for row in map(_shown, survey.false_negatives)
    ]
    return {
        **mining,
        "rows": rows,
        "all_rows": int(survey.mined.sum()),
        "graded": sum(graded.values()),
        "grades": {grade: graded.get(grade, 0) for grade in range(4)},
        "ungraded": mining["first_grades"].get("ungraded", 0),
        "false": sum(n for grade, n in graded.items() if grade >= relevant),
        "examples": examples,
    }


def _data(survey: Survey) -> dict[str, Any]:
    """What the page's script reads."""
    return {
        "rows": [_shown(row) for row in survey.browsed],
        "examples": [_shown(row) for row in survey.examples],
        "reasons": REASONS,
        "deciding": DECIDING,
        "contexts": CONTEXT_NAMES,
        "passages": PASSAGE_NAMES,
    }


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the browser and the examples show it."""
    parts = {
        name: _visible(row[column], LONGEST_PASSAGE if column in PASSAGES else LONGEST)
        for name, column in _PARTS.items()
        if row[column] is not None
    }
    return parts | {
        "id": _visible(row["id"]),
        "dimension": row["dimension"],
        "form": row["form"],
        "split": row["split"],
        "relevance": row["relevance"],
        "rationale": _visible(row["rationale"] or ""),
        "stage": row.get("stage"),
        "reason": row.get("reason"),
        "detail": _visible(row.get("detail") or ""),
        "mined": [
            {"id": _visible(name), "text": _visible(text), "score": score, "grade": grade}
            for name, text, score, grade in zip(*(row.get(column) or () for column in MINED), strict=True)
        ][:MOST_MINED],
        "mined_in_all": len(row.get(MINED[0]) or ()),
    }


def _visible(text: str, longest: int = LONGEST) -> str:
    """Control and direction marks as a sign of their own, so that a text can't rearrange the page around it; long ones cut."""
    seen = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text[:longest])
    return seen if len(text) <= longest else f"{seen} … ({len(text):,} characters)"


def _json(value: Any) -> str:
    """JSON that can stand in a script element: no text inside can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _prompts(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The prompts and schemas in full, where those that are installed are those of the data set."""
    shown = []
    for name, task in load_tasks(mining=JUDGE_MINED in manifest["prompts"]).items():
        prompt = manifest["prompts"].get(name)
        same_schema = manifest["schemas"].get(name) == task.schema_hash
        shown.append(
            {
                "name": name,
                "hash": prompt,
                "task": task if prompt == task.prompt_hash else None,
                "schema": json.dumps(task.schema, indent=2, ensure_ascii=False) if same_schema else None,
            }
        )
    return shown
