"""Near-duplicates: LSH against brute force, laws of order and of samples, and a run that asks about no twin."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curated import Curated, write_source
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cleaning import select

from pipeline.measures.overlap import content_words, jaccard, trigrams
from pipeline.near_duplicates import (
    DEFAULT,
    ROWS,
    Clusters,
    Endings,
    PassageIndex,
    QueryIndex,
    Rows,
    Twins,
    components,
    leaking_passages,
    leaking_queries,
    near_pairs,
    settle,
    similar_tuples,
)
from pipeline.records import (
    DOCUMENT,
    MINED_DOCUMENTS,
    PASSAGES,
    QUERY_NEGATIVE,
    QUERY_POSITIVE,
    SPLITS,
    TEXT_COLUMNS,
    Seed,
)
from pipeline.run import main
from pipeline.splits import assign_splits

WORDS = [f"w{i:02d}" for i in range(60)]


def near_leaks(rows: Rows, threshold: float) -> Endings:
    queries, passages = leaking_queries(rows, threshold), leaking_passages(rows, threshold)
    return settle({"tuples": [], "queries": queries, "passages": passages})[0]


def near_tuples(rows: Rows, threshold: float) -> tuple[Endings, Clusters]:
    return settle({"tuples": similar_tuples(rows, threshold), "queries": [], "passages": []})


def varied(chance: random.Random, number: int, length: int) -> list[str]:
    """Texts of which many are another one with a few words changed."""
    made = [" ".join(chance.choices(WORDS, k=length))]
    while len(made) < number:
        words = chance.choice(made).split() if chance.random() < 0.7 else chance.choices(WORDS, k=length)
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            words[chance.randrange(len(words))] = chance.choice(WORDS)
        made.append(" ".join(words))
    return made


def grouped(pairs: list[tuple[str, str]]) -> dict[str, str]:
    return components(pairs)[0]


# The draws are fixed: LSH misses one in ten thousand of the pairs on the threshold, which is no defect.
@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.5, 0.6, 0.8, 0.9, 1.0]),
    st.booleans(),
)
def test_clusters_are_those_of_brute_force_in_any_order(seed: int, threshold: float, queries: bool) -> None:
    parts, length = (content_words, 7) if queries else (trigrams, 40)
    chance = random.Random(seed)
    texts = list(dict.fromkeys(varied(chance, 25, length)))
    brute = [(a, b) for a, b in combinations(texts, 2) if jaccard(parts(a), parts(b)) >= threshold]
    for _ in range(2):
        index = QueryIndex(threshold, texts) if queries else PassageIndex(threshold)
        found = [(texts[i], texts[j]) for i, j in near_pairs(texts, index)]
        assert all(jaccard(parts(a), parts(b)) >= threshold for a, b in found), (
            "a proposed pair that is none costs nothing"
        )
        assert grouped(found) == grouped(brute)
        chance.shuffle(texts)


@pytest.mark.parametrize("few", [100, 1 << 16])
def test_an_index_that_grows_proposes_what_shares_a_band_and_nothing_that_does_not(few: int) -> None:
    rng = random.Random(0)
    texts: list[str] = []
    for _ in range(2600):  # more than the index has room for at first, twice over
        if texts and rng.random() < 0.3:
            copy = rng.choice(texts).split()
            for _ in range(rng.randrange(6)):
                copy[rng.randrange(len(copy))] = f"w{rng.randrange(3000)}"
            texts.append(" ".join(copy))
        else:
            texts.append(" ".join(f"w{rng.randrange(3000)}" for _ in range(50)))
    index = PassageIndex(DEFAULT, few)
    made = [index.sketch(text) for text in texts]
    sketches = np.array([sketch.digest for sketch in made])
    bands = sketches.reshape(len(texts), -1, ROWS)
    proposals = 0
    for number, sketch in enumerate(sketches):
        proposed = index.proposed(made[number])
        proposals += len(proposed)
        shares = (bands[:number] == bands[number]).all(axis=2).any(axis=1)
        near = np.count_nonzero(sketches[:number] == sketch, axis=1) >= DEFAULT * sketches.shape[1]
        assert set(np.flatnonzero(shares & near)) <= set(proposed)
        assert proposed == sorted(proposed)
        index.add(made[number])
    assert 100 < proposals < len(texts)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(0, 20))
def test_samples_nest_in_any_order_of_lines_and_keep_no_two_twins(seed: int, n: int, more: int) -> None:
    chance = random.Random(seed)
    passages = [f"The {text} of it." for text in varied(chance, 30, 30)]
    queries = [f"what is {text}" for text in varied(chance, 4, 6)]
    rows = [(str(i), chance.choice(queries), str(i), text) for i, text in enumerate(passages)]
    everything = select(rows)
    small, big = select(chance.sample(rows, len(rows)), n), select(chance.sample(rows, len(rows)), n + more)
    assert set(small.seeds) <= set(big.seeds) <= set(everything.seeds)
    assert len(small.seeds) == min(n, len(everything.seeds)), "a sample has the size asked for, twins aside"

    def twins(a: Seed, b: Seed) -> bool:
        return (
            jaccard(content_words(a.query), content_words(b.query)) >= DEFAULT
            and jaccard(trigrams(a.document), trigrams(b.document)) >= DEFAULT
        )

    assert not any(twins(a, b) for a, b in combinations(everything.seeds, 2))
    kept = {(seed.query, seed.document) for seed in everything.seeds}
    for i, query, d, text in rows:
        if (query, text) not in kept:
            assert any(twins(Seed(i, i, d, query, text), seed) for seed in everything.seeds), "only twins are dropped"
    report = everything.report
    dropped = report.dropped.counts["near_duplicate"]
    assert sum((size - 1) * n for size, n in report.near_duplicate_clusters.items()) == dropped


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_nearly_equal_queries_and_passages_of_seeds_lie_in_one_split(seed: int) -> None:
    chance = random.Random(seed)
    seeds = [
        Seed(f"q{i}-d{i}", f"q{i}", f"d{i}", query, passage)
        for i, (query, passage) in enumerate(zip(varied(chance, 30, 6), varied(chance, 30, 40), strict=True))
    ]
    twins = Twins(DEFAULT)
    kept = [seed for seed in seeds if twins.of(seed) is None]
    split = assign_splits(kept, DEFAULT, twins.near_passages)
    for a, b in combinations(split, 2):
        if (
            jaccard(content_words(a.query), content_words(b.query)) >= DEFAULT
            or jaccard(trigrams(a.document), trigrams(b.document)) >= DEFAULT
        ):
            assert a.split == b.split
    chance.shuffle(kept)
    again = Twins(DEFAULT)
    assert not any(again.of(seed) for seed in kept)
    assert {s.id: s.split for s in assign_splits(kept, DEFAULT, again.near_passages)} == {s.id: s.split for s in split}


def reading(rows: list[dict[str, Any]]) -> Rows:
    def read(columns: Sequence[str], held: bool | None = None) -> Iterator[dict[str, Any]]:
        for row in rows:
            if held in (None, row["split"] != "train"):
                yield {name: row[name] for name in ("id", "split", *columns)}

    return read


def finished(chance: random.Random, number: int, splits: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of which many nearly equal another; source texts of different splits are far apart."""
    source = {split: [f"{split} {text}" for text in varied(chance, 6, 30)] for split in splits}
    pool = [text for texts in source.values() for text in texts] + varied(chance, 10, 30)
    rows = []
    for i in range(number):
        split = chance.choice(splits)
        row = {name: chance.choice(pool) for name in TEXT_COLUMNS}
        rows.append(
            row
            | {
                "id": f"r{i:02d}",
                "split": split,
                MINED_DOCUMENTS: None,
                QUERY_POSITIVE: chance.choice(source[split]),
                DOCUMENT: source[split][0],
            }
        )
    return rows


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_after_the_leaks_are_gone_no_nearly_equal_texts_stand_in_two_splits(seed: int) -> None:
    chance = random.Random(seed)
    rows = finished(chance, 25, SPLITS)
    # Source texts of two splits that are alike would be one component: such draws are no input of this step.
    source = [(row["split"], row[name], name) for row in rows for name in (QUERY_POSITIVE, DOCUMENT)]
    parts = {QUERY_POSITIVE: content_words, QUERY_NEGATIVE: content_words} | dict.fromkeys(PASSAGES, trigrams)
    if any(
        s != t and a != b and parts[m] is parts[n] and jaccard(parts[m](a), parts[n](b)) >= DEFAULT
        for (s, a, m), (t, b, n) in combinations(source, 2)
    ):
        return
    gone = near_leaks(reading(rows), DEFAULT)
    left = [row for row in rows if row["id"] not in gone]
    for a, b in combinations(left, 2):
        if a["split"] != b["split"]:
            for m, n in ((m, n) for m in parts for n in parts if parts[m] is parts[n]):
                assert jaccard(parts[m](a[m]), parts[n](b[n])) < DEFAULT
    chance.shuffle(rows)
    assert near_leaks(reading(rows), DEFAULT) == gone


