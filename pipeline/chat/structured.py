"""Asks until an answer fills its schema: at most three times, then says why it can't be used."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import jsonschema_rs
import orjson

from pipeline.chat.request import Answer, ChatRequest, Message
from pipeline.records import Call

MAX_ATTEMPTS = 3
"""The first asking and two more with the validator's message: past that, models repeat their mistake."""

_PROBLEMS = 3  # of an answer, told at once: a model mends what it is told
_SHOWN = 300  # characters of an answer that a message quotes


class Asks(Protocol):
    """Anything that answers a request, such as `pipeline.chat.session.Chat`."""

    async def ask(self, request: ChatRequest) -> Answer:
        """The answer; raises NoAnswer when there is none now."""


@dataclass(frozen=True, slots=True)
class Filled:
    """An answer that fills its schema."""

    fields: dict[str, Any]
    model_version: str
    calls: tuple[Call, ...]


class Unusable(Exception):
    """The model answered, and the answer can't be used. `reason` is a code of `records.REASONS`."""

    def __init__(self, reason: str, detail: str, calls: tuple[Call, ...]) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.calls = calls


async def fill(chat: Asks, request: ChatRequest) -> Filled:
    """Ask, validate, and ask again with the validator's message, at most `MAX_ATTEMPTS` times.

    Raises Unusable, and NoAnswer from the chat.
    """
    calls: tuple[Call, ...] = ()
    while True:
        answer = await chat.ask(request)
        calls += (_call(request, answer),)
        if reason := _ended_without_content(answer):
            raise Unusable(reason, _quote(answer.refusal or answer.content or answer.finish_reason), calls)
        content = answer.content or ""
        fields, problem = parse(content, request.schema)
        if fields is not None:
            return Filled(fields, answer.model_version, calls)
        if request.attempt + 1 == MAX_ATTEMPTS:
            raise Unusable("schema_violation", f"{problem}; the answer was {_quote(content)}", calls)
        request = _again(request, content, problem)


def parse(content: str, schema: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The object that fills the schema and "", or None and what is wrong, in words that a model can act on."""
    try:
        fields = orjson.loads(content)
    except ValueError as error:
        return None, f"The answer is not JSON: {error}"
    problems = [_told(error) for error in islice(_validator(schema).iter_errors(fields), _PROBLEMS)]
    if problems:
        return None, "; ".join(problems)
    blank = [name for name, value in fields.items() if isinstance(value, str) and not value.strip()]
    if blank:
        return None, f"{blank[0]}: must not be blank"
    return fields, ""


_validators: dict[int, tuple[dict[str, Any], Any]] = {}
_MOST_VALIDATORS = 64  # a run has one a task; a process that makes schemas without end starts anew


def _validator(schema: dict[str, Any]) -> Any:
    """The compiled schema. By identity: hashing a schema's text would cost more than validating an answer."""
    known = _validators.get(id(schema))
    if known is None:
        if len(_validators) >= _MOST_VALIDATORS:
            _validators.clear()
        # the schema is kept too, so that no other can get its identity
        known = _validators[id(schema)] = (schema, jsonschema_rs.validator_for(schema))
    return known[1]


def _told(error: Any) -> str:
    where = "/".join(str(step) for step in error.instance_path) or "the answer"
    return f"{where}: {_quote(error.message)}"


def _ended_without_content(answer: Answer) -> str | None:
    if answer.refusal:
        return "refusal"
    if answer.finish_reason == "length":
        return "truncated"
    if answer.finish_reason == "content_filter":
        return "content_filter"
    if not (answer.content and answer.content.strip()):
        return "empty_answer"
    return None


def _again(request: ChatRequest, content: str, problem: str) -> ChatRequest:
    """The same question with the bad answer and what was wrong with it. Only the last bad answer is shown: tokens cost."""
    hint = json.dumps({"problem": problem, "wanted": "the same JSON object, corrected, and nothing else"})
    shown = content.encode("utf-8", "replace").decode()  # a lone surrogate, which JSON can spell, can't be sent
    tail = (Message("assistant", shown), Message("user", hint))
    return replace(request, messages=request.messages[:2] + tail, attempt=request.attempt + 1)


def _call(request: ChatRequest, answer: Answer) -> Call:
    usage = answer.usage
    return Call(
        task=request.task,
        model=request.model,
        from_memory=answer.from_memory,
        failed_attempts=answer.failed_attempts,
        latency_ms=round(answer.latency_s * 1000),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=answer.cost_usd,
    )


def _quote(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … ({len(text)} characters)"
