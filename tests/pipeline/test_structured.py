from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chat.request import Answer, ChatRequest, Message, NoAnswer, Sampling, Usage
from pipeline.chat.structured import MAX_ATTEMPTS, Unusable, fill, parse
from pipeline.tasks import load_schema, load_tasks

TASKS = load_tasks()
REQUEST = TASKS["instruct"].request("writer", {"query": "q", "passage": "p"}, Sampling())
MESSAGES = (Message("system", "grade"), Message("user", "{}"))
FITS = json.dumps({"instruction_positive": "Be brief."})


class Scripted:
    """Answers in turn, and keeps what it was asked."""

    def __init__(self, answers: Sequence[Answer | NoAnswer]) -> None:
        self.answers = list(answers)
        self.asked: list[ChatRequest] = []

    async def ask(self, request: ChatRequest) -> Answer:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, NoAnswer):
            raise answer
        return answer


def said(content: str | None, finish: str = "stop", refusal: str | None = None) -> Answer:
    return Answer(content, refusal, finish, Usage(10, 4, 3, 1), "writer-1")


def test_an_answer_that_breaks_its_schema_is_asked_for_again_with_the_validators_message() -> None:
    chat = Scripted([said('{"instruction": "x"}'), said("not json"), said(FITS)])
    filled = asyncio.run(fill(chat, REQUEST))
    assert filled.fields == {"instruction_positive": "Be brief."}
    assert [request.attempt for request in chat.asked] == [0, 1, 2]
    assert len({request.key for request in chat.asked}) == 3
    again = [m.content for m in chat.asked[1].messages]
    assert again[:2] == [m.content for m in REQUEST.messages]
    assert again[2] == '{"instruction": "x"}'
    assert "instruction_positive" in again[3]
    assert "not JSON" in chat.asked[2].messages[3].content
    assert [call.prompt_tokens for call in filled.calls] == [10, 10, 10]


def test_after_two_more_tries_the_seed_is_rejected_with_what_was_wrong_and_every_call_is_accounted_for() -> None:
    chat = Scripted([said("no")] * 9)
    with pytest.raises(Unusable) as caught:
        asyncio.run(fill(chat, REQUEST))
    assert caught.value.reason == "schema_violation"
    assert "no" in caught.value.detail
    assert len(caught.value.calls) == MAX_ATTEMPTS == len(chat.asked)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said(None, refusal="I can't help with that."), "refusal"),
        (said('{"instruction_pos', "length"), "truncated"),
        (said(FITS, "content_filter"), "content_filter"),
        (said(None, "none"), "empty_answer"),
        (said("  ", "stop"), "empty_answer"),
    ],
)
def test_an_answer_without_usable_content_has_its_own_reason_and_is_not_asked_for_again(
    answer: Answer, reason: str
) -> None:
    chat = Scripted([answer, said(FITS)])
    with pytest.raises(Unusable) as caught:
        asyncio.run(fill(chat, REQUEST))
    assert caught.value.reason == reason
    assert len(chat.asked) == 1


def test_no_answer_passes_through_so_that_the_seed_is_deferred() -> None:
    with pytest.raises(NoAnswer):
        asyncio.run(fill(Scripted([NoAnswer("budget", "reached")]), REQUEST))


def test_a_blank_text_breaks_the_task_even_where_the_schema_allows_it() -> None:
    assert parse('{"instruction_positive": " "}', TASKS["instruct"].schema) == (
        None,
        "instruction_positive: must not be blank",
    )


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["rationale", "context_1", "passage_1", "instruction_positive", "x"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_the_fast_validator_agrees_with_the_reference(value: Any) -> None:
    for name in ("instruct", "judge", "poison_query"):
        schema = load_schema(name)
        fields, problem = parse(json.dumps(value), schema)
        fits = jsonschema.Draft202012Validator(schema).is_valid(value)
        assert (fields is not None) == fits or "blank" in problem


def test_malformed_answers_of_real_models_are_refused_or_read_as_the_reference_reads_them(realdata: Path) -> None:
    schema = TASKS["judge"].schema
    reference = jsonschema.Draft202012Validator(schema)
    checked = 0
    for file, field in (("malformed-json.jsonl", "input"), ("off-format-model-outputs.jsonl", "response")):
        for line in (realdata / "odd" / file).read_text("utf-8").split("\n"):
            if not line:
                continue
            answer = json.loads(line)[field]
            fields, problem = parse(answer, schema)
            try:
                fits = reference.is_valid(json.loads(answer))
            except ValueError:
                fits = False
            assert (fields is not None) == fits
            assert fits or problem
            checked += 1
    assert checked > 400


def test_a_task_schema_is_valid_for_strict_structured_output() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["additionalProperties"] is False
                assert node["required"] == list(node["properties"])
            assert not {"minLength", "maxLength", "oneOf", "not", "if", "allOf", "$ref", "default"} & set(node)
            for value in node.values():
                walk(value)

    for task in TASKS.values():
        jsonschema.Draft202012Validator.check_schema(task.schema)
        walk(dict(task.schema.items()))


@given(st.text())
def test_no_text_of_a_data_set_can_leave_the_json_that_delimits_it(text: str) -> None:
    request = TASKS["instruct"].request("writer", {"query": text, "passage": "p"}, Sampling())
    assert [m.role for m in request.messages] == ["system", "user"]
    assert request.messages[0].content == TASKS["instruct"].prompt
    assert json.loads(request.messages[1].content) == {"query": text, "passage": "p"}


def test_lone_surrogates_are_replaced_before_they_reach_an_endpoint() -> None:
    request = TASKS["instruct"].request("writer", {"query": "half \ud83d"}, Sampling())
    request.messages[1].content.encode("utf-8")


def test_a_key_does_not_depend_on_the_order_of_a_schemas_fields_and_changes_with_everything_that_is_sent() -> None:
    def request(**changes: Any) -> ChatRequest:
        fields = {"task": "judge", "model": "m", "messages": MESSAGES, "schema": {"a": 1, "b": 2}} | changes
        return ChatRequest(**fields)

    base = request().key
    assert request(schema={"b": 2, "a": 1}).key == base
    changed = [
        request(model="n"),
        request(messages=MESSAGES[:1]),
        request(schema={"a": 1}),
        request(sampling=Sampling(temperature=0.5)),
        request(attempt=1),
    ]
    assert len({base, *(r.key for r in changed)}) == 6
    # The same bytes on every machine and Python version: this value was computed once and stays.
    assert base == "e8e27d41b406cc8bb4428b7fe1e53185b5e32abebd66398c2df844e5f2b0cb7a"
