"""Cleaning and sampling: what is repaired, what is dropped and why, and that samples nest whatever the order."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cleaning import CleaningOptions, Selection, is_foreign, normalise, select_seeds
from pipeline.sources import Exclusions, Judged, Progress, SourceError, SourceReport
from pipeline.sources.exclusions import read_exclusions


@dataclass
class Made:
    """A source made of (query id, query, passage id, passage)."""

    rows: list[tuple[str, str, str, str]]
    exclusions: Exclusions = field(default_factory=Exclusions)

    def read(self, progress: Progress | None = None) -> Judged:
        report = SourceReport("made", "ranking", "train", "")
        report.eligible = report.judgements = len(self.rows)
        pairs = list(dict.fromkeys((q, d) for q, _, d, _ in self.rows))
        return Judged(report, pairs, {q: text for q, text, _, _ in self.rows}, {d: text for _, _, d, text in self.rows})


def select(rows: list[tuple[str, str, str, str]], n: int = 0, seed: int = 0, *exclude: str) -> Selection:
    return select_seeds(Made(rows, Exclusions(exclude)), n, seed, CleaningOptions())


FINE = "The grey heron stands in shallow water and waits for fish."


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("plain text", "plain text"),
        ("  two\t\tspaces\u2028and\x0blines\u00a0here ", "two spaces and lines here"),
        ("half of a star: â\x98\x85", "half of a star: ★"),
        ("wait\x85 what", "wait… what"),
        ("itâ€™s a cafÃ©", "it’s a café"),
        ("itâ\x80\x99s", "it’s"),
        ("Bob&#39;s &amp; Al&quot;s", "Bob's & Al\"s"),
        ("AT&T & co", "AT&T & co"),
        ("cafe\u0301", "café"),
        ("so\u00adft\u200b and\x00 hid\x07den\ufeff", "soft and hidden"),
        ("“curly” ’quotes’", "“curly” ’quotes’"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
    ],
)
def test_text_is_repaired(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@given(st.text())
def test_clean_text_is_one_line_in_nfc_that_utf8_can_hold(raw: str) -> None:
    clean = normalise(raw)
    clean.encode("utf-8")
    assert clean == " ".join(clean.split())
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(c) == "Cc" for c in clean)


@pytest.mark.parametrize(
    "text",
    [
        FINE,
        "3/5 = 60/1 3*60 = 5*1 180/5 = 36*1 answer = 36.",
        "Broccoli, Fresh (1 cup, chopped) 1 Calories: 25, Fat: 0g, Carbs: 5g, Protein: 3g.",
        "Phone: (618) 997-9133",
        "1234 5678",
        "Thailand (/ˈtaɪlænd/; Thai: ประเทศไทย, rtgs: Prathet Thai), officially the Kingdom of Thailand.",
        "San Antonio, Killarney Drive; Los Angeles, La Cienega; San Diego, El Cajon; Santa Monica.",
    ],
)
def test_odd_english_is_not_taken_for_foreign(text: str) -> None:
    assert not is_foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        "Der Hund läuft über die Straße und die Katze sitzt auf dem Dach.",
        "El perro corre por la calle y el gato está en el techo de la casa.",
        "De hond was in de tuin en de kat is op het dak van het huis.",
        "Собака бежит по улице, а кошка сидит на крыше.",
        "犬は通りを走り、猫は屋根の上に座っています。",
    ],
)
def test_another_language_is_noticed(text: str) -> None:
    assert is_foreign(text)


def test_each_reason_to_drop_a_pair_is_counted_with_examples() -> None:
    rows = [
        ("1", "what is a heron", "10", FINE),
        ("2", "heron", "10", FINE),
        ("3", "word " * 41, "10", FINE),
        ("4", "what is short", "11", "Too short."),
        ("5", "what is long", "12", "long " * 401),
        ("6", "was ist ein Reiher", "13", "Der Reiher steht im flachen Wasser und wartet auf einen Fisch."),
        ("7", "WHAT IS  a Heron", "14", f" {FINE.upper()} "),
        ("8", "who founded the city of rome", "10", FINE),
        ("9", "What is a stork?", "10", FINE),
    ]
    selection = select(rows, 0, 0, "Who founded Rome city?", "what IS a stork")
    report = selection.report
    assert [s.id for s in selection.seeds] == ["1-10"]
    assert report.dropped.counts == {
        "query_length": 2,
        "passage_length": 2,
        "language": 1,
        "duplicate": 1,
        "excluded_query": 2,
    }
    assert report.dropped.examples["duplicate"] == ["7-14: same texts as 1-10"]
    assert (report.examined, report.sampled, report.excluded_queries) == (9, 1, 2)


def test_bounds_include_their_ends() -> None:
    rows = [
        (str(n), "two words" if n % 2 else "w " * 40, str(n), f"the p{n} " + "the " * length)
        for n, length in enumerate((3, 3, 398, 398))
    ]
    assert len(select(rows).seeds) == 4


def test_no_seed_left_is_an_error_that_says_why() -> None:
    with pytest.raises(SourceError, match="none of 1 pairs passed cleaning: query_length 1"):
        select([("1", "heron", "10", FINE)])


def test_two_pairs_with_the_same_id_are_not_both_taken() -> None:
    selection = select([("a-b", "what is one", "c", FINE), ("a", "what is two", "b-c", FINE + " It is patient.")])
    assert [(s.id, s.query_id) for s in selection.seeds] == [("a-b-c", "a")]
    assert selection.report.dropped.counts == {"same_id": 1}


texts = st.sampled_from(
    ["what is a heron", "What is a  heron", "how old is rome", "heron", "why do birds sing at dawn"]
)
passages = st.sampled_from([FINE, FINE.upper(), "Too short.", "Rome was founded in the eighth century before Christ."])
collections = st.tuples(
    st.dictionaries(st.integers(1, 9).map(str), texts, min_size=1),
    st.dictionaries(st.integers(1, 9).map(str), passages, min_size=1),
    st.sets(st.tuples(st.integers(1, 9).map(str), st.integers(1, 9).map(str)), min_size=1),
)


@given(collections, st.integers(0, 3), st.integers(1, 20), st.integers(0, 20), st.randoms(use_true_random=False))
def test_a_bigger_sample_contains_a_smaller_one_in_any_order(
    made: tuple[dict[str, str], dict[str, str], set[tuple[str, str]]], seed: int, n: int, more: int, random: object
) -> None:
    queries, documents, wanted = made
    rows = [(q, queries[q], d, documents[d]) for q, d in sorted(wanted) if q in queries and d in documents]
    try:
        everything = select(rows, 0, seed)
    except SourceError:
        return
    random.shuffle(rows)  # type: ignore[attr-defined]
    small, big = select(rows, n, seed), select(rows, n + more, seed)
    assert set(small.seeds) <= set(big.seeds) <= set(everything.seeds)
    assert len(small.seeds) == min(n, len(everything.seeds))
    assert select(rows, 0, seed).seeds == everything.seeds
    assert small.seeds == select(sorted(rows), n, seed).seeds
    assert everything.report.examined == everything.report.sampled + everything.report.dropped.counts.total()
    assert small.report.examined == small.report.sampled + small.report.dropped.counts.total()
    kept = {(s.query.casefold(), s.document.casefold()) for s in everything.seeds}
    assert len(kept) == len(everything.seeds)


def test_of_equal_pairs_the_smallest_id_stays_in_every_sample() -> None:
    rows = [(str(n), "what is a  heron" if n % 2 else "What is a heron", str(n), FINE) for n in range(9, 0, -1)]
    for seed in range(5):
        assert [s.id for s in select(rows, 0, seed).seeds] == ["1-1"]


def test_pairs_that_only_repair_makes_equal_are_duplicates_too() -> None:
    rows = [("1", "what&#39;s a heron", "1", FINE), ("2", "what's a heron", "2", FINE)]
    selection = select(rows)
    assert len(selection.seeds) == 1
    assert selection.report.dropped.counts == {"duplicate": 1}


def test_the_passages_of_one_query_are_sampled_alike_in_any_order() -> None:
    rows = [("1", "what is a bird", str(n), f"Bird {n} is one of the birds.") for n in range(20)]
    assert select(rows, 5).seeds == select(rows[::-1], 5).seeds


def test_another_seed_draws_another_sample() -> None:
    rows = [(str(n), f"what is bird {n}", str(n), f"Bird {n} is one of the birds.") for n in range(200)]
    assert select(rows, 20, 0).seeds != select(rows, 20, 1).seeds


@pytest.mark.parametrize(
    ("query", "excluded"),
    [
        ("what is the capital of france", True),
        ("What is the Capital of France?!", True),
        ("france's capital", False),
        ("capital of France", True),
        ("capitals in france", True),
        ("who is the capital of france", False),
        ("what is the", False),
        ("capital of spain", False),
    ],
)
def test_a_query_that_asks_the_same_is_excluded(query: str, excluded: bool) -> None:
    assert Exclusions(["what is the capital of  France"]).match(query) is excluded


def test_queries_to_exclude_are_read_in_three_forms(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"1\tcapital of france\r\n2\tcapital of spain\n")
    (tmp_path / "b.txt").write_bytes(b"capital of italy\n\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"_id": "1", "text": "capital of malta"}) + "\n")
    exclusions = read_exclusions([tmp_path / "a.tsv", tmp_path / "b.txt", tmp_path / "c.jsonl"])
    assert len(exclusions) == 4
    assert all(exclusions.match(f"capital of {c}") for c in ("france", "spain", "italy", "malta"))
    assert [f.name for f in exclusions.files] == ["a.tsv", "b.txt", "c.jsonl"]


def test_the_queries_of_an_mteb_task_are_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through mteb's own reader, on a task whose data lies in a folder in the layout of its repositories."""
    import mteb

    for name, rows in (
        ("queries", [{"_id": "1", "text": "capital of malta"}, {"_id": "2", "text": "how tall is mount etna"}]),
        ("corpus", [{"_id": "1", "title": "", "text": "never read"}]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    configs = "".join(f"- config_name: {n}\n  data_files: {n}.jsonl\n" for n in ("queries", "corpus"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    task = mteb.get_task("NFCorpus")
    dataset = {"path": str(tmp_path), "revision": None}
    monkeypatch.setattr(task, "metadata", task.metadata.model_copy(update={"dataset": dataset}))
    monkeypatch.setattr(mteb, "get_task", lambda name: task)
    exclusions = read_exclusions(["mteb:NFCorpus"])
    assert len(exclusions) == 2
    assert exclusions.match("How tall is the Mount Etna?")
    assert exclusions.files[0].name.startswith("mteb:NFCorpus@")


@pytest.mark.parametrize(
    ("task", "words"),
    [("NoSuchTask", "no task of that name"), ("NFCorpus", "NFCorpus: its queries can't be had .*the Hub")],
)
def test_an_mteb_task_that_cannot_be_had_is_one_sentence(
    task: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=words):
        read_exclusions([f"mteb:{task}"])


@pytest.mark.parametrize(
    ("query", "nearly"),
    [("common causes for elevated liver enzymes", True), ("common causes for elevated blood sugar", False)],
)
def test_a_query_with_a_content_word_more_in_five_is_excluded_by_the_threshold(query: str, nearly: bool) -> None:
    asked = ["what cause elevated liver enzymes"]
    assert Exclusions(asked).match(query) is nearly
    assert not Exclusions(asked, threshold=1.0).match(query)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"query": "no text"}\n', r'a.jsonl:2: .*expected an object with "text"'),
        ("b.tsv", b"1\t\xff\n", r"b.tsv:1: .*expected UTF-8"),
        ("c.tsv", b"\n", "c.tsv, is empty"),
    ],
)
def test_unreadable_queries_to_exclude_are_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=words):
        read_exclusions([tmp_path / name])
    with pytest.raises(SourceError, match="is not there"):
        read_exclusions([tmp_path / "none.tsv"])
