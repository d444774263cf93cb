"""What is counted, and whether a passage is on a query's topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures import POLES, Claim
from pipeline.measures import text as measure
from pipeline.measures.topicality import key_terms, on_topic


def claim(dimension: str, pole: str) -> Claim:
    return Claim(dimension, pole, 20 if dimension == "length" else None, "tea" if dimension == "mention" else None)


@pytest.mark.parametrize(
    ("count", "text", "expected"),
    [
        (measure.word_count, "One two-fold 3.5 % -- e.g. this.", 5),
        (measure.word_count, "", 0),
        (measure.list_items, "Points:\n- one\n2. two\n* three\nnone", 3),
        (measure.figures, "In 1998, 3.5 of 10,000 cost $4.", 4),
        (measure.years, "Born in 1879, died 1955; $2000, 1,500 and 1234.5 are no years.", 2),
        (measure.second_person, "You know your yoghurt.", 2),
        (measure.first_person, "I think we lost my keys in World War I. Vitamin I, too.", 3),
        (measure.questions, "Really?? Yes. Why?", 2),
        (measure.quotations, 'He said "no way" and left. 5" pipe.', 1),
        (measure.examples, "Fruit such as plums; for example, pears (e.g. one).", 3),
        (measure.hedges, "May it be so? It may, might or could. Perhaps in May.", 4),
        (measure.contractions, "It's Tom's; don't say they're here.", 3),
        (measure.parentheses, "One (two) three () (4).", 2),
        (measure.attributions, "According to her, he said so and the study reported that it works.", 3),
        (measure.attributions, "The report notes the price.", 0),
    ],
)
def test_counts_what_a_person_would_count(count, text: str, expected: int) -> None:
    assert count(text) == expected


def test_sentences_do_not_end_after_abbreviations_and_initials() -> None:
    text = "Dr. J. Smith lives in the U.S. today. He said no! Why? It costs approx. 3.5 dollars"
    assert len(measure.sentences(text)) == 4


def test_the_term_is_found_as_a_word_in_any_case_and_number_only() -> None:
    assert measure.mentions("Cats, a CAT and the cat's concatenation", "cat") == 3
    assert measure.mentions("anything", " ") == 0


@given(st.text(max_size=300))
def test_no_text_satisfies_both_poles_and_none_crashes(text: str) -> None:
    for dimension, poles in POLES.items():
        first, second = (claim(dimension, pole) for pole in poles)
        if dimension == "length":
            second = Claim("length", "at_least", 30)
        assert not (first.holds(text) and second.holds(text))
        assert first.measured(text)
        assert str(first) != str(second)


@given(st.lists(st.sampled_from(["tea", "is", "good"]), max_size=60))
def test_length_follows_the_word_count_to_the_word(words: list[str]) -> None:
    text = " ".join(words)
    assert Claim("length", "at_most", len(words)).holds(text)
    assert not Claim("length", "at_most", len(words) - 1).holds(text)
    assert Claim("length", "at_least", len(words)).holds(text)
    assert not Claim("length", "at_least", len(words) + 1).holds(text)


def test_key_terms_leave_out_stop_words_and_generic_ones_unless_nothing_else_is_left() -> None:
    assert key_terms("what is the average cost of hypertension pills") == ("hypertension", "pills")
    assert key_terms("what does it cost") == ("cost",)
    assert key_terms("") == ()


@pytest.mark.parametrize(
    ("query", "passage", "expected"),
    [
        ("define preventive", "Preventive care keeps people healthy.", True),
        ("hypertension pills", "Pills of many kinds are sold here.", False),  # of two terms the leading one decides
        ("hypertension pills", "Hypertensive patients need rest.", True),
        ("red wine headache remedy", "A wine can be red.", True),  # two of the others
        ("red wine headache remedy", "The wine was good.", False),
        ("", "anything", False),
        ("define preventive", "", False),
    ],
)
def test_a_passage_is_on_topic_with_the_leading_term_or_two_others(query: str, passage: str, expected: bool) -> None:
    assert on_topic(query, passage) is expected
