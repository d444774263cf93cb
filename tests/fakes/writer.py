"""A model for the local endpoint: fills each task's schema from the hash of what it was given, so that its judge can agree."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_NOUNS = [
    "harbour",
    "garden",
    "engine",
    "ledger",
    "mountain",
    "kitchen",
    "library",
    "orchard",
    "workshop",
    "railway",
    "bridge",
    "market",
]
_VERBS = ["holds", "carries", "feeds", "warms", "guards", "repairs", "measures", "follows"]


def tag(text: str) -> str:
    """A word that stands for a text."""
    return "z" + hashlib.sha256(text.encode()).hexdigest()[:9]


def prose(seed: str, sentences: int = 4) -> str:
    """English enough for a language check, different for every seed."""
    made = []
    for i in range(sentences):
        h = hashlib.sha256(f"{seed}:{i}".encode()).digest()
        a, b, c = (_NOUNS[h[k] % len(_NOUNS)] for k in range(3))
        verb, other = _VERBS[h[3] % len(_VERBS)], _VERBS[h[4] % len(_VERBS)]
        made.append(
            f"The {a} in the old {b} {verb} what the people of the {c} need, and it {other} the {b} of code {h[5:9].hex()}."
        )
    return " ".join(made)


def fill(task: str, data: dict[str, Any]) -> dict[str, Any]:
    """An answer that fits the task's schema."""
    if task == "instruct":
        return {
            "instruction_positive": f"Only what a careful reader would file under {tag(data['passage'])}, nothing else."
        }
    if task == "poison_instruction":
        passage = prose(f"p1 {data['instruction']} {data['query']}")
        return {
            "instruction_negative": f"Rather what belongs to the shelf marked {tag(passage)}, please.",
            "hard_negative_document_1": passage,
        }
    if task == "poison_query":
        passage = prose(f"p2 {data['instruction']} {data['query']}")
        return {"query_negative": f"{data['query']} or {tag(passage)}", "hard_negative_document_2": passage}
    if task == "judge_mined":
        return {"rationale": "Held against the marks of the context.", "grade": int(tag(data["passage"])[1], 16) % 4}
    return _judge(data)


def _judge(data: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"rationale": "Each passage was held against the marks of each context."}
    tags = [tag(passage) for passage in data["passages"]]
    for c, context in enumerate(data["contexts"], start=1):
        in_query = [t in context["query"] for t in tags]
        fits = in_query if any(in_query) else [t in context["instruction"] for t in tags]
        answer[f"context_{c}"] = {f"passage_{p}": 3 if fit else 0 for p, fit in enumerate(fits, start=1)}
    return answer


def answer(body: dict[str, Any]) -> str:
    """The content for a request body of `/v1/chat/completions`. Without a schema, the task is told by the data's fields."""
    data = json.loads(body["messages"][1]["content"])
    named = body.get("response_format", {}).get("json_schema", {}).get("name")
    return json.dumps(fill(named or _guess(data), data))


def _guess(data: dict[str, Any]) -> str:
    if "contexts" in data:
        return "judge"
    if "instruction" not in data:
        return "instruct"
    return "poison_instruction" if "dimension" in data else "poison_query"
