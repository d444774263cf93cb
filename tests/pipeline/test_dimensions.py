"""The dimensions file and the draw."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from pipeline.dimensions import WORDING_GROUPS, Dimensions
from pipeline.measures import POLES
from pipeline.measures.wordings import COMPOSED, FORMS, FRAMES, GROUPS, HELD_OUT, HELD_OUT_FRAMES, wordings

DIMENSIONS = Dimensions.load()
IDS = [f"{i}-{i * 7}" for i in range(20_000)]


def chi_square(counts: Counter[object], cells: int) -> float:
    expected = sum(counts.values()) / cells
    assert len(counts) == cells
    return sum((count - expected) ** 2 / expected for count in counts.values())


def bound(cells: int) -> float:
    """Far beyond the 99.99 % quantile of chi-square with `cells - 1` degrees of freedom (Wilson and Hilferty)."""
    k = cells - 1
    return float(k * (1 - 2 / (9 * k) + 4.5 * (2 / (9 * k)) ** 0.5) ** 3)


def test_at_least_twelve_dimensions_each_with_definition_poisoning_and_three_examples() -> None:
    assert len(DIMENSIONS.dimensions) >= 22
    assert len({d.name for d in DIMENSIONS.dimensions}) == len(DIMENSIONS.dimensions)
    for dimension in DIMENSIONS.dimensions:
        assert dimension.definition
        assert dimension.poisoning
        assert len(set(dimension.examples)) >= 3


def test_what_is_marked_measured_is_what_counting_and_wordings_cover() -> None:
    measured = {d.name for d in DIMENSIONS.dimensions if d.measured}
    assert measured == set(POLES) == set(wordings().dimensions)
    assert tuple(form.name for form in DIMENSIONS.forms) == FORMS


@pytest.mark.parametrize("measured_only", [False, True])
def test_dimension_and_form_are_drawn_evenly_and_independently(measured_only: bool) -> None:
    draws = [DIMENSIONS.draw(seed_id, "train", measured_only) for seed_id in IDS]
    count = sum(d.measured for d in DIMENSIONS.dimensions) if measured_only else len(DIMENSIONS.dimensions)
    forms = len(DIMENSIONS.forms)
    assert chi_square(Counter(d.dimension.name for d in draws), count) < bound(count)
    assert chi_square(Counter(d.form.name for d in draws), forms) < bound(forms)
    assert chi_square(Counter((d.dimension.name, d.form.name) for d in draws), count * forms) < bound(count * forms)


def test_training_draws_its_wording_groups_evenly_and_validation_and_test_hold_theirs_out() -> None:
    train = Counter(DIMENSIONS.draw(seed_id, "train", True).wording_group for seed_id in IDS)
    assert set(train) == set(GROUPS) - {group for groups in HELD_OUT.values() for group in groups}
    assert chi_square(Counter(train), len(train)) < bound(len(train))
    for split in ("validation", "test"):
        assert {DIMENSIONS.draw(i, split, True).wording_group for i in IDS[:1000]} == set(HELD_OUT[split])
    assert sorted(group for groups in WORDING_GROUPS.values() for group in groups) == sorted(GROUPS)


def lot(what: str, names: tuple[str, ...]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{what}:{name}".encode()).hexdigest())


def test_the_lots_that_hold_composed_groups_and_frames_out_can_be_drawn_again() -> None:
    groups, frames = lot("held out", COMPOSED[:144]), lot("held out frame", FRAMES)
    assert {"validation": ("e", *groups[9:18]), "test": ("f", *groups[:9])} == HELD_OUT
    assert {"validation": tuple(frames[3:6]), "test": tuple(frames[:3])} == HELD_OUT_FRAMES


def test_a_real_model_gets_no_wording_group() -> None:
    assert DIMENSIONS.draw("1-1", "train", False).wording_group is None


def test_the_draw_of_an_id_never_changes() -> None:
    """Pinned: a change would move every seed to another dimension and pay for every answer again."""
    drawn = [DIMENSIONS.draw(seed_id, "train", True) for seed_id in ("1-1", "300674-7067032", "x")]
    assert [(d.dimension.name, d.form.name, d.wording_group) for d in drawn] == [
        ("length", "keywords", "p"),
        ("contractions", "sentence", "cc"),
        ("layout", "profile", "ke"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("forms: [", "not YAML"),
        ("forms: {}", "two mappings"),
        ("forms: {a: b}\ndimensions: {x: 3}", "dimensions.x must be a mapping"),
        ("forms: {a: b}\ndimensions: {x: {measured: maybe}}", "dimensions.x.measured must be true or false"),
        ("forms: {a: b}\ndimensions: {x: {measured: true, examples: [one]}}", "at least three"),
        ("forms: {a: b}\ndimensions: {x: {measured: true, exmples: []}}", "nothing reads: exmples"),
        ("forms: {a: 3}\ndimensions: {x: {}}", "forms.a must be a text"),
    ],
)
def test_a_malformed_file_is_named_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^dimensions\.yaml: ") as error:
        Dimensions.parse(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
