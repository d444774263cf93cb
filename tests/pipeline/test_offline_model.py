"""The offline model: what it answers follows from measuring the texts that it is given."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chat.offline import VERSION, OfflineModel
from pipeline.chat.offline.instructing import opposite
from pipeline.chat.offline.terms import replace_terms
from pipeline.chat.offline.variation import NEAR_DUPLICATE, reworded, similarity
from pipeline.chat.request import Answer, ChatRequest, Message
from pipeline.measures import POLES, Claim, claims, group_of, satisfies
from pipeline.measures.text import word_count
from pipeline.measures.topicality import on_topic

MODEL = OfflineModel()

# Written for these tests: both poles of most dimensions occur in them as they are.
PAIRS = [
    (
        "why do lighthouses flash",
        "Lighthouses flash so that a sailor can tell one from another. Each lamp has a rhythm of its own, which is "
        "printed on the chart. If you count the seconds between two flashes, you know where you are. A steady lamp "
        "might be mistaken for a house on the shore.",
    ),
    (
        "sourdough temperature",
        "The right temperature of a sourdough matters. Keep it at 24 to 28 degrees. Below 20 degrees it may need 12 "
        "hours to rise (twice as long as usual). "
        "Above 35 degrees the yeast could die. According to most bakers, a warm oven with its light on will do.",
    ),
    (
        "history of the ballpoint pen",
        "The ballpoint pen was patented in 1888 by a tanner who wanted to write on leather, but his pen leaked in warm "
        "weather and was soon forgotten. In 1938 a newspaper editor tried again with thicker ink, which dried at once "
        "and did not smear, and his pens went to pilots, for example, because fountain pens leaked at high altitude.",
    ),
    (
        "is learning the violin hard",
        "\"It's the hardest thing I've ever done,\" my neighbor said after her first violin lesson. We laughed. But "
        "isn't every beginning hard? I don't regret a single hour with my violin. My teacher wasn't strict, and we "
        "played songs from the first week.",
    ),
    (
        "what is a gerund",
        "A gerund is a form of a verb that ends in ing and stands where a noun could stand. It can be the subject of a "
        "sentence, its object, or the word after a preposition. Gerunds such as swimming and reading name activities.",
    ),
    (
        "camping checklist for families",
        "Things to take on a family camping trip:\n- a tent with pegs\n- sleeping bags\n- a camping stove\n- water\n"
        "- matches in a dry box\n- a torch for everybody",
    ),
]
SLOW = settings(deadline=None, max_examples=60)


def ask(task: str, data: dict[str, Any]) -> Answer:
    content = json.dumps(data, ensure_ascii=False)
    return MODEL.answer(ChatRequest(task, "offline", (Message("system", "…"), Message("user", content)), {}))


def filled(task: str, data: dict[str, Any]) -> dict[str, Any]:
    answer = ask(task, data)
    assert answer.content is not None, answer.refusal
    found: dict[str, Any] = json.loads(answer.content)
    return found


def instruct(query: str, passage: str, dimension: str, form: str = "sentence", group: str = "a") -> Answer:
    shape = {"dimension": {"name": dimension}, "form": {"name": form}, "wording_group": group}
    return ask("instruct", {**shape, "query": query, "passage": passage})


def conversation(query: str, passage: str, dimension: str, form: str = "sentence", group: str = "a") -> dict[str, Any]:
    """The tuple and its matrix, or the refusal that ended it under the task's name."""
    made: dict[str, Any] = {"query": query, "passage": passage}
    answer = instruct(query, passage, dimension, form, group)
    if answer.content is None:
        return made | {"refused": "instruct", "why": answer.refusal}
    made["instruction"] = json.loads(answer.content)["instruction_positive"]
    data = {"query": query, "passage": passage, "instruction": made["instruction"]}
    for task in ("poison_instruction", "poison_query"):
        answer = ask(task, data)
        if answer.content is None:
            return made | {"refused": task, "why": answer.refusal}
        made |= json.loads(answer.content)
    made["matrix"], made["rationale"] = matrix(made)
    return made


def matrix(made: dict[str, Any]) -> tuple[list[list[int]], str]:
    contexts = [
        {"instruction": made["instruction"], "query": made["query"]},
        {"instruction": made["instruction_negative"], "query": made["query"]},
        {"instruction": made["instruction"], "query": made["query_negative"]},
    ]
    passages = [made["passage"], made["hard_negative_document_1"], made["hard_negative_document_2"]]
    graded = filled("judge", {"contexts": contexts, "passages": passages})
    grades = [[graded[f"context_{c}"][f"passage_{p}"] for p in (1, 2, 3)] for c in (1, 2, 3)]
    return grades, graded["rationale"]


EVERY = [
    pytest.param(query, passage, dimension, id=f"{dimension}-{query.split()[-1]}")
    for (query, passage), dimension in itertools.product(PAIRS, POLES)
]


