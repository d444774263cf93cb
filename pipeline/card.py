"""The data card: README.md with the Hub's YAML header, so that the output folder is a data set as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pyarrow.parquet as pq
import yaml
from datasets import Features

from pipeline.records import OFFLINE_RULES, REASONS, SPLITS, TEXT_COLUMNS
from pipeline.sources.source import LICENCE_MS_MARCO, LICENCE_SAMPLE
from pipeline.tables import ACCEPTED, REJECTED

EXAMPLES = 3
_LONGEST = 600  # characters of a text that the card shows
_MARKS = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&-])")


def write_card(manifest: Mapping[str, Any], folder: Path) -> None:
    """Write README.md from the manifest and the shards that lie in the folder."""
    template = Template(resources.files("pipeline").joinpath("card.md").read_text("utf-8"))
    text = _header(manifest) + template.substitute(_values(manifest, folder))
    aside = folder / "README.tmp"
    aside.write_text(text, "utf-8")
    aside.replace(folder / "README.md")


def _header(manifest: Mapping[str, Any]) -> str:
    """The YAML that the Hub and `load_dataset` read: configurations, features, sizes."""
    rows = manifest["counts"]["accepted"]
    configs, infos = [], []
    for name, splits, folder, schema in (
        ("default", SPLITS, "data", ACCEPTED),
        ("rejected", ("rejected",), "rejected", REJECTED),
    ):
        sizes = [size for size in _sizes(manifest, splits) if size["num_examples"]]
        if sizes:  # a split without a row has no file
            configs.append(_config(name, [size["name"] for size in sizes], folder, default=name == "default"))
            infos.append({"config_name": name, "features": _features(schema), "splits": sizes})
    header = {
        "pretty_name": "Instruction-following retrieval tuples",
        "language": ["en"],
        **_licence_header(manifest["source"]),
        "task_categories": ["text-retrieval"],
        "tags": ["instruction-following", "retrieval", "hard-negatives", *_offline_tag(manifest)],
        "size_categories": [_size_category(rows)],
        "configs": configs,
        "dataset_info": infos,
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n"


def _config(name: str, splits: Iterable[str], folder: str, default: bool = False) -> dict[str, Any]:
    files = [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in splits]
    return {"config_name": name, "data_files": files} | ({"default": True} if default else {})


def _features(schema: Any) -> Any:
    return Features.from_arrow_schema(schema)._to_yaml_list()


def _sizes(manifest: Mapping[str, Any], names: Iterable[str]) -> list[dict[str, Any]]:
    rows = dict.fromkeys(names, 0)
    for file in manifest["files"]:
        kind = file["path"].split("/")[1].split("-")[0]
        if kind in rows:
            rows[kind] += file["rows"]
    return [{"name": name, "num_examples": n} for name, n in rows.items()]


def _size_category(rows: int) -> str:
    """The Hub's own names of sizes."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")


def _offline_tag(manifest: Mapping[str, Any]) -> list[str]:
    return [OFFLINE_RULES] if made_offline(manifest) else []


def made_offline(manifest: Mapping[str, Any]) -> bool:
    """Whether rules, not a language model, wrote the texts or graded them."""
    return OFFLINE_RULES in (manifest["models"]["generator"]["name"], manifest["models"]["judge"]["name"])


def _values(manifest: Mapping[str, Any], folder: Path) -> dict[str, str]:
    source = manifest["source"]
    counts = manifest["counts"]
    rows = [(f"{name} tuples", counts[name]) for name in ("accepted", "rejected", "deferred")]
    rows += [(f"of the accepted, {split}", manifest["splits"][split]) for split in SPLITS]
    return {
        "title": "Instruction-following retrieval tuples",
        "warning": _warning(manifest),
        "load_name": "PATH/OF/THIS/FOLDER",
        "source_name": escaped(str(source["name"])),
        "source_split": escaped(str(source["split"])),
        "generator": escaped(manifest["models"]["generator"]["name"]),
        "judge": escaped(manifest["models"]["judge"]["name"]),
        "relevant": str(manifest["thresholds"]["relevant"]),
        "irrelevant": str(manifest["thresholds"]["irrelevant"]),
        "counts": _rows([("seeds", counts["seeds"]), *rows]),
        "reasons": _reasons(manifest),
        "dimensions": _dimensions(manifest),
        "cost": _cost(manifest),
        "audit": _audit(manifest, folder),
        "source": _source(source),
        "near_duplicates": _near_duplicates(manifest),
        "exclusions": _exclusions(source),
        "mining": _mining(manifest),
        "accepted_examples": _examples(manifest, folder, "data/"),
        "rejected_examples": _examples(manifest, folder, "rejected/"),
        "licence": _licence(source),
    }


