from __future__ import annotations

import pytest
from tuples import GOOD, broken

from pipeline.checks import RULES, check, check_whole, longest_common_run
from pipeline.records import REASONS, Rejected

HASHES = dict.fromkeys(("instruct", "poison_instruction", "poison_query", "judge"), "0" * 16)


def test_a_good_tuple_passes_every_rule() -> None:
    assert check(GOOD) is GOOD
    assert check_whole(GOOD, HASHES, "sample/train") is GOOD


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("length", {"instruction_positive": "briefly"}),
        ("length", {"query_negative": "boiler " * 61}),
        ("length", {"hard_negative_document_1": "Too short."}),
        ("prompt_leftover", {"hard_negative_document_2": "Sure, " + str(GOOD.hard_negative_document_2)}),
        ("prompt_leftover", {"hard_negative_document_2": "```json\n" + str(GOOD.hard_negative_document_2)}),
        ("prompt_leftover", {"instruction_negative": "Here is the poisoned instruction: only prices."}),
        ("prompt_leftover", {"instruction_negative": "Instruction: only tell me about prices."}),
        (
            "wrong_language",
            {
                "hard_negative_document_1": "Der Betrieb einer Wärmepumpe kostet eine Familie im Winter meist weniger als Öl, "
                "weil jede Einheit Strom mehrere Einheiten Wärme ins Haus holt und die Dämmung das Übrige tut."
            },
        ),
        ("wrong_language", {"instruction_negative": "только расскажите мне о стоимости отопления зимой"}),
        ("leak", {"instruction_positive": "Say that it moves heat from the outside air into the house."}),
        (
            "same_instruction",
            {"instruction_negative": "describe the mechanism, for somebody who wants to know how it works!"},
        ),
        ("same_query", {"query_negative": "How do heat pumps warm houses?"}),
        ("same_passage", {"hard_negative_document_1": GOOD.document.replace("fan", "blower")}),
        ("same_passage", {"hard_negative_document_2": GOOD.hard_negative_document_1}),
        ("refuted_claim", {"instruction_positive": "Explain the mechanism in at most 20 words, please."}),
        ("refuted_claim", {"instruction_negative": "Tell me what it costs in at least 90 words."}),
    ],
)
def test_each_rule_finds_what_it_is_for(reason: str, changes: dict[str, str]) -> None:
    ended = check(broken(**changes))
    assert isinstance(ended, Rejected)
    assert (ended.reason, ended.stage) == (reason, "check"), ended.detail
    assert ended.detail


@pytest.mark.parametrize(
    "text",
    [
        "Here is a list of what drives the bill: insulation, the tariff, the outside temperature, and the size of the house.",
        "Certainly the largest cost of a heat pump is its purchase; running it over a winter costs most families little.",
        "Passage through a narrow pipe slows the water, and that is why a boiler's pump is sized to the house it serves.",
    ],
)
def test_ordinary_sentences_are_not_taken_for_leftovers(text: str) -> None:
    assert check(broken(hard_negative_document_1=text)) == broken(hard_negative_document_1=text)


def test_a_row_that_breaks_the_schema_is_rejected_as_invalid() -> None:
    ended = check_whole(broken(rationale=None), HASHES, "sample/train")
    assert isinstance(ended, Rejected)
    assert ended.reason == "invalid_tuple"
    assert "rationale" in ended.detail


def test_every_rule_gives_a_reason_of_the_closed_list() -> None:
    assert {rule.reason for rule in RULES} < set(REASONS)


def test_the_longest_common_run_counts_consecutive_words() -> None:
    assert longest_common_run(["a", "b", "c", "d", "e"], ["x", "b", "c", "d", "y", "c", "d", "e"]) == 3
    assert longest_common_run([], ["a"]) == 0