@pytest.mark.parametrize(("query", "passage", "dimension"), EVERY)
def test_a_conversation_gives_a_tuple_whose_matrix_holds_by_measurement(
    query: str, passage: str, dimension: str
) -> None:
    made = conversation(query, passage, dimension)
    if "refused" in made:
        assert made["refused"] == "instruct"
        assert "between the poles" in made["why"]
        return
    assert made["matrix"][0] == [3, 1, 0]
    assert made["matrix"][1] == [1, 3, 0]
    assert made["matrix"][2][0] == 0
    assert made["matrix"][2][2] == 3
    positive, negative = claims(made["instruction"]), claims(made["instruction_negative"])
    assert group_of(made["instruction"])[2:] == group_of(made["instruction_negative"])[2:] == ("a", "sentence")
    assert positive[0].dimension == negative[0].dimension == dimension
    assert positive[0].pole != negative[0].pole
    assert satisfies(made["instruction"], passage)
    assert not satisfies(made["instruction_negative"], passage)
    assert satisfies(made["instruction_negative"], made["hard_negative_document_1"])
    assert not satisfies(made["instruction"], made["hard_negative_document_1"])
    assert satisfies(made["instruction"], made["hard_negative_document_2"])
    assert on_topic(made["query_negative"], made["hard_negative_document_2"])
    assert not on_topic(query, made["hard_negative_document_2"])
    assert not on_topic(made["query_negative"], passage)


def test_both_directions_of_every_dimension_are_edited() -> None:
    """P-1 has the other pole; asked again about P-1 the model goes back to the first."""
    seen: set[tuple[str, str]] = set()
    for (query, passage), dimension in itertools.product(PAIRS, POLES):
        made = conversation(query, passage, dimension)
        if "refused" in made:
            continue
        back = conversation(query, made["hard_negative_document_1"], dimension)
        for step in (made, back):
            if "refused" not in step:
                seen.add((dimension, claims(step["instruction"])[0].pole))
    assert seen == {(dimension, pole) for dimension, poles in POLES.items() for pole in poles}


def test_few_hard_negatives_are_near_duplicates() -> None:
    made = [conversation(q, p, d) for (q, p), d in itertools.product(PAIRS, POLES)]
    tuples = [m for m in made if "refused" not in m]
    for name in ("hard_negative_document_1", "hard_negative_document_2"):
        close = [m for m in tuples if similarity(m[name], m["passage"]) >= NEAR_DUPLICATE]
        assert len(close) <= 0.1 * len(tuples)


@pytest.mark.parametrize("group", "abcdef")
@pytest.mark.parametrize("form", ["keywords", "sentence", "paragraph", "profile"])
def test_the_instruction_comes_in_the_drawn_group_and_form(group: str, form: str) -> None:
    for dimension in POLES:
        made = conversation(*PAIRS[0], dimension, form, group)
        if "refused" not in made:
            assert group_of(made["instruction"])[2:] == (group, form)
            assert group_of(made["instruction_negative"])[2:] == (group, form)


def test_one_word_too_many_changes_the_matrix() -> None:
    query, passage = PAIRS[0]
    bound = word_count(passage)
    made = {
        "query": query,
        "passage": passage,
        "instruction": f"Keep the answer to {bound} words or fewer.",
        "instruction_negative": f"Give me a long answer of {bound + 15} words or more.",
        "query_negative": "why do pillows flash",
        "hard_negative_document_1": passage + " lamp" * 15,
        "hard_negative_document_2": "Pillows do flash.",
    }
    assert matrix(made)[0] == [[3, 1, 0], [1, 3, 0], [0, 0, 3]]
    longer = {**made, "passage": passage + " indeed"}
    assert matrix(longer)[0] == [[1, 1, 0], [1, 3, 0], [0, 0, 3]]
    shorter = {**made, "hard_negative_document_1": passage + " lamp" * 14}
    assert matrix(shorter)[0] == [[3, 1, 0], [1, 1, 0], [0, 0, 3]]


def test_the_judge_grades_texts_and_not_places() -> None:
    made = conversation(*PAIRS[1], "figures")
    contexts = [{"instruction": made["instruction"], "query": made["query"]}] * 3
    passages = [made["hard_negative_document_2"], made["passage"], made["hard_negative_document_1"]]
    graded = filled("judge", {"contexts": contexts, "passages": passages})
    assert [graded["context_1"][f"passage_{p}"] for p in (1, 2, 3)] == [0, 3, 1]
    assert graded["context_1"] == graded["context_2"] == graded["context_3"]


def test_where_nothing_measurable_is_asked_the_topic_alone_gives_a_two() -> None:
    query, passage = PAIRS[0]
    contexts = [{"instruction": "for sailors, please", "query": query}] * 3
    graded = filled("judge", {"contexts": contexts, "passages": [passage, "Nothing here.", passage]})
    assert list(graded["context_1"].values()) == [2, 0, 2]