def _warning(manifest: Mapping[str, Any]) -> str:
    if not made_offline(manifest):
        return "Written by a language model and graded by another; read the audit, or make one, before you rely on it."
    return (
        f"> **Warning: `{OFFLINE_RULES}`.** Rules, not a language model, wrote or graded these rows. Instructions come from a "
        "fixed set of wordings, hard negatives are mechanical edits that may state things that are not true. Good for trying "
        "the tools out and for measuring whether a model learns checkable instructions; not a substitute for real data."
    )


def _reasons(manifest: Mapping[str, Any]) -> str:
    by_stage = manifest["rejected_by_stage"]
    rows = [
        f"| {stage} | `{reason}` | {REASONS[reason]} | {n:,} |"
        for stage, reasons in by_stage.items()
        for reason, n in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    if not rows:
        return "No row was rejected."
    return "\n".join(["| rejected at | reason | in words | rows |", "| --- | --- | --- | ---: |", *rows])


def _dimensions(manifest: Mapping[str, Any]) -> str:
    lines = ["| dimension | accepted | rejected |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {n['accepted']:,} | {n['rejected']:,} |" for name, n in manifest["by_dimension"].items()]
    return "\n".join(lines)


def _cost(manifest: Mapping[str, Any]) -> str:
    tokens, cost = manifest["tokens"]["total"], manifest["cost"]
    if not tokens["prompt"]:
        return "No paid call was made."
    shown = (
        "unknown (a model's price is not known)" if manifest["cost_usd"] is None else f"{manifest['cost_usd']:,.2f} US$"
    )
    each = cost["per_accepted_tuple"]
    per_tuple = f", {each:.5f} US$ an accepted tuple" if each is not None else ""
    return (
        f"Tokens: {tokens['prompt']:,} in prompts ({tokens['cached']:,} cached), {tokens['completion']:,} in answers "
        f"({tokens['reasoning']:,} of reasoning). Cost: {shown}{per_tuple}."
    )


def read_agreement(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """What people who graded a sample of these very rows found (`python -m pipeline.audit agree`), where they have."""
    try:
        found: dict[str, Any] = json.loads((folder / "audit" / "agreement.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("inputs") == manifest["inputs"] else None


def _audit(manifest: Mapping[str, Any], folder: Path) -> str:
    found = read_agreement(manifest, folder)
    if found is None:
        return "Nobody has graded a sample of these rows yet."
    line, people = found["judge_and_people"], len(found["annotators"])
    graded = (
        f"{people} {'person' if people == 1 else 'people'} graded {found['cells_graded']:,} cells of {found['rows']:,} rows "
        "without seeing the judge's grades."
    )
    if line["kappa"] is None:
        return f"{graded} Kappa is not defined on them: there are too few, or one side gave the same grade everywhere."
    paragraphs = [
        f"{graded} Judge and people: Cohen's kappa {with_interval(line, 'kappa')} (quadratic weights), "
        f"{line['equal']:.0%} of grades equal.{_between(found['between_people'])}",
        _table(
            ("dimension", "cells", "grades equal", "kappa"),
            [
                (name, f"{of['cells']:,}", f"{of['equal']:.0%}", with_interval(of, "kappa"))
                for name, of in found["by_dimension"].items()
            ],
        ),
        "What accepting at other grades of the judge would give, with what people would accept (2, 1) as the truth; rows weigh "
        "by how many they stand for:",
        _table(
            ("relevant from", "irrelevant up to", "yield", "precision"),
            [
                tuple("–" if x is None else f"{x:.0%}" if isinstance(x, float) else str(x) for x in values)
                for of in found["thresholds"]
                for values in [[of[name] for name in ("relevant", "irrelevant", "yield", "precision")]]
            ],
        ),
    ]
    return "\n\n".join(paragraphs)


def _between(found: Mapping[str, Any]) -> str:
    figures = (("Fleiss' kappa", "kappa", found["fleiss"]), ("Krippendorff's alpha", "alpha", found["krippendorff"]))
    told = [f"{name} {with_interval(line, key)}" for name, key, line in figures if line]
    return f" Between people: {', '.join(told)}." if told else ""


def with_interval(line: Mapping[str, float | None], key: str) -> str:
    """A figure of agreement with its 95 % interval, as far as they are defined."""
    if line[key] is None:
        return "–"
    interval = "" if line["low"] is None or line["high"] is None else f" ({line['low']:.2f} to {line['high']:.2f})"
    return f"{line[key]:.2f}{interval}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *([escaped(row[0]), *row[1:]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _source(source: Mapping[str, Any]) -> str:
    counted: list[tuple[str, int]] = []
    for group in ("malformed", "duplicates", "dangling", "dropped"):
        counted += [(f"{group}: {kind}", n) for kind, n in source.get(group, {}).items() if n]
    if not counted:
        return "Nothing malformed, duplicate or dangling was met."
    return f"| met in the input | count |\n| --- | ---: |\n{_rows(counted)}"


def _near_duplicates(manifest: Mapping[str, Any]) -> str:
    near = manifest["near_duplicates"]
    if near["threshold"] is None:
        return "Near-duplicates were not looked for."
    text = (
        f"Two texts are nearly equal from a Jaccard of {near['threshold']:g} on, of word trigrams for passages, of the stems of "
        "content words for queries. Of seeds whose query and passage are both nearly equal one was asked about; of nearly equal "
        "tuples the smallest id stayed; nearly equal texts lie in one split."
    )
    for what in ("seeds", "tuples"):
        if near[what]:
            sizes = ", ".join(f"{n:,} of {size}" for size, n in near[what].items())
            text += f" Clusters of {what}: {sizes}."
    return text


def _mining(manifest: Mapping[str, Any]) -> str:
    mined = manifest["mining"]
    if mined is None:
        return "No negatives were mined: the columns `mined_*` are null."
    how = "BM25" if mined["method"] == "bm25" else f"cosine under {escaped(str(mined['model']))}"
    grades = ", ".join(
        f"{n:,} {name if name.isalpha() else f'graded {name}'}" for name, n in mined["first_grades"].items()
    )
    return (
        f"Each row has up to {mined['k']} passages of the source that come closest to Q+ by {how} and are not judged relevant to "
        "it, nor nearly equal to P+ or to each other, nor in another split: `mined_documents`, with `mined_document_ids` and "
        f"`mined_scores`; {mined['passages']:,} in all. `mined_relevance` holds the judge's grade of the first under (I+, Q+) "
        f"and null for the others: {grades or 'no row'}. From {manifest['thresholds']['relevant']} on it is a false negative."
    )


def _exclusions(source: Mapping[str, Any]) -> str:
    if not source["excluded_queries"]:
        return "No benchmark's queries were kept out."
    dropped = source["dropped"].get("excluded_query", 0)
    return (
        f"{source['excluded_queries']:,} queries of benchmarks were kept out: {dropped:,} pairs whose query equals or nearly "
        "equals one of them were dropped."
    )


def _rows(pairs: Sequence[tuple[str, int]]) -> str:
    return "\n".join(f"| {escaped(name)} | {n:,} |" for name, n in pairs)


def _examples(manifest: Mapping[str, Any], folder: Path, prefix: str) -> str:
    """The first rows, one a file where there are several, so that they differ."""
    shown: list[str] = []
    for file in [f for f in manifest["files"] if f["path"].startswith(prefix) and f["rows"]]:
        wanted = EXAMPLES if prefix == "rejected/" else 1
        batch = next(pq.ParquetFile(folder / file["path"]).iter_batches(batch_size=wanted))
        shown += [_example(row) for row in batch.to_pylist()]
        if len(shown) >= EXAMPLES:
            break
    return "\n\n".join(shown[:EXAMPLES]) or "None."


def _example(row: Mapping[str, Any]) -> str:
    lines = [f"- **{escaped(row['id'])}**, {escaped(row['dimension'])}, {escaped(row['form'])}"]
    if "reason" in row:
        lines.append(f"  - {escaped(row['stage'])}: `{row['reason']}`, {escaped(row['detail'])}")
    lines += [f"  - `{name}`: {escaped(row[name])}" for name in TEXT_COLUMNS if row[name]]
    if row["relevance"]:
        lines.append(f"  - `relevance`: {escaped(str(row['relevance']))}")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text as text in markdown: one line, no mark of it active, control characters gone, cut where it is long."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]} …"
    return _MARKS.sub(r"\\\1", line)


def _licence_header(source: Mapping[str, Any]) -> dict[str, str]:
    names = {LICENCE_SAMPLE: "apache-2.0", LICENCE_MS_MARCO: "ms-marco-non-commercial-research"}
    name = names.get(source.get("licence", ""), "terms-of-the-source")
    return {"license": name} if name == "apache-2.0" else {"license": "other", "license_name": name}


def _licence(source: Mapping[str, Any]) -> str:
    if source.get("licence") == LICENCE_SAMPLE:
        return "The queries and passages of the embedded sample were written for the project: Apache-2.0."
    return (
        "Queries and passages of MS MARCO are for non-commercial research purposes only, by its terms of use; so is what is "
        "derived from them here. For another source, its own terms hold. Texts written by a model are subject to its "
        "provider's terms."
    )