def test_of_nearly_equal_tuples_the_smallest_id_stays_in_any_order() -> None:
    chance = random.Random(5)
    base = {name: " ".join(chance.choices(WORDS, k=40)) for name in TEXT_COLUMNS}
    other = {name: " ".join(chance.choices(WORDS, k=40)) for name in TEXT_COLUMNS}
    rows = [
        {"id": f"r{i}", "split": "train"} | (base if i in (1, 3, 4) else other) | {QUERY_NEGATIVE: f"a query of {i}"}
        for i in range(6)
    ]
    for _ in range(4):
        chance.shuffle(rows)
        gone, clusters = near_tuples(reading(rows), DEFAULT)
        assert {name: detail for name, (_, detail) in gone.items()} == {
            "r2": "nearly equal to r0",
            "r3": "nearly equal to r1",
            "r4": "nearly equal to r1",
            "r5": "nearly equal to r0",
        }
        assert clusters == Counter({3: 2})


def test_a_run_asks_about_no_twin_and_its_books_and_card_tell_of_them(tmp_path: Path) -> None:
    text = "A {} is a tool that carpenters use to shape wood, and most of them keep it dry, because rust would blunt the edge."
    pairs = {f"what is a {n}": text.format(n) for n in ("rasp", "adze", "awl", "gouge")}
    pairs |= {f"what is the {n}?": text.format(n) + " Many do." for n in ("rasp", "adze")}
    source = write_source(tmp_path / "source", pairs)
    for near, dropped in ((DEFAULT, 2), (0, 0)):
        output = Curated(tmp_path / str(near))
        assert main(["--source", str(source), "--output", str(output.folder), "--near-duplicates", str(near)]) == 0
        made = output.manifest
        assert made["counts"]["seeds"] == made["calls"]["instruct"]["made"] == 6 - dropped
        assert made["source"]["dropped"].get("near_duplicate", 0) == dropped
        assert made["near_duplicates"] == {"threshold": near or None, "seeds": {"2": 2} if near else {}, "tuples": {}}
        card = (output.folder / "README.md").read_text("utf-8")
        assert ("Clusters of seeds: 2 of 2" in card) is bool(near)


