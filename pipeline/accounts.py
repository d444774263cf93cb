"""The books of a data set, kept from what is staged and nothing else: outcomes, reasons, tokens, versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.chat.money import Prices
from pipeline.chat.request import Usage
from pipeline.near_duplicates import SEARCHES, settle
from pipeline.records import DOCUMENT, MINED_DOCUMENTS, MINED_RELEVANCE, QUERY_POSITIVE
from pipeline.splits import Texts, duplicates_and_leaks, text_key
from pipeline.staging import part_files

Spending = tuple[str, str, str]
"""outcome, task, model"""


@dataclass(slots=True)
class Accounts:
    """What became of the seeds whose outcomes are staged.

    gone: id -> (reason, detail) of tuples that passed the judge and that the data set as a whole rejects.
    reasons: (outcome, stage, reason) -> seeds. usage: (outcome, task, model) -> tokens of every answer used; paid: its US
    dollars, where the price was known when it was asked; unpriced: the tokens of the others.
    near_duplicate_clusters: size of a cluster of nearly equal tuples -> clusters. mined_grades: grade of the first mined
    passage of an accepted row (`ungraded`; `none` where nothing was found) -> rows.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    dimensions: Counter[tuple[str, str]] = field(default_factory=Counter)
    forms: Counter[tuple[str, str]] = field(default_factory=Counter)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    usage: dict[Spending, Usage] = field(default_factory=dict)
    paid: dict[Spending, float] = field(default_factory=dict)
    unpriced: dict[Spending, Usage] = field(default_factory=dict)
    gone: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    near_duplicate_clusters: Counter[int] = field(default_factory=Counter)
    mined_passages: int = 0
    mined_grades: Counter[str] = field(default_factory=Counter)

    def cost_where(
        self, prices: Prices, outcome: str | None = None, task: str | None = None, model: str | None = None
    ) -> float | None:
        """US dollars over all that match; None where the price of a part is unknown, then and now."""
        total = 0.0
        for spending in sorted(self.usage):
            spent_for, spent_task, spent_model = spending
            if outcome in (None, spent_for) and task in (None, spent_task) and model in (None, spent_model):
                rest = prices.cost(spent_model, self.unpriced[spending]) if spending in self.unpriced else 0.0
                if rest is None:
                    return None
                total += self.paid.get(spending, 0.0) + rest
        return round(total, 6)

    def usage_where(self, outcome: str | None = None, task: str | None = None, model: str | None = None) -> Usage:
        """The sum of the tokens, over all that match."""
        total = Usage()
        for (spent_for, spent_task, spent_model), usage in self.usage.items():
            if outcome in (None, spent_for) and task in (None, spent_task) and model in (None, spent_model):
                total = _sum(total, usage)
        return total


Find = Callable[[str], list[Any]]
"""Makes one of `SEARCHES`, by its name."""


def in_turn(find: Find) -> dict[str, list[Any]]:
    """What all searches find."""
    return {name: find(name) for name in SEARCHES}


def keep_accounts(
    waves: Sequence[Path], near: float = 0.0, search: Callable[[Find], Mapping[str, list[Any]]] = in_turn
) -> Accounts:
    """Read the staged outcomes of the waves' folders. Memory: some 700 bytes an accepted row, for its texts' keys.

    near: the Jaccard from which texts are nearly equal; 0 looks for equal ones alone. search: makes all searches for them.
    """
    accounts = Accounts()
    texts: list[Texts] = []
    for file in part_files(waves):
        for row in pq.read_table(file, columns=list(_COLUMNS)).to_pylist():
            if row["outcome"] == "accepted":
                texts.append(_texts(row))
    gone = duplicates_and_leaks(texts)
    del texts
    if near:
        nearly, accounts.near_duplicate_clusters = settle(search(partial(find_near, waves, gone, near)))
        gone |= nearly
    accounts.gone = gone
    for file in part_files(waves):
        for row in pq.read_table(file, columns=list(_BOOKED)).to_pylist():
            _book(accounts, row)
    return accounts


def find_near(waves: Sequence[Path], gone: Mapping[str, object], near: float, name: str) -> list[Any]:
    """What one search finds among the accepted rows that are not gone."""
    return SEARCHES[name](partial(_accepted, waves, gone), near)