def test_the_rationale_is_one_sentence_of_measured_facts() -> None:
    made = conversation(*PAIRS[1], "figures")
    count = claims(made["instruction"])[0].measured(made["passage"])
    assert count in made["rationale"]
    assert made["rationale"].count(". ") == 0


def test_answers_are_a_function_of_the_request() -> None:
    first = [conversation(q, p, d) for (q, p), d in itertools.product(PAIRS, POLES)]
    second = [conversation(q, p, d) for (q, p), d in reversed(list(itertools.product(PAIRS, POLES)))]
    assert first == second[::-1]


def test_a_request_that_is_asked_again_gets_the_same_answer() -> None:
    data = json.dumps(
        {"query": PAIRS[0][0], "passage": PAIRS[0][1], "instruction": "Give me an answer without quotes."}
    )
    messages = (Message("system", "…"), Message("user", data))
    again = (*messages, Message("assistant", "{}"), Message("user", json.dumps({"problem": "a field is missing"})))
    answers = [
        MODEL.answer(ChatRequest("poison_query", "offline", m, {}, attempt=a)) for a, m in enumerate((messages, again))
    ]
    assert answers[0] == answers[1]
    assert answers[0].model_version == VERSION


@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("instruct", {"dimension": {"name": "audience"}, "form": {"name": "sentence"}}),
        ("instruct", {"dimension": {"name": "figures"}, "form": {"name": "sonnet"}}),
        ("poison_instruction", {"instruction": "Write it for sailors."}),
        ("poison_query", {"instruction": "Write it for sailors.", "query": "boil an egg"}),
    ],
)
def test_what_the_rules_cannot_do_is_a_refusal_of_one_sentence(task: str, data: dict[str, Any]) -> None:
    answer = ask(task, {"query": PAIRS[0][0], "passage": PAIRS[0][1], **data})
    assert answer.content is None
    assert answer.refusal is not None
    assert answer.refusal.endswith(".")
    assert answer.finish_reason == "stop"


WORDS = st.sampled_from(
    [
        "lighthouse",
        "flash",
        "you",
        "may",
        "1998",
        "3.5",
        "isn't",
        "(aside)",
        "e.g.",
        "I",
        '"quoted words"',
        "why?",
        "is",
    ]
)
PASSAGES = st.lists(st.lists(WORDS, min_size=1, max_size=25).map(" ".join), min_size=1, max_size=8).map(". ".join)


@SLOW
@given(PASSAGES, st.sampled_from(list(POLES)), st.sampled_from("abcdef"))
def test_whatever_is_answered_holds_by_measurement(passage: str, dimension: str, group: str) -> None:
    made = conversation("lighthouse", passage, dimension, group=group)
    if "refused" not in made:
        assert made["matrix"][0] == [3, 1, 0]
        assert made["matrix"][1][1] == made["matrix"][2][2] == 3


@SLOW
@given(st.text(max_size=80), st.text(max_size=200), st.sampled_from(list(POLES)))
def test_no_text_crashes_the_rules(query: str, passage: str, dimension: str) -> None:
    made = conversation(query, passage, dimension)
    assert "refused" in made or made["matrix"]


def test_naughty_strings_crash_nothing() -> None:
    path = Path(__file__).parents[3] / "shared" / "realdata" / "odd" / "naughty-strings.json"
    naughty = (
        json.loads(path.read_text(encoding="utf-8"))
        if path.exists()
        else ["\u202e", "\ud800", "🏳\u200d🌈", "' OR 1=1", "\0"]
    )
    for i, text in enumerate(naughty):
        dimension = list(POLES)[i % len(POLES)]
        made = conversation(text, f"{text} {PAIRS[0][1]} {text}", dimension)
        assert "refused" in made or made["matrix"]
        assert isinstance(claims(text), tuple)


def test_opposite_lengths_are_twice_or_half() -> None:
    for number in (10, 45, 100, 300):
        low, high = Claim("length", "at_most", number), Claim("length", "at_least", number)
        assert opposite(low).number >= max(2 * number, number + 15)
        assert opposite(high).number <= max(10, number // 2)


def test_a_replaced_term_keeps_case_number_possessive_and_article() -> None:
    text = "An otter, THE OTTER, two otters; Otter's den. Another otterhound."
    swaps = {"otter": "falcon"}
    assert replace_terms(text, swaps) == "A falcon, THE FALCON, two falcons; Falcon's den. Another otterhound."


def test_rewording_moves_no_measured_pole() -> None:
    for _, passage in PAIRS:
        for dimension, poles in POLES.items():
            for pole in poles:
                number = word_count(passage) if dimension == "length" else None
                claim = Claim(dimension, pole, number, "pen" if dimension == "mention" else None)
                assert claim.holds(passage) == claim.holds(reworded(passage))
