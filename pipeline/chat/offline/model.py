"""The embedded model: rules behind the same interface as an endpoint. No key, no network, no weights, no state."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.chat.offline.chance import Chance
from pipeline.chat.offline.instructing import CannotAnswerError, instruct, positive_claim
from pipeline.chat.offline.judging import judge
from pipeline.chat.offline.poisoning import poison_instruction, poison_query
from pipeline.chat.request import Answer, ChatRequest, Usage

VERSION: Final = "offline-rules-4"


class OfflineModel:
    """Answers a request as a function of its task and its last data message alone."""

    def answer(self, request: ChatRequest) -> Answer:
        """The answer as an endpoint would give it. What the rules cannot do is a refusal, in one sentence."""
        try:
            data = _data(request)
            content = json.dumps(_TASKS[request.task](data), ensure_ascii=False)
        except CannotAnswerError as reason:
            return Answer(None, str(reason), "stop", Usage(), VERSION)
        return Answer(content, None, "stop", Usage(), VERSION)


def _data(request: ChatRequest) -> Mapping[str, Any]:
    # A re-ask ends with the validator's message: the data is in the last user message before it.
    for message in reversed(request.messages):
        if message.role == "user":
            data = json.loads(message.content)
            if isinstance(data, dict) and "problem" not in data:
                return data
    raise CannotAnswerError("The request holds no data.")


def _chance(data: Mapping[str, Any], *fields: str) -> Chance:
    return Chance("\0".join(str(data[field]) for field in fields))


def _instruct(data: Mapping[str, Any]) -> dict[str, Any]:
    dimension, form = data["dimension"]["name"], data["form"]["name"]
    chance = Chance("\0".join((dimension, form, data["query"], data["passage"])))
    claim = positive_claim(dimension, data["query"], data["passage"], chance)
    return {"instruction_positive": instruct(claim, data.get("wording_group", "a"), form, chance)}


def _poison_instruction(data: Mapping[str, Any]) -> dict[str, Any]:
    chance = _chance(data, "query", "passage", "instruction")
    instruction, passage = poison_instruction(data["query"], data["passage"], data["instruction"], chance)
    return {"instruction_negative": instruction, "hard_negative_document_1": passage}


def _poison_query(data: Mapping[str, Any]) -> dict[str, Any]:
    chance = _chance(data, "query", "passage", "instruction")
    query, passage = poison_query(data["query"], data["passage"], data["instruction"], chance)
    return {"query_negative": query, "hard_negative_document_2": passage}


def _judge(data: Mapping[str, Any]) -> dict[str, Any]:
    contexts = [(context["instruction"], context["query"]) for context in data["contexts"]]
    rationale, grades = judge(contexts, data["passages"])
    matrix = {
        f"context_{c}": {f"passage_{p}": grade for p, grade in enumerate(row, start=1)}
        for c, row in enumerate(grades, start=1)
    }
    return {"rationale": rationale, **matrix}


def _judge_mined(data: Mapping[str, Any]) -> dict[str, Any]:
    rationale, grades = judge([(data["instruction"], data["query"])], [data["passage"]])
    return {"rationale": rationale, "grade": grades[0][0]}


_TASKS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "instruct": _instruct,
    "poison_instruction": _poison_instruction,
    "poison_query": _poison_query,
    "judge": _judge,
    "judge_mined": _judge_mined,
}