def _accepted(
    waves: Sequence[Path], gone: Mapping[str, object], columns: Sequence[str], held: bool | None = None
) -> Iterator[dict[str, Any]]:
    """As `near_duplicates.Rows` has it, of the rows that are not gone."""
    wanted = [("outcome", "==", "accepted")]
    if held is not None:
        wanted.append(("split", "!=" if held else "==", "train"))
    for file in part_files(waves):
        rows = pq.read_table(file, columns=["id", "split", *columns], filters=wanted)
        yield from (row for row in rows.to_pylist() if row["id"] not in gone)


_COLUMNS = (
    "id",
    "split",
    "outcome",
    QUERY_POSITIVE,
    DOCUMENT,
    "query_negative",
    "hard_negative_document_1",
    "hard_negative_document_2",
    MINED_DOCUMENTS,
)
_BOOKED = (
    "id",
    "split",
    "outcome",
    "stage",
    "reason",
    "dimension",
    "form",
    "generator_version",
    "judge_version",
    MINED_RELEVANCE,
    "calls",
)


def _texts(row: Mapping[str, Any]) -> Texts:
    passages = (row[DOCUMENT], *(row[MINED_DOCUMENTS] or ()))
    source = (text_key(row[QUERY_POSITIVE]), *map(text_key, passages))
    generated = tuple(text_key(row[f"hard_negative_document_{i}"]) for i in (1, 2))
    return row["id"], row["split"], source, (text_key(row["query_negative"]),), generated


def _book(accounts: Accounts, row: Mapping[str, Any]) -> None:
    outcome, stage, reason = row["outcome"], row["stage"], row["reason"]
    if row["id"] in accounts.gone:
        outcome, stage, reason = "rejected", "split", accounts.gone[row["id"]][0]
    accounts.outcomes[outcome] += 1
    accounts.dimensions[row["dimension"], outcome] += 1
    accounts.forms[row["form"], outcome] += 1
    if outcome == "accepted":
        accounts.splits[row["split"]] += 1
        if (grades := row[MINED_RELEVANCE]) is not None:
            accounts.mined_passages += len(grades)
            first = "none" if not grades else "ungraded" if grades[0] is None else str(grades[0])
            accounts.mined_grades[first] += 1
    else:
        accounts.reasons[outcome, stage, reason] += 1
    for role in ("generator", "judge"):
        if version := row[f"{role}_version"]:
            accounts.versions[role, version] += 1
    for call in row["calls"]:
        key = outcome, call["task"], call["model"]
        usage = Usage(call["prompt_tokens"], call["cached_tokens"], call["completion_tokens"], call["reasoning_tokens"])
        accounts.usage[key] = _sum(accounts.usage.get(key, Usage()), usage)
        if call["cost_usd"] is None:
            accounts.unpriced[key] = _sum(accounts.unpriced.get(key, Usage()), usage)
        else:
            accounts.paid[key] = accounts.paid.get(key, 0.0) + call["cost_usd"]


def add_untouched(accounts: Accounts, seeds: int, reason: str) -> None:
    """Account for seeds of waves that this run never came to."""
    if seeds:
        accounts.outcomes["deferred"] += seeds
        accounts.reasons["deferred", "instruct", reason] += seeds


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(
        a.prompt_tokens + b.prompt_tokens,
        a.cached_tokens + b.cached_tokens,
        a.completion_tokens + b.completion_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )


def count_calls(wave: Path) -> Counter[tuple[str, str]]:
    """(task, made | from_memory | failed_attempts | latency_ms) -> n, of the outcomes of one wave just done."""
    counts: Counter[tuple[str, str]] = Counter()
    for file in part_files([wave]):
        for calls in pq.read_table(file, columns=["calls"]).column("calls").to_pylist():
            for call in calls:
                counts[call["task"], "from_memory" if call["from_memory"] else "made"] += 1
                for what in ("failed_attempts", "latency_ms"):
                    counts[call["task"], what] += call[what]
    return counts


def count_deferred(wave: Path) -> dict[str, tuple[int, str]]:
    """Reason -> seeds of a wave that wait for an answer, and the first detail."""
    found: dict[str, tuple[int, str]] = {}
    for file in part_files([wave]):
        table = pq.read_table(file, columns=["reason", "detail"], filters=[("outcome", "==", "deferred")])
        for row in table.to_pylist():
            n, detail = found.get(row["reason"], (0, row["detail"]))
            found[row["reason"]] = (n + 1, detail)
    return found
