"""Which instructions make a measurable claim: exactly for our wordings, conservatively for anybody's."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures import POLES, Claim, claims, group_of, satisfies
from pipeline.measures.wordings import FORMS, GROUPS, HELD_OUT, TRAINED, Slots, Wording, wordings

ALL = list(wordings().all.values())


def written(wording: Wording, number: int = 75, term: str = "blue whale", which: int = 0) -> tuple[str, Slots]:
    known = wordings()
    slots = Slots(
        number if "{n}" in wording.template else None,
        term if "{term}" in wording.template else None,
        known.personas[wording.group][which] if "{persona}" in wording.template else None,
        known.purposes[wording.group][which] if "{purpose}" in wording.template else None,
    )
    return known.write(wording, slots), slots


BOTH_POLES = [(dimension, pole) for dimension, pair in POLES.items() for pole in pair]


def test_every_pole_has_34_groups_of_four_forms() -> None:
    assert set(wordings().all) == {(*p, g, f) for p, g, f in itertools.product(BOTH_POLES, GROUPS, FORMS)}


@pytest.mark.parametrize(("dimension", "pole"), BOTH_POLES)
def test_every_wording_is_recognised_as_exactly_its_claim(dimension: str, pole: str) -> None:
    for group, form in itertools.product(GROUPS, FORMS):
        wording = wordings().all[dimension, pole, group, form]
        for number, term, which in ((75, "blue whale", 0), (120, "H2O", 3)):
            instruction, slots = written(wording, number, term, which)
            assert claims(instruction) == (Claim(dimension, pole, slots.number, slots.term),)
            assert group_of(instruction) == (dimension, pole, group, form)


@given(st.sampled_from(ALL), st.integers(1, 9999), st.text(min_size=1, max_size=30), st.integers(0, 7))
def test_recognising_undoes_writing_whatever_fills_the_slots(w: Wording, number: int, term: str, which: int) -> None:
    term = term.replace('"', "") or "x"
    instruction, slots = written(w, number, term, which)
    found = wordings().recognise(instruction)
    assert found is not None
    assert (found.wording, found.slots) == (w, slots)


def test_a_wording_that_is_changed_by_a_word_is_not_ours() -> None:
    assert group_of("Keep the answer to 60 words or fewer.") == ("length", "at_most", "a", "sentence")
    assert group_of("Keep the answers to 60 words or fewer.") is None
    assert group_of("") is None


def test_held_out_groups_share_no_wording_and_no_persona_with_training() -> None:
    templates = [wording.template for wording in ALL]
    assert len(set(templates)) == len(templates)
    for lists in (wordings().personas, wordings().purposes):
        trained, validated, tested = (
            {filler for group in groups for filler in lists[group]} for groups in (TRAINED, *HELD_OUT.values())
        )
        assert trained
        assert validated
        assert tested
        assert trained.isdisjoint(validated | tested)
        assert validated.isdisjoint(tested)


def test_the_written_held_out_groups_share_little_vocabulary_with_training() -> None:
    """Of e and f, which make the far end of what is held out, half of the content words are new at least."""
    common = set(
        re.findall(r"\w+", "a an the of to in it is i am and or no not that for with as by on be my me at so what")
    )
    words: dict[str, set[str]] = {}
    for wording in ALL:
        words.setdefault(wording.group, set()).update(
            w for w in wording.template.lower().replace(",", " ").replace(".", " ").split() if w not in common
        )
    seen = set.union(*(words[group] for group in TRAINED))
    for held_out in "ef":
        assert len(words[held_out] - seen) / len(words[held_out]) > 0.5


def test_no_demand_of_a_held_out_group_is_put_in_a_phrase_of_training() -> None:
    """Four words in a row, a slot counting as one, occur in no training wording of the same pole."""

    def runs(wording: Wording) -> set[tuple[str, ...]]:
        words = re.findall(r"[\w']+", wording.template.lower())
        return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}

    for dimension, pole in BOTH_POLES:
        seen = set().union(*(runs(wordings().all[dimension, pole, g, f]) for g in TRAINED for f in FORMS))
        for group, form in itertools.product([*HELD_OUT["validation"], *HELD_OUT["test"]], ("keywords", "sentence")):
            assert not runs(wordings().all[dimension, pole, group, form]) & seen


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Answer in under 60 words.", ["at most 59 words"]),
        ("I need it in no more than two sentences.", ["at most 2 sentences"]),
        ("The passage should be given as a bulleted list.", ["at least 3 list items"]),
        ("in bullet points, please", ["at least 3 list items"]),
        ("Explain it without any numbers.", ["no figures"]),
        ("It must not contain figures.", ["no figures"]),
        ("I need a passage of at least 100 words, please.", ["at least 100 words"]),
        ("It must not exceed 80 words.", ["at most 80 words"]),
        ("Please keep it to 50 words or fewer.", ["at most 50 words"]),
        ("max 40 words", ["at most 40 words"]),
        ("Should not be longer than 70 words.", ["at most 70 words"]),
        ("Give me something under fifty words, and clear.", ["at most 49 words"]),
        ("No contractions, please.", ["no contractions"]),
        ("at least 50 words and at most 90 words", ["at most 90 words", "at least 50 words"]),
    ],
)
def test_plain_demands_in_free_wording_are_recognised(instruction: str, expected: list[str]) -> None:
    assert [str(claim) for claim in claims(instruction)] == expected


@pytest.mark.parametrize(
    "instruction",
    [
        "I am writing an essay of at least 1000 words on this.",
        "Languages with over 100 words for snow",
        "It need not be under 60 words.",
        "I don't mind if it is more than 200 words.",
        "words of at most five letters",
        "a headline of at most 8 words",
        "I want at least 3 words that rhyme with orange",
        "Find the phone number; no numbers from abroad.",
        "not as a bulleted list but as prose",
        "Rather than in bullet points, tell me a story",
        "a list of at least ten birds",
        "sentences of at most 12 words each",
        "no numbers game",
        "Without numbers, statistics mean nothing to me",
        "Not under 60 words",
        "no questions asked",
        "Explain without figures or diagrams",
        "typing speed under 40 words per minute",
        "My essay must be under 60 words.",
        "I have no lists.",
        "whether as a bulleted list or prose",
        "in other words, at most a page",
        "at least 90 words, at most 60 words",
        "",
    ],
)
def test_in_doubt_there_is_no_claim(instruction: str) -> None:
    assert claims(instruction) == ()
    assert satisfies(instruction, "Any passage.") is None


def test_satisfies_is_a_measurement() -> None:
    assert satisfies("in under 4 words", "one two three") is True
    assert satisfies("in under 4 words", "one two three four") is False


def test_instructions_of_real_people_about_other_things_make_no_claim() -> None:
    path = Path(__file__).parents[3] / "shared" / "realdata" / "msmarco-dev-a" / "human-like-instructions.jsonl"
    if not path.exists():
        pytest.skip("the folder of real input is not here")
    with path.open(encoding="utf-8", newline="\n") as lines:
        claimed = [line for line in lines if claims(json.loads(line)["text"])]
    assert claimed == []
