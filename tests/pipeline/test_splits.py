from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import SPLITS, Seed
from pipeline.splits import assign_splits, duplicates_and_leaks, text_key

seeds = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60, unique=True).map(
    lambda pairs: [Seed(f"q{q}-d{d}", f"q{q}", f"d{d}", f"query {q}", f"passage {d}") for q, d in pairs]
)


@given(seeds, st.randoms(use_true_random=False))
def test_no_query_and_no_passage_stands_in_two_splits_and_order_does_not_matter(pairs: list[Seed], random) -> None:
    split = assign_splits(pairs)
    where = defaultdict(set)
    for seed in split:
        where[seed.query].add(seed.split)
        where[seed.document].add(seed.split)
    assert all(len(splits) == 1 for splits in where.values())
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert {s.id: s.split for s in assign_splits(shuffled)} == {s.id: s.split for s in split}


def test_texts_that_differ_in_case_and_white_space_alone_connect_their_seeds() -> None:
    pairs = [
        Seed(f"q{i}-d{i}", f"q{i}", f"d{i}", "The  Same query" if i % 2 else "the same Query", f"p {i}")
        for i in range(40)
    ]
    assert len({seed.split for seed in assign_splits(pairs)}) == 1


def test_splits_are_90_5_5() -> None:
    pairs = [Seed(f"q{i}-d{i}", f"q{i}", f"d{i}", f"query {i}", f"passage {i}") for i in range(20_000)]
    shares = Counter(seed.split for seed in assign_splits(pairs))
    assert abs(shares["test"] / 20_000 - 0.05) < 0.006
    assert abs(shares["validation"] / 20_000 - 0.05) < 0.006


def row(name: str, split: str, query: str, passages: tuple[str, str]) -> tuple:
    return (
        name,
        split,
        (text_key(f"query of {name}"), text_key(f"passage of {name}")),
        (text_key(query),),
        tuple(map(text_key, passages)),
    )


def test_a_generated_text_that_stands_in_another_split_is_rejected_and_the_source_text_keeps_its_place() -> None:
    rows = [
        row("a", "train", "q- a", ("same", "p2 a")),
        row("b", "test", "q- b", ("same", "p2 b")),
        row("c", "test", "q- c", ("Passage of  A", "p2 c")),
        row("d", "train", "q- d", ("same", "p2 d")),
    ]
    gone = duplicates_and_leaks(rows)
    assert {name: reason for name, (reason, _) in gone.items()} == {"b": "split_leak", "c": "split_leak"}
    assert duplicates_and_leaks(rows[::-1]) == gone


texts = st.sampled_from([f"text {i}" for i in range(6)])
generated = st.lists(st.tuples(st.sampled_from(SPLITS), texts, texts, texts), max_size=25)


@given(generated)
def test_after_the_check_no_text_stands_in_two_splits(drawn: list) -> None:
    rows = [row(f"r{i:02d}", split, query, (p1, p2)) for i, (split, query, p1, p2) in enumerate(drawn)]
    gone = duplicates_and_leaks(rows)
    where = defaultdict(set)
    for name, split, source, queries, passages in rows:
        if name not in gone:
            for key in [
                ("q", source[0]),
                ("p", source[1]),
                *(("q", k) for k in queries),
                *(("p", k) for k in passages),
            ]:
                where[key].add(split)
    assert all(len(splits) == 1 for splits in where.values())
