"""Which instructions make a measurable claim: exactly for our wordings, conservatively for anybody's."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures import POLES, Claim, claims, group_of, satisfies
from pipeline.measures.wordings import (
    FORMS,
    FRAMES,
    GROUPS,
    HELD_OUT,
    HELD_OUT_FRAMES,
    TRAINED,
    TRAINED_FRAMES,
    WRITTEN,
    Slots,
    Wording,
    wordings,
)

BOTH_POLES = [(dimension, pole) for dimension, pair in POLES.items() for pole in pair]


def of_pole(dimension: str, pole: str) -> Iterator[Wording]:
    known = wordings()
    for group, form in itertools.product(GROUPS, FORMS):
        for frame in known.frames[group]:
            yield known.wording(dimension, pole, group, form, frame)


ALL = [wording for dimension, pole in BOTH_POLES for wording in of_pole(dimension, pole)]


def written(wording: Wording, number: int = 75, term: str = "blue whale", which: int = 0) -> tuple[str, Slots]:
    known = wordings()
    slots = Slots(
        number if "{n}" in wording.template else None,
        term if "{term}" in wording.template else None,
        known.personas[wording.group][which] if "{persona}" in wording.template else None,
        known.purposes[wording.group][which] if "{purpose}" in wording.template else None,
    )
    return known.write(wording, slots), slots


def test_every_pole_has_294_groups_of_four_forms_and_any_phrase_meets_any_frame_of_its_set() -> None:
    assert len(GROUPS) == 294
    assert len(FRAMES) == 28
    assert set(wordings().frames) == set(GROUPS)
    for group, frames in wordings().frames.items():
        held_in = next((split for split, held in HELD_OUT.items() if group in held), None)
        of_set = HELD_OUT_FRAMES[held_in] if held_in else TRAINED_FRAMES
        assert frames == (("",) if group in WRITTEN else of_set)
    # 270 composed groups in 22 frames for training, 9 in 3 for either held-out split, six that are written out
    assert len(ALL) == 30 * 4 * (270 * 22 + 2 * 9 * 3 + 6)


@pytest.mark.parametrize(("dimension", "pole"), BOTH_POLES)
def test_every_wording_is_recognised_as_exactly_its_claim(dimension: str, pole: str) -> None:
    for place, wording in enumerate(of_pole(dimension, pole)):
        instruction, slots = written(wording, *((75, "blue whale", 0), (120, "H2O", 3))[place % 2])
        assert claims(instruction) == (Claim(dimension, pole, slots.number, slots.term),)
        found = wordings().recognise(instruction)
        assert found
        assert found.wording == wording


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
    """Of e and f, which make the far end of what is held out, three content words in twenty are new at least, whatever 280 other groups say."""
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
        assert len(words[held_out] - seen) / len(words[held_out]) > 0.15


def test_no_demand_of_a_held_out_group_is_put_in_a_phrase_of_training() -> None:
    """Four words in a row, a slot counting as one, occur in no training wording of the same pole."""

    def runs(wording: Wording) -> set[tuple[str, ...]]:
        words = re.findall(r"[\w']+", wording.template.lower())
        return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}

    for dimension, pole in BOTH_POLES:
        seen: set[tuple[str, ...]] = set()
        asked: list[Wording] = []
        for wording in of_pole(dimension, pole):
            if wording.group in TRAINED:
                seen |= runs(wording)
            elif wording.form in ("keywords", "sentence"):
                asked.append(wording)
        for wording in asked:
            assert not runs(wording) & seen, wording


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
