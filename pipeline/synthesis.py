"""The conversations that make a tuple: I+ first, then (I-, P-1) and (Q-, P-2) side by side."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pipeline.chat.request import NoAnswer
from pipeline.chat.structured import Asks, Filled, Unusable, fill
from pipeline.recipe import Recipe
from pipeline.records import Deferred, Rejected, Tuple

Outcome = Tuple | Rejected | Deferred


async def instruct(t: Tuple, recipe: Recipe, chat: Asks) -> Outcome:
    """Ask for I+, an instruction that P+ obeys, along the seed's dimension and in its form."""
    try:
        filled = await fill(chat, recipe.request("instruct", instruct_data(t, recipe)))
    except (NoAnswer, Unusable) as failure:
        return ended(t, "instruct", failure)
    return _with(t, filled)


async def poison(t: Tuple, recipe: Recipe, chat: Asks) -> Outcome:
    """Ask for (I-, P-1) and (Q-, P-2) at the same time.

    Where both fail, the instruction's failure is the one that is told, whichever came first.
    """
    asked = await asyncio.gather(
        fill(chat, recipe.request("poison_instruction", poison_instruction_data(t, recipe))),
        fill(chat, recipe.request("poison_query", poison_query_data(t))),
        return_exceptions=True,
    )
    failures: list[tuple[str, NoAnswer | Unusable]] = []
    for stage, answer in zip(("poison_instruction", "poison_query"), asked, strict=True):
        if isinstance(answer, Filled):
            t = _with(t, answer)
        elif isinstance(answer, NoAnswer | Unusable):
            failures.append((stage, answer))
        else:
            raise answer
    for _, failure in failures[1:]:
        t = replace(t, calls=t.calls + getattr(failure, "calls", ()))
    return ended(t, *failures[0]) if failures else t


def instruct_data(t: Tuple, recipe: Recipe) -> dict[str, object]:
    """What prompts/instruct.md says the user message holds."""
    dimension, form = recipe.drawn(t)
    return {
        "dimension": {
            "name": dimension.name,
            "definition": dimension.definition,
            "examples": list(dimension.examples),
        },
        "form": {"name": form.name, "definition": form.definition},
        **_wording_group(t),
        "query": t.query_positive,
        "passage": t.document,
    }


def poison_instruction_data(t: Tuple, recipe: Recipe) -> dict[str, object]:
    """What prompts/poison_instruction.md says the user message holds."""
    dimension, form = recipe.drawn(t)
    return {
        "dimension": {
            "name": dimension.name,
            "definition": dimension.definition,
            "poisoning": dimension.poisoning,
        },
        "form": {"name": form.name, "definition": form.definition},
        **_wording_group(t),
        **poison_query_data(t),
    }


def poison_query_data(t: Tuple) -> dict[str, object]:
    """What prompts/poison_query.md says the user message holds."""
    return {"query": t.query_positive, "passage": t.document, "instruction": t.instruction_positive}


def ended(t: Tuple, stage: str, failure: NoAnswer | Unusable) -> Rejected | Deferred:
    """A seed whose conversation stopped: rejected when the answer can't be used, deferred when there is none yet."""
    if isinstance(failure, NoAnswer):
        return Deferred(t, stage, failure.reason, failure.detail)
    return Rejected(replace(t, calls=t.calls + failure.calls), stage, failure.reason, failure.detail)


def _with(t: Tuple, filled: Filled) -> Tuple:
    return replace(t, **filled.fields, generator_version=filled.model_version, calls=t.calls + filled.calls)


def _wording_group(t: Tuple) -> dict[str, object]:
    """Only the offline model draws its wording from groups of paraphrases; a real model is not told of them."""
    return {} if t.wording_group is None else {"wording_group": t.wording_group}
