"""manifest.json: what a data set is made of, validated by its own schema before it is written."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs

from pipeline.accounts import Accounts
from pipeline.chat.money import Prices
from pipeline.chat.request import Usage
from pipeline.errors import UsageError
from pipeline.recipe import Recipe, shown_name
from pipeline.records import OFFLINE, SPLITS, STAGES
from pipeline.shards import file_sha256
from pipeline.tasks import load_schema
from pipeline.versions import versions

FORMAT = 1


def build(
    *,
    accounts: Accounts,
    recipe: Recipe,
    prices: Prices,
    source: Mapping[str, Any],
    near_duplicates: Mapping[str, Any],
    mining: Mapping[str, Any] | None,
    files: Sequence[Mapping[str, Any]],
    calls: Counter[tuple[str, str]],
    arguments: Mapping[str, Any],
    inputs: str,
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest, checked: its counts add up and it fits schemas/manifest.json. A misfit is a defect: ValueError."""
    outcomes = accounts.outcomes
    made = {
        "format": FORMAT,
        "inputs": inputs,
        "counts": {
            "seeds": outcomes.total(),
            **{outcome: outcomes[outcome] for outcome in ("accepted", "rejected", "deferred")},
        },
        "rejected_by_reason": _by_reason(accounts, "rejected"),
        "rejected_by_stage": _by_stage(accounts),
        "deferred_by_reason": _by_reason(accounts, "deferred"),
        "source": dict(source),
        "near_duplicates": dict(near_duplicates),
        "mining": mining,
        "splits": {split: accounts.splits[split] for split in SPLITS},
        "by_dimension": _outcomes_by(accounts.dimensions),
        "by_form": _outcomes_by(accounts.forms),
        "files": list(files),
        "models": _models(accounts, recipe),
        "thresholds": {"relevant": recipe.thresholds.relevant, "irrelevant": recipe.thresholds.irrelevant},
        "prompts": recipe.prompt_hashes | {"dimensions": recipe.dimensions.hash},
        "schemas": {name: task.schema_hash for name, task in recipe.tasks.items()},
        "calls": {
            task: {what: calls[task, what] for what in ("made", "from_memory", "failed_attempts")}
            for task in recipe.tasks
        },
        "tokens": _tokens(accounts, recipe),
        **_cost(accounts, recipe, prices),
        "versions": versions(),
        "arguments": dict(arguments),
        "run": dict(run),
    }
    check(made)
    return made


def check(made: Mapping[str, Any]) -> None:
    """Raise ValueError where a manifest breaks its schema or its counts do not add up."""
    error = next(jsonschema_rs.validator_for(load_schema("manifest")).iter_errors(made), None)
    if error:
        where = "/".join(str(step) for step in error.instance_path)
        raise ValueError(f"manifest: {where}: {error.message}")
    counts = made["counts"]
    rows = Counter[str]()
    for file in made["files"]:
        rows["rejected" if file["path"].startswith("rejected/") else "accepted"] += file["rows"]
    sums = {
        "seeds": counts["accepted"] + counts["rejected"] + counts["deferred"],
        "accepted": sum(made["splits"].values()),
        "rejected": sum(made["rejected_by_reason"].values()),
        "deferred": sum(made["deferred_by_reason"].values()),
    }
    for name, total in [*sums.items(), ("accepted", rows["accepted"]), ("rejected", rows["rejected"])]:
        if counts[name] != total:
            raise ValueError(f"manifest: counts.{name} is {counts[name]}, and its parts sum to {total}")


def read(file: Path) -> dict[str, Any] | None:
    """A manifest that is there and sound, else None."""
    try:
        made: dict[str, Any] = json.loads(file.read_text("utf-8"))
        check(made)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return made


def read_output(folder: Path) -> dict[str, Any]:
    """The manifest of a finished output folder. Anything else is a UsageError that says what is wrong with it."""
    file = folder / "manifest.json"
    try:
        made: dict[str, Any] = json.loads(file.read_text("utf-8"))
        check(made)
    except FileNotFoundError:
        what = "there is no such folder" if not folder.exists() else "it has no manifest.json"
        raise UsageError(f"{folder} is not an output of pipeline.run: {what}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file} can't be used ({' '.join(str(error).split())[:200]}); run the same pipeline.run command again, it "
            "restores the folder without a call"
        ) from error
    return made


def write(made: Mapping[str, Any], file: Path) -> None:
    """Write aside and rename."""
    aside = file.with_suffix(".tmp")
    aside.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", "utf-8")
    aside.replace(file)


def files_are_intact(made: Mapping[str, Any], folder: Path) -> bool:
    """Whether every file is there with the checksum that the manifest gives."""
    return all(
        (folder / file["path"]).is_file() and file_sha256(folder / file["path"]) == file["sha256"]
        for file in made["files"]
    )


def _by_reason(accounts: Accounts, outcome: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (ended, _, reason), n in accounts.reasons.items():
        if ended == outcome:
            counts[reason] += n
    return dict(sorted(counts.items()))


def _by_stage(accounts: Accounts) -> dict[str, dict[str, int]]:
    """In the order of the flow."""
    stages: dict[str, dict[str, int]] = defaultdict(dict)
    for (ended, stage, reason), n in sorted(accounts.reasons.items()):
        if ended == "rejected":
            stages[stage][reason] = n
    return {stage: stages[stage] for stage in STAGES if stage in stages}


def _outcomes_by(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    names = sorted({name for name, _ in counts})
    return {
        name: {outcome: counts[name, outcome] for outcome in ("accepted", "rejected", "deferred")} for name in names
    }


def _models(accounts: Accounts, recipe: Recipe) -> dict[str, Any]:
    roles = (
        ("generator", recipe.generator, recipe.generator_sampling),
        ("judge", recipe.judge, recipe.judge_sampling),
    )
    return {
        role: {
            "name": shown_name(model),
            "versions": {v: n for (of, v), n in sorted(accounts.versions.items()) if of == role},
            "sampling": {} if model == OFFLINE else sampling.sent(),
        }
        for role, model, sampling in roles
    }


def _tokens(accounts: Accounts, recipe: Recipe) -> dict[str, Any]:
    total = accounts.usage_where()
    accepted = accounts.outcomes["accepted"]
    return {
        "by_task": {task: _shown(accounts.usage_where(task=task)) for task in recipe.tasks},
        "total": _shown(total),
        "per_accepted_tuple": {k: round(v / accepted, 1) for k, v in _shown(total).items()} if accepted else None,
    }


def _shown(usage: Usage) -> dict[str, int]:
    return {
        "prompt": usage.prompt_tokens,
        "cached": usage.cached_tokens,
        "completion": usage.completion_tokens,
        "reasoning": usage.reasoning_tokens,
    }


def _cost(accounts: Accounts, recipe: Recipe, prices: Prices) -> dict[str, Any]:
    """Costs in US dollars; a sum that holds an unknown price is unknown (null), never zero."""
    total, accepted = accounts.cost_where(prices), accounts.outcomes["accepted"]
    models = sorted({recipe.generator, recipe.judge})
    return {
        "cost_usd": total,
        "cost": {
            "by_task": {task: accounts.cost_where(prices, task=task) for task in recipe.tasks},
            "by_model": {shown_name(model): accounts.cost_where(prices, model=model) for model in models},
            "per_accepted_tuple": round(total / accepted, 6) if total is not None and accepted else None,
            **{outcome: accounts.cost_where(prices, outcome) for outcome in ("accepted", "rejected", "deferred")},
            "prices": {shown_name(model): prices.described(model) for model in models},
        },
    }
