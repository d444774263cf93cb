"""MS MARCO folders: every line is accounted for, every unusable folder is refused with one sentence."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.cleaning import CleaningOptions, select_seeds
from pipeline.sources import Judged, SourceError, SourceReport, lines, open_source, ranking, summary_lines
from pipeline.sources.lines import MAX_LINE
from pipeline.sources.ranking import TextTable
from tests.fakes.loopback import on_loopback

QRELS = b"1\t0\t10\t1\n2\t0\t20\t1\n"
QUERIES = b"1\twhat is a heron\n2\twhat is a stork\n3\tunused query\n"
STORK = "A stork is a large bird."
COLLECTION = b"10\tA heron is a wading bird.\n20\tA stork is a large bird.\n30\tNobody asks for this.\n"


def folder(
    path: Path, qrels: bytes = QRELS, queries: bytes = QUERIES, collection: bytes = COLLECTION, split: str = "train"
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / f"qrels.{split}.tsv").write_bytes(qrels)
    (path / f"queries.{split}.tsv").write_bytes(queries)
    (path / "collection.tsv").write_bytes(collection)
    return path


def read(path: Path, split: str = "train") -> Judged:
    return open_source(str(path), split).read()


def refusal(path: Path, split: str = "train") -> str:
    with pytest.raises(SourceError) as caught:
        read(path, split)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(path.parent) not in sentence
    return sentence


def test_a_folder_gives_its_judged_pairs_and_nothing_else(tmp_path: Path) -> None:
    judged = read(folder(tmp_path / "marco"))
    assert sorted(judged.pairs) == [("1", "10"), ("2", "20")]
    assert judged.queries == {"1": "what is a heron", "2": "what is a stork"}
    assert judged.documents == {"10": "A heron is a wading bird.", "20": "A stork is a large bird."}
    manifest = judged.report.as_manifest()
    assert manifest["lines"] == {"collection.tsv": 3, "qrels.train.tsv": 2, "queries.train.tsv": 3}
    assert {f["name"]: f["sha256"] for f in manifest["files"]} == {
        "qrels.train.tsv": hashlib.sha256(QRELS).hexdigest(),
        "queries.train.tsv": hashlib.sha256(QUERIES).hexdigest(),
        "collection.tsv": hashlib.sha256(COLLECTION).hexdigest(),
    }
    assert not any(manifest[key] for key in ("malformed", "duplicates", "dangling"))
    assert manifest["eligible"] == 2


def test_gzip_reads_as_plain_does_and_plain_wins_where_both_are(tmp_path: Path) -> None:
    plain = folder(tmp_path / "marco")
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    for file in plain.iterdir():
        (zipped / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert read(zipped).documents == read(plain).documents
    assert read(zipped).report.as_manifest()["files"][0]["bytes"] == (zipped / "qrels.train.tsv.gz").stat().st_size
    (plain / "collection.tsv.gz").write_bytes(gzip.compress(b"10\tAnother text.\n20\tAnother text.\n"))
    assert read(plain).documents["10"] == "A heron is a wading bird."


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    text = "one\x85two\u2028three\x0bfour\rfive"
    judged = read(folder(tmp_path / "m", collection=f"10\t{text}\n20\tfine text\n".encode()))
    assert judged.documents["10"] == text
    assert judged.report.lines["collection.tsv"] == 2
    assert not judged.report.malformed.counts


@pytest.mark.parametrize("padding", [0, 3])  # in the file's first block and in a later one
def test_each_kind_of_malformed_line_is_counted_with_its_line(tmp_path: Path, padding: int) -> None:
    filler = b"".join(b"%d\t%s\n" % (n, b"x" * 999) for n in range(1_000_000, 1_000_000 + padding * 1_100))
    odd = [
        b"40",
        b"41\ttwo\tcolumns",
        b"42\t  ",
        b"",
        b"43\t\xff\xfe",
        b"44\tWindows\r",
        b"4 5\tan id with a space",
        b"46\t" + b"y" * (MAX_LINE * (1 + padding)),
        b"\tno id",
    ]
    collection = b"pid\tpassage\n" + filler + COLLECTION * 4 + b"\n".join(odd)
    report = read(folder(tmp_path / "m", collection=collection)).report
    assert report.malformed.counts == {
        "header": 1,
        "columns": 1,
        "tabs_in_text": 1,
        "empty_text": 1,
        "empty_line": 1,
        "bad_utf8": 1,
        "crlf": 1,
        "bad_id": 2,
        "overlong": 1,
    }
    start = 1 + padding * 1_100 + 12
    assert report.malformed.examples["columns"] == [f"collection.tsv:{start + 1}: 40"]
    assert report.malformed.examples["crlf"] == [f"collection.tsv:{start + 6}: 44\\tWindows\\r"]
    assert report.malformed.examples["bad_id"][1].startswith(f"collection.tsv:{start + 9}: ")
    assert report.lines["collection.tsv"] == start + 9


line = st.one_of(
    st.binary(max_size=12),
    st.binary(min_size=30, max_size=60),
    st.tuples(
        st.sampled_from([b"1", b"2", b"3", b"4-5", b"p q", b"", b"pid", b"\xef\xbb\xbf1"]),
        st.sampled_from([b"\t", b"\t", b"\t", b" ", b"\t\t", b"\t \t"]),
        st.sampled_from([b"text", b"other text", b"", b" ", b"\xff", "é".encode(), b"end\r", b"mid\rdle", b"x" * 50]),
    ).map(b"".join),
)


@example(b"1\tone\n2\ttext\r\n3\tx\n", 13)
@example(b"1\tone\n2\t\xff\n", 6)
@given(st.lists(line, max_size=12).map(b"\n".join), st.integers(1, 40))
def test_the_account_of_a_file_does_not_depend_on_where_it_is_cut(data: bytes, chunk: int) -> None:
    def account(size: int) -> tuple[dict[str, str], dict[str, object]]:
        report = SourceReport("", "", "", "")
        table = TextTable(file, "pid text", report)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lines, "CHUNK", size)
            patch.setattr(lines, "MAX_LINE", 40)
            patch.setattr(ranking, "MAX_LINE", 40)
            patch.setattr(table, "finish", lambda hint: None)
            found = table.read({"1", "2", "4-5"}, None)
        return found, report.as_manifest()

    with TemporaryDirectory() as made:
        file = Path(made) / "collection.tsv"
        file.write_bytes(data)
        whole, manifest = account(1 << 20)
        found, cut = account(chunk)
    assert found == whole
    # An overlong line is kept up to its cut only, so its excerpt alone may differ.
    for one in (cut, manifest):
        one["examples"].get("malformed", {}).pop("overlong", None)  # type: ignore[attr-defined]
    assert cut == manifest
    assert manifest["lines"] == {"collection.tsv": len(data.split(b"\n")) - (data.endswith(b"\n") or not data)}


def test_a_windows_file_with_a_header_and_a_mark_reads_like_any_other(tmp_path: Path) -> None:
    collection = b"\xef\xbb\xbfpid\ttext\r\n" + COLLECTION.replace(b"\n", b"\r\n")
    judged = read(folder(tmp_path / "m", collection=collection, qrels=QRELS.replace(b"\n", b"\r\n")))
    assert judged.documents["20"] == "A stork is a large bird."
    assert judged.report.malformed.counts == {"crlf": 6, "header": 1, "byte_order_mark": 1}


def test_only_three_examples_are_kept_and_they_are_printable(tmp_path: Path) -> None:
    queries = QUERIES * 4 + b"\x1b[31mred" * 1 + b"\n" + b"short\n" * 4
    report = read(folder(tmp_path / "m", queries=queries)).report
    assert report.malformed.counts["columns"] == 5
    examples = report.malformed.examples["columns"]
    assert len(examples) == 3
    assert examples[0].endswith("\\x1b[31mred")
    assert all(line.isprintable() for line in summary_lines(report))
    json.dumps(report.as_manifest())


@pytest.mark.parametrize(
    "qrels",
    [
        b"1 0 10 1\n2 Q0 20 3\n",
        b"1 0  10 1\n2\t0\t20\t1",
        b"query-id\tcorpus-id\tscore\n1\t10\t1\n2\t20\t1\n",
    ],
)
def test_judgements_may_be_in_trec_or_beir_form(tmp_path: Path, qrels: bytes) -> None:
    assert sorted(read(folder(tmp_path / "m", qrels=qrels)).pairs) == [("1", "10"), ("2", "20")]


def test_judgements_are_all_accounted_for(tmp_path: Path) -> None:
    qrels = QRELS + b"1\t0\t10\t2\n1\t0\t30\t0\n2\t0\t10\t-1\n9\t0\t10\t1\n1\t0\t99\t1\n8\t0\t98\t1\n3\t0\t30\tgood\n"
    report = read(folder(tmp_path / "m", qrels=qrels)).report
    assert report.judgements == 8
    assert report.not_relevant == 2
    assert report.duplicates.counts == {"judgement": 1}
    assert report.malformed.counts == {"bad_grade": 1}
    assert report.dangling.counts == {"query_missing": 2, "passage_missing": 2, "judgements": 3}
    assert report.dangling.examples["query_missing"] == ["qrels.train.tsv:6: query 9", "qrels.train.tsv:8: query 8"]
    assert report.eligible == 2
    lost = report.not_relevant + report.duplicates.counts["judgement"] + report.dangling.counts["judgements"]
    assert report.judgements == lost + report.eligible


def test_of_a_repeated_id_the_smallest_text_stays_whatever_the_order(tmp_path: Path) -> None:
    rows = [
        *COLLECTION.splitlines(),
        b"10\tZebras are not herons.",
        b"10\tA bittern, not a heron.",
        b"20\tA stork is a large bird.",
    ]
    for n in range(5):
        random.Random(n).shuffle(rows)
        judged = read(folder(tmp_path / str(n), collection=b"\n".join(rows)))
        assert judged.documents["10"] == "A bittern, not a heron."
        assert judged.report.duplicates.counts == {"id_with_another_text": 2, "id_with_the_same_text": 1}


def test_a_file_that_is_mostly_malformed_is_refused_with_its_first_bad_line(tmp_path: Path) -> None:
    assert refusal(folder(tmp_path / "a", qrels=QRELS + b"1\t0\t10\n" * 3)) == (
        "qrels.train.tsv:3: 3 columns, expected 4 (qid 0 pid grade). 3 of 5 lines are malformed. "
        "Is this the file of judgements, one in a line?"
    )
    spaces = refusal(folder(tmp_path / "b", collection=COLLECTION.replace(b"\t", b" ")))
    assert spaces.startswith("collection.tsv:1: 1 columns, expected 2 (pid text). 3 of 3 lines")
    assert "separated by tabs" in spaces
    assert "4 columns, expected 2" in refusal(folder(tmp_path / "c", collection=b"10\turl\ttitle\tbody\n" * 3))


@pytest.mark.parametrize(
    ("qrels", "words"),
    [
        (b"1\t10\t0\t1\n2\t20\t0\t1\n", "the second column is '10', expected 0 (qid 0 pid grade)"),
        (b"10\t0\t1\t1\n20\t0\t2\t1\n", "Are the columns swapped?"),
    ],
)
def test_judgements_in_another_column_order_are_refused(tmp_path: Path, qrels: bytes, words: str) -> None:
    assert words in refusal(folder(tmp_path / "m", qrels=qrels))


def test_judgements_that_point_nowhere_are_refused_with_the_reason(tmp_path: Path) -> None:
    passages = folder(tmp_path / "p", qrels=b"1\t0\t77\t1\n2\t0\t78\t1\n")
    assert "all 2 judgements point at passages that are not in collection.tsv" in refusal(passages)
    queries = folder(tmp_path / "q", qrels=b"7\t0\t10\t1\n8\t0\t20\t1\n")
    assert "all 2 judgements point at queries that are not in queries.train.tsv" in refusal(queries)
    grades = folder(tmp_path / "g", qrels=b"1\t0\t10\t0\n")
    assert "holds 1 judgements and none has a grade of 1 or more" in refusal(grades)
    assert "holds no judgement" in refusal(folder(tmp_path / "e", qrels=b""))


def test_what_is_missing_is_said_before_anything_is_read(tmp_path: Path) -> None:
    marco = folder(tmp_path / "marco")
    (marco / "qrels.dev.small.tsv.gz").write_bytes(b"")
    with pytest.raises(SourceError, match=r"marco has no split 'dev' \(no qrels.dev.tsv\); it has: dev.small, train"):
        open_source(str(marco), "dev")
    with pytest.raises(SourceError, match=r"marco lacks queries.dev.small.tsv"):
        open_source(str(marco), "dev.small")
    (marco / "collection.tsv").unlink()
    with pytest.raises(SourceError, match=r"marco lacks collection.tsv \(plain, .gz or .parquet\)"):
        open_source(str(marco), "train")
    with pytest.raises(SourceError, match="no MS MARCO passage-ranking folder"):
        open_source(str(tmp_path), "train")
    with pytest.raises(SourceError, match="there is no such file or folder"):
        open_source(str(tmp_path / "nowhere"), "train")
    with pytest.raises(SourceError, match=r"a file must be one of"):
        open_source(str(marco / "qrels.train.tsv"), "train")


def as_parquet(marco: Path, name: str, **columns: list[Any]) -> None:
    (marco / f"{name}.tsv").unlink()
    pq.write_table(pa.table(columns), marco / f"{name}.parquet")


def test_parquet_reads_as_lines_do(tmp_path: Path) -> None:
    lines, marco = folder(tmp_path / "lines"), folder(tmp_path / "marco")
    as_parquet(
        marco, "collection", _id=[10, 20, 30], title=["", "", ""], text=["A heron is a wading bird.", STORK, "Nobody."]
    )
    as_parquet(marco, "queries.train", qid=["1", "2"], query=["what is a heron", "what is a stork"])
    as_parquet(marco, "qrels.train", qid=[1, 2, 2], pid=[10, 20, 30], score=[1, 2, 0])
    judged, reference = read(marco), read(lines)
    assert (sorted(judged.pairs), judged.queries, judged.documents) == (
        sorted(reference.pairs),
        reference.queries,
        reference.documents,
    )
    manifest = judged.report.as_manifest()
    assert manifest["lines"] == {"collection.parquet": 3, "qrels.train.parquet": 3, "queries.train.parquet": 2}
    assert manifest["files"][0]["sha256"] == hashlib.sha256((marco / "qrels.train.parquet").read_bytes()).hexdigest()
    assert manifest["not_relevant"] == 1


def test_what_is_wrong_in_a_parquet_row_is_counted_with_its_number(tmp_path: Path) -> None:
    marco = folder(tmp_path / "marco")
    ids = ["10", "20", None, "two words", "30", "20", "40", "50", "60"]
    as_parquet(marco, "collection", pid=ids, text=["A heron.", STORK, "x", "y", None, "A bird.", *"abc"])
    judged = read(marco)
    assert judged.documents == {"10": "A heron.", "20": "A bird."}
    report = judged.report
    assert report.malformed.examples == {
        "bad_id": ["collection.parquet:3", "collection.parquet:4: two words"],
        "empty_text": ["collection.parquet:5: 30"],
    }
    assert report.duplicates.examples == {"id_with_another_text": ["collection.parquet:6: 20"]}
    as_parquet(folder(tmp_path / "narrow"), "collection", pid=["10"])
    assert "needs the columns id and text" in refusal(tmp_path / "narrow")
    (marco / "collection.parquet").write_bytes((marco / "collection.parquet").read_bytes()[:-9])
    assert "collection.parquet can't be read as parquet" in refusal(marco)


def test_a_folder_may_lie_in_a_store(tmp_path: Path) -> None:
    marco = folder(tmp_path / "marco")
    app = web.Application()
    app.router.add_static("/data", tmp_path, show_index=True)
    with on_loopback(app) as url:
        judged = open_source(f"{url}/data/marco", "train").read()
        with pytest.raises(SourceError, match="no split 'dev'"):
            open_source(f"{url}/data/marco", "dev")
        with pytest.raises(SourceError, match=r"there is no such file or folder|can't be reached"):
            open_source(f"{url}/nowhere", "train")
    reference = read(marco)
    assert (judged.pairs, judged.queries, judged.documents) == (reference.pairs, reference.queries, reference.documents)
    assert judged.report.as_manifest() == reference.report.as_manifest()
    with pytest.raises(SourceError, match="can't be reached"):
        open_source(f"{url}/data/marco", "train")
    with pytest.raises(SourceError, match="fsspec knows no store no-such-store://"):
        open_source("no-such-store://bucket/marco", "train")


def test_a_store_that_breaks_off_is_one_sentence(tmp_path: Path) -> None:
    marco = folder(tmp_path / "marco")

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        if request.method == "GET":
            await response.write(COLLECTION)
            assert request.transport
            request.transport.close()
        return response

    app = web.Application()
    app.router.add_get("/data/marco/collection.tsv", cut)
    app.router.add_static("/data", tmp_path, show_index=True)
    with on_loopback(app) as url:
        source = open_source(f"{url}/data/marco", "train")
        with pytest.raises(SourceError, match=r"collection\.tsv can't be read to its end") as raised:
            source.read()
    assert "\n" not in str(raised.value)
    assert marco.is_dir()


def test_garbage_and_a_line_of_ten_megabytes_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    chance = random.Random(3)
    junk = {
        b"no tab": "columns",
        b"7\t ": "empty_text",
        b"8\t\xff": "bad_utf8",
        b"a b\tc": "bad_id",
        b"9\tx\ty": "tabs_in_text",
    }
    rows = [b"%d\tA heron of %d is a bird.\n" % (n, n) for n in range(100_000, 140_000)]
    wrong = chance.sample(range(40_000), 400)
    kinds = [chance.choice(list(junk)) for _ in wrong]
    for place, kind in zip(wrong, kinds, strict=True):
        rows[place] = kind + b"\n"
    rows.insert(20_000, b"5\t" + b"x" * 10_000_000 + b"\n")
    asked = list(range(100_000, 140_000, 7))
    marco = folder(
        tmp_path / "marco",
        b"".join(b"1\t0\t%d\t1\n" % n for n in asked),
        b"1\twhat is a heron\n",
        b"".join(rows),
    )
    judged = read(marco)
    there = set(asked) - {100_000 + place for place in wrong}
    assert {int(pid) for _, pid in judged.pairs} == there
    assert judged.documents[str(min(there))] == f"A heron of {min(there)} is a bird."
    assert judged.report.malformed.counts == Counter(junk[kind] for kind in kinds) + Counter(overlong=1)
    assert judged.report.dangling.counts["passage_missing"] == len(asked) - len(there)
    assert judged.report.lines["collection.tsv"] == 40_001


def test_a_broken_gzip_is_refused_and_nothing_of_it_used(tmp_path: Path) -> None:
    marco = folder(tmp_path / "marco")
    whole = gzip.compress(
        b"".join(b"%d\t%s\n" % (n, random.Random(n).randbytes(40).hex().encode()) for n in range(999))
    )
    (marco / "collection.tsv").unlink()
    (marco / "collection.tsv.gz").write_bytes(whole[: len(whole) // 2])
    assert refusal(marco) == (
        "collection.tsv.gz ends in the middle of its gzip stream; nothing of it is used. Fetch the file again."
    )
    (marco / "collection.tsv.gz").write_bytes(b"not gzip at all")
    assert "is not a sound gzip file" in refusal(marco)
    (marco / "collection.tsv.gz").write_bytes(whole[:200] + bytes(50) + whole[250:])
    assert "nothing of it is used" in refusal(marco)


def test_progress_tells_how_much_of_each_file_is_read(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    source = open_source(str(folder(tmp_path / "m")), "train")
    select_seeds(source, 0, 0, CleaningOptions(), lambda *what: told.append(what))
    assert ("reading collection.tsv", len(COLLECTION), len(COLLECTION)) in told


def test_the_account_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    exclude = tmp_path / "bench.tsv"
    exclude.write_bytes(b"5\tsomething else\n")
    source = open_source(str(folder(tmp_path / "marco")), "train", [exclude])
    report = select_seeds(source, 0, 0, CleaningOptions()).report
    assert str(tmp_path) not in json.dumps(report.as_manifest())
    assert report.as_manifest()["files"][0]["name"] == "bench.tsv"
    assert report.as_manifest()["excluded_queries"] == 1