@pytest.mark.parametrize("wrong", ["0.2", "1.5", "most"])
def test_a_threshold_that_means_nothing_is_refused(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(tmp_path / "out"), "--near-duplicates", wrong])
    assert stop.value.code == 2
    assert wrong in capsys.readouterr().err


def test_real_passages_fall_together_as_brute_force_says(realdata: Path) -> None:
    lines = (realdata / "msmarco-dl19" / "collection.tsv").read_text("utf-8").split("\n")
    texts = list(dict.fromkeys(line.partition("\t")[2] for line in lines[:5_000] if line))
    found = grouped([(texts[i], texts[j]) for i, j in near_pairs(texts, PassageIndex(DEFAULT))])
    holding: dict[str, list[int]] = defaultdict(list)
    sets = [trigrams(text) for text in texts]
    brute = []
    for i, grams in enumerate(sets):
        shared = Counter(j for gram in grams for j in holding[gram])
        brute += [(texts[j], texts[i]) for j, n in shared.items() if n / (len(grams) + len(sets[j]) - n) >= DEFAULT]
        for gram in grams:
            holding[gram].append(i)
    assert len(brute) > 200
    assert grouped(brute) == found


def test_a_generated_passage_that_nearly_equals_a_mined_one_of_another_split_goes() -> None:
    chance = random.Random(9)

    def row(name: str, split: str, mined: list[str] | None) -> dict[str, Any]:
        texts = {column: " ".join(chance.choices(WORDS, k=40)) for column in TEXT_COLUMNS}
        return {"id": name, "split": split, MINED_DOCUMENTS: mined} | texts

    for mined_in, generated_in in (("test", "train"), ("train", "test")):
        mined = chance.choices(WORDS, k=60)
        holder, other = row("r1", mined_in, [" ".join(mined)]), row("r0", generated_in, None)
        other[PASSAGES[2]] = " ".join([*mined[:-1], "changed"])
        assert list(near_leaks(reading([holder, other]), DEFAULT)) == ["r0"]
        other["split"] = mined_in
        assert not near_leaks(reading([holder, other]), DEFAULT)


def test_a_leak_whose_other_row_goes_as_a_near_duplicate_is_none() -> None:
    leak = (False, "r5", "r3", "passage", "test")
    assert settle({"tuples": [], "queries": [], "passages": [leak]})[0].keys() == {"r5"}
    gone, clusters = settle({"tuples": [("r1", "r3")], "queries": [list(leak)], "passages": [leak]})
    assert gone == {"r3": ("near_duplicate_tuple", "nearly equal to r1")}
    assert clusters == {2: 1}
