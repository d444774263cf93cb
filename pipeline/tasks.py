"""The model tasks as values: prompt, schema and sampling, read once where the graph is built (DESIGN 4, 5, 8)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import orjson
import yaml

from pipeline.chat.request import ChatRequest, Message, Sampling
from pipeline.records import JUDGE_MINED, TASKS
from pipeline.yaml_text import parse_yaml


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is asked to do. The prompt is constant, so that an endpoint can cache it as a prefix.

    purpose, fails_when: the template's header, for the data card and the report.
    """

    name: str
    purpose: str
    fails_when: str
    prompt: str
    schema: dict[str, Any]
    prompt_hash: str
    schema_hash: str

    def request(self, model: str, data: Mapping[str, object], sampling: Sampling) -> ChatRequest:
        """Ask `model` about `data`.

        The data goes in as one JSON object, whose quoting is the delimiter that no text inside can close. Lone
        surrogates, which no endpoint accepts, are replaced.
        """
        try:
            text = orjson.dumps(data).decode()
        except orjson.JSONEncodeError:
            text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()
        messages = (Message("system", self.prompt), Message("user", text))
        return ChatRequest(self.name, model, messages, self.schema, sampling)


def load_tasks(mining: bool = True) -> dict[str, Task]:
    """The tasks of `prompts/` and `schemas/`, by name, in the order of the flow. A malformed file is a ValueError.

    mining: whether the run has the task of the judge that only mined passages need.
    """
    return {name: _load(name) for name in TASKS if mining or name != JUDGE_MINED}


def load_schema(name: str) -> dict[str, Any]:
    """One schema of `schemas/` as parsed."""
    schema: dict[str, Any] = json.loads(resources.files("schemas").joinpath(f"{name}.json").read_text("utf-8"))
    return schema


def short_hash(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of a text: what provenance columns show."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _load(name: str) -> Task:
    text = resources.files("prompts").joinpath(f"{name}.md").read_text("utf-8")
    try:
        _, header, prompt = text.split("---\n", 2)
        head = parse_yaml(header)
        purpose, fails_when = head["purpose"].strip(), head["fails_when"].strip()
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"prompts/{name}.md: expected a header between two '---' lines with purpose and fails_when ({error})"
        ) from error
    schema = load_schema(name)
    return Task(
        name=name,
        purpose=purpose,
        fails_when=fails_when,
        prompt=prompt.strip(),
        schema=schema,
        prompt_hash=short_hash(prompt.strip()),
        schema_hash=short_hash(json.dumps(schema, sort_keys=True)),
    )
