"""`--estimate`: what a run would ask, use, cost and take, from its own seeds, without a call.

Prompts are counted with a real tokenizer. What models will answer is not known: lengths come from the answers that the store
holds for the same task and model, where there are some, else from the seeds' own texts and usual instructions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from pipeline.chat.memory import Experience
from pipeline.chat.money import Prices
from pipeline.chat.request import ChatRequest, Usage
from pipeline.chat.tokens import PER_MESSAGE, count_tokens
from pipeline.judging import judge_data, judge_mined_data
from pipeline.recipe import Recipe
from pipeline.records import JUDGE_MINED, JUDGED, OFFLINE, Mined, Seed, Tuple
from pipeline.synthesis import instruct_data, poison_instruction_data, poison_query_data

SAMPLE = 500
"""Seeds whose prompts are counted; the rest is scaled up. Their ids are hashes' neighbours, so they are a fair draw."""

INSTRUCTION = (
    "I would like something that a person without any training can follow, told step by step and without jargon."
)
"""As long as instructions of models usually are, some 25 tokens."""
RATIONALE = "The first passage obeys the instruction in full, the others break it or answer another question than the one asked."
LATENCY_S = 3.0
"""Assumed where the store knows no answer of the model."""


@dataclass(frozen=True, slots=True)
class Line:
    """One task of a run: calls, tokens over all of them, US dollars or None, seconds."""

    task: str
    model: str
    calls: int
    usage: Usage
    cost_usd: float | None
    seconds: float
    learned_from: int


def estimate(
    seeds: Sequence[Seed],
    recipe: Recipe,
    prices: Prices,
    experience: Mapping[tuple[str, str], Experience],
    concurrency: int,
    batch: bool,
) -> list[Line]:
    """One line a task that goes to an endpoint. experience: (task, model) -> what the store's answers were like."""
    step = max(1, len(seeds) // SAMPLE)
    drawn = [recipe.start(seed) for seed in seeds[::step]]
    lines = []
    for task in recipe.tasks:
        model = recipe.judge if task in JUDGED else recipe.generator
        if model == OFFLINE:
            continue
        known = experience.get((task, model), Experience())
        counted = [_count(recipe, task, t) for t in drawn]
        prompt = round(sum(p for p, _ in counted) / len(counted) * len(seeds))
        completion = known.mean_completion or sum(c for _, c in counted) / len(counted)
        usage = Usage(
            prompt_tokens=prompt,
            cached_tokens=round(prompt * known.cached_share),
            completion_tokens=round(completion * len(seeds)),
            reasoning_tokens=round(known.mean_reasoning * len(seeds)),
        )
        seconds = len(seeds) * (known.mean_latency_s or LATENCY_S) / concurrency
        cost = prices.cost(model, usage, batch)
        lines.append(Line(task, model, len(seeds), usage, cost, seconds, known.answers))
    return lines


def show(lines: Sequence[Line], seeds: int, console: Console) -> None:
    """Print it, with what it rests on."""
    table = Table(title=f"estimate for {seeds:,} seeds; nothing was called", title_justify="left", show_edge=False)
    for name in ("task", "model", "calls", "prompt tokens", "answer tokens", "US$", "time", "learned from"):
        table.add_column(name, justify="left" if name in ("task", "model") else "right")
    for line in lines:
        table.add_row(
            line.task,
            line.model,
            f"{line.calls:,}",
            f"{line.usage.prompt_tokens:,}",
            f"{line.usage.completion_tokens:,}",
            _dollars(line.cost_usd),
            _time(line.seconds),
            f"{line.learned_from:,} answers" if line.learned_from else "assumed",
        )
    costs = [line.cost_usd for line in lines]
    total = None if None in costs else sum(cost for cost in costs if cost is not None)
    table.add_section()
    table.add_row(
        "total",
        "",
        f"{sum(line.calls for line in lines):,}",
        f"{sum(line.usage.prompt_tokens for line in lines):,}",
        f"{sum(line.usage.completion_tokens for line in lines):,}",
        _dollars(total),
        _time(sum(line.seconds for line in lines)),
        "",
    )
    console.print(table)
    if not lines:
        console.print("Generator and judge are offline: nothing to pay.")
    if any(not line.learned_from for line in lines):
        console.print(
            f"Assumed where nothing was learned: {LATENCY_S:g} s an answer, no reasoning tokens, nothing cached. Run "
            "--num-seeds 20 into the same output first, and the estimate learns from those answers.",
            soft_wrap=True,
        )
    if total is None and lines:
        console.print("A model's price is not known: give it with --price MODEL=IN,OUT[,CACHED].")


def _count(recipe: Recipe, task: str, t: Tuple) -> tuple[int, int]:
    """Prompt and answer tokens of a task for one seed, with texts of usual length where a model has yet to write them."""
    t = replace(
        t,
        instruction_positive=INSTRUCTION,
        instruction_negative=INSTRUCTION,
        query_negative=t.query_positive,
        mined=(Mined(t.document_id, t.document, 0.0),),
        hard_negative_document_1=t.document,
        hard_negative_document_2=t.document,
    )
    passage, query, instruction = (count_tokens(text) for text in (t.document, t.query_positive, INSTRUCTION))
    if task == "instruct":
        return _prompt(recipe.request(task, instruct_data(t, recipe))), instruction + 8
    if task == "poison_instruction":
        return _prompt(recipe.request(task, poison_instruction_data(t, recipe))), instruction + passage + 20
    if task == "poison_query":
        return _prompt(recipe.request(task, poison_query_data(t))), query + passage + 20
    if task == JUDGE_MINED:
        return _prompt(recipe.request(task, judge_mined_data(t))), count_tokens(RATIONALE) + 10
    return _prompt(recipe.request(task, judge_data(t))), count_tokens(RATIONALE) + 100


def _prompt(request: ChatRequest) -> int:
    return sum(count_tokens(message.content) + PER_MESSAGE for message in request.messages)


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:,.2f}"


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
