"""One question to a model and its answer, as values. Sending them is `pipeline.chat.session`'s business."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import orjson

from pipeline.records import DEFERRALS


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message. `content` holds instructions of ours (system) or data as JSON (user)."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """Generation settings; None is not sent, so that reasoning models, which refuse a temperature, work."""

    temperature: float | None = None
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None

    def sent(self) -> dict[str, Any]:
        """The settings that are sent."""
        return _sent(self)


@lru_cache(maxsize=16)
def _sent(sampling: Sampling) -> dict[str, Any]:
    return {name: value for name, value in asdict(sampling).items() if value is not None}


@dataclass(frozen=True)
class ChatRequest:
    """One question. `key` is stable across runs, machines and Python versions.

    task: which of `records.TASKS` asks; for the accounts only, not part of the key.
    schema: the JSON Schema (2020-12) that the answer must fill, as parsed from `schemas/TASK.json`.
    attempt: 0 for the first asking; an answer that broke its schema is asked for again with 1, then 2.
    """

    task: str
    model: str
    messages: tuple[Message, ...]
    schema: dict[str, Any] = field(hash=False)
    sampling: Sampling = Sampling()
    attempt: int = 0

    @cached_property
    def body(self) -> dict[str, Any]:
        """The request as `POST /chat/completions` takes it, with the schema as strict structured output."""
        return {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": self.task, "strict": True, "schema": self.schema},
            },
            **self.sampling.sent(),
        }

    @cached_property
    def content(self) -> bytes:
        """The body as it is sent."""
        return orjson.dumps(self.body)

    @cached_property
    def key(self) -> str:
        """SHA-256, in hex, of the canonical request and the attempt number (DESIGN invariant 2)."""
        return hashlib.sha256(orjson.dumps([self.body, self.attempt], option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the endpoint counted them. Cached tokens are part of prompt, reasoning tokens part of completion."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `content` is the text that should fill the schema, None where there was none.

    finish_reason: as the endpoint said (`stop`, `length`, `content_filter`, …); `none` for an answer without choices.
    failed_attempts: transport attempts that failed before this answer; latency_s: of the attempt that succeeded.
    cost_usd: what it cost when it was asked; None where its price was unknown.
    """

    content: str | None
    refusal: str | None
    finish_reason: str
    usage: Usage
    model_version: str
    failed_attempts: int = 0
    latency_s: float = 0.0
    from_memory: bool = False
    cost_usd: float | None = None


class NoAnswer(Exception):
    """There is no answer now, and the run goes on without it: the seed is deferred.

    reason: a code of `records.DEFERRALS`; detail: one sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in DEFERRALS, reason
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
