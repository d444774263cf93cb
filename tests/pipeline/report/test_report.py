from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.drawing import Draw, place
from pipeline.judging import shown_order
from pipeline.manifest import read_output
from pipeline.measures.overlap import jaccard, trigrams
from pipeline.report import facts, write_report
from pipeline.report.__main__ import main
from pipeline.report.survey import read_survey
from pipeline.run import main as run
from tests.browser import chromium

HOSTILE = (
    "</script><script>document.title='broken'</script> <img src=x onerror=alert(1)> {{ m }} {% for %} "
    "\u202e right \u2066 to left \x00\x1b[31m \u2028 ' \" & &lt; --> "
)


@pytest.fixture
def output(sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.folder, tmp_path / "infir", ignore=shutil.ignore_patterns(".work")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, sample) -> Path:
    """The sample's rows with hostile texts in every column of text."""
    folder = Path(
        shutil.copytree(sample.folder, tmp_path_factory.mktemp("hostile") / "x", ignore=shutil.ignore_patterns(".work"))
    )
    for file in [*folder.glob("data/*"), *folder.glob("rejected/*")]:
        rows = pq.read_table(file).to_pylist()
        for i, row in enumerate(rows):
            for name, value in row.items():
                if isinstance(value, str) and name not in ("id", "dimension", "form", "split", "stage", "reason"):
                    row[name] = HOSTILE + value[:30] + "long " * (4000 if i % 5 == 0 else 0)
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    write_report(read_output(folder), folder)
    return folder / "report" / "index.html"


def test_every_run_ends_with_a_page_that_needs_no_network(sample) -> None:
    text = (sample.folder / "report" / "index.html").read_text("utf-8")

    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            found.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action"))

    Links().feed(text)
    assert all(link.startswith("#") for link in found)
    assert not re.search(r"@import|url\((?!['\"]?#)", text)
    assert len(text) < 5_000_000
    assert all(
        section in text
        for section in ("Funnel", "Diversity", "What BM25 solves", "A row for every other reason", "offline-rules")
    )


def test_the_same_folder_gives_the_same_page(output: Path) -> None:
    before = (output / "report" / "index.html").read_bytes()
    assert main([str(output)]) == 0
    assert (output / "report" / "index.html").read_bytes() == before


def test_hostile_texts_stand_on_the_page_as_text(hostile: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    text = hostile.read_text("utf-8")
    assert text.count("<script") == 2, "the page's own two"
    assert "<img" not in text
    for mark in "\u202e\u2066\x00\x1b":
        assert mark not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    assert json.loads(data.group(1))["rows"][0]["P+"].startswith("</script><script>")
    assert len(text.encode()) < 5_000_000
    with chromium(width=390) as browser:
        browser.get(hostile.as_uri())
        assert browser.title == "sample: data set report"
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert "<img src=x" in browser.find_element("id", "list").text
        example = browser.find_element("css selector", "[data-example]")
        browser.execute_script("arguments[0].open = true", example)
        WebDriverWait(browser, 5).until(lambda b: "{{ m }} {% for %}" in example.text)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_rows_can_be_filtered_and_searched_in_a_real_browser(sample) -> None:
    from selenium.webdriver.support.ui import Select, WebDriverWait

    with chromium() as browser:
        browser.get((sample.folder / "report" / "index.html").as_uri())
        found = browser.find_element("id", "found")
        total = int(found.text.split()[0])
        assert total > 100
        first = browser.find_element("css selector", "#list .row")
        assert first.find_elements("tag name", "mark")
        assert first.find_elements("tag name", "del")
        Select(browser.find_element("id", "f-dimension")).select_by_value("figures")
        WebDriverWait(browser, 5).until(lambda b: int(found.text.split()[0]) < total)
        metas = [e.text for e in browser.find_elements("css selector", "#list .row > .meta:first-child")]
        assert metas
        assert all(text.startswith("figures") for text in metas)
        Select(browser.find_element("id", "f-dimension")).select_by_value("")
        Select(browser.find_element("id", "f-reason")).select_by_value("same_passage")
        WebDriverWait(browser, 5).until(lambda b: "same_passage" in b.find_element("id", "list").text)
        Select(browser.find_element("id", "f-reason")).select_by_value("")
        browser.find_element("id", "f-text").send_keys("no text holds this")
        WebDriverWait(browser, 5).until(lambda b: found.text.startswith("0 of"))
        assert not browser.get_log("browser")


def test_what_is_no_output_is_one_line_and_nothing_changes(
    output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (output / "report" / "index.html").read_bytes()
    (tmp_path / "nothing").mkdir()
    assert main([str(tmp_path / "nothing")]) == 2
    shard = output / "data" / "train-00000-of-00008.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:200])
    assert main([str(output)]) == 2
    shard.unlink()
    assert main([str(output)]) == 2
    pq.write_table(pq.read_table(output / "data" / "train-00001-of-00008.parquet").slice(0, 2), shard)
    assert main([str(output)]) == 2
    (output / "manifest.json").write_text("{}")
    assert main([str(output)]) == 2
    lines = capfd.readouterr().err.strip().split("\n")
    assert len(lines) == 5
    assert all(line.startswith("error: ") for line in lines)
    assert "the manifest says" in lines[3]
    assert (output / "report" / "index.html").read_bytes() == before


texts = st.lists(st.text(alphabet="ab ", min_size=1, max_size=12), min_size=2, max_size=12)


@settings(max_examples=50)
@given(texts)
def test_near_duplicates_are_those_of_every_pair_compared(drawn: list[str]) -> None:
    slow = np.mean(
        [
            any(i != j and jaccard(trigrams(a), trigrams(b)) >= facts.NEAR for j, b in enumerate(drawn))
            for i, a in enumerate(drawn)
        ]
    )
    assert facts.near_duplicates(drawn) == pytest.approx(slow)


def test_bm25_solves_what_words_tell_and_not_what_they_do_not() -> None:
    row = {
        "query_positive": "zebra",
        "query_negative": "walrus",
        "instruction_positive": "in prose",
        "instruction_negative": "as verse",
        "document": "zebra stripes prose",
        "hard_negative_document_1": "zebra stripes verse",
        "hard_negative_document_2": "walrus tusks prose",
    }
    other = {name: text.replace("zebra", "lynx").replace("walrus", "heron") for name, text in row.items()}
    found = facts.bm25_accuracy([row, other])
    assert found["(I+, Q+) with the instruction"] == 1.0
    assert found["all three contexts (strict)"] == 1.0
    assert found["(I+, Q+), query alone"] == 0.0, "the query alone ties P+ and P-1"


def test_figures_of_the_page_are_those_of_the_rows(sample) -> None:
    survey = read_survey(sample.manifest, sample.folder)
    accepted, rejected = (
        [row for file in sorted(sample.folder.glob(f"{kind}/*")) for row in pq.read_table(file).to_pylist()]
        for kind in ("data", "rejected")
    )
    words = Counter(len(row["document"].split()) for row in accepted)
    assert {w: n for w, n in enumerate(survey.lengths["document"]) if n} == words
    judged = [row for row in accepted + rejected if row["relevance"]]
    for c, p, grade in np.ndindex(3, 3, 4):
        assert survey.grades[c, p, grade] == sum(row["relevance"][c][p] == grade for row in judged)
    means = [np.mean(row["relevance"], axis=0)[list(shown_order(row["id"], "passages"))] for row in judged]
    assert survey.positions == pytest.approx(np.sum(means, axis=0))
    assert sum(done for by in survey.crossed.values() for done, _ in by.values()) == len(accepted)
    assert sum(seen for by in survey.crossed.values() for _, seen in by.values()) == len(accepted + rejected)
    assert {row["id"] for row in survey.sample} == {row["id"] for row in accepted}
    assert {row["reason"] for row in survey.examples} == {row["reason"] for row in rejected}
    assert {row["id"] for row in survey.browsed} == {row["id"] for row in accepted + rejected}


@given(st.lists(st.text(max_size=3), unique=True), st.integers(0, 8))
def test_a_draw_is_the_lowest_places_whatever_the_order(ids: list[str], size: int) -> None:
    drawn = Draw(size)
    for name in ids:
        drawn.offer(place("x", name), name)
    assert drawn.ids == sorted(ids, key=lambda name: place("x", name))[:size]
    assert drawn.offered == len(ids)


def test_an_empty_data_set_has_a_page_too(tmp_path: Path, write_tiny) -> None:
    out = tmp_path / "out"
    assert run(["--source", str(write_tiny), "--output", str(out)]) == 0
    assert "0 tuples" in (out / "report" / "index.html").read_text("utf-8")


@pytest.fixture
def write_tiny(tmp_path: Path) -> Path:
    from curated import write_source

    return write_source(
        tmp_path / "source", {"whatever is the thing": "Some unrelated words stand in this passage here."}
    )


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_what_was_mined_is_shown_with_its_false_negatives_and_beside_its_rows(mined) -> None:
    page = (mined.folder / "report" / "index.html").read_text("utf-8")
    section = page[page.index('<h2 id="mined">') : page.index('<h2 id="cost">')]
    rows = {row["id"]: row for row in mined.rows()}
    firsts = [row["mined_relevance"][0] for row in rows.values() if row["mined_relevance"]]
    shown = re.findall(r'<tr><td>(.*?)</td><td class="n">([\d,]+)</td>', section)
    counts = Counter(min(4, len(row["mined_documents"])) for row in rows.values())
    assert dict(shown[:3]) == {
        "all 4": f"{counts[4]}", "fewer": f"{sum(counts[n] for n in (1, 2, 3))}", "none": f"{counts[0]}"
    }  # fmt: skip
    assert dict(shown[3:]) == {str(grade): f"{firsts.count(grade)}" for grade in range(4)}
    false = sum(grade >= 2 for grade in firsts)
    assert f"False negatives: {false} of {len(firsts)}, {false / len(firsts):.1%}" in section
    assert section.count("<details>") == min(false, 5)
    browsed = data_of(page)["rows"]
    assert [row["id"] for row in browsed if row["mined"]]
    for row in browsed:
        if row["id"] in rows:
            whole = rows[row["id"]]
            assert [m["id"] for m in row["mined"]] == whole["mined_document_ids"]
            assert [m["text"] for m in row["mined"]] == whole["mined_documents"]
            assert [m["grade"] for m in row["mined"]] == whole["mined_relevance"]


def test_a_page_without_mined_negatives_does_not_speak_of_them(sample) -> None:
    page = (sample.folder / "report" / "index.html").read_text("utf-8")
    assert 'id="mined"' not in page
    assert "#mined" not in page
    assert not any(row["mined"] for row in data_of(page)["rows"])


def test_mined_texts_stand_on_the_page_as_text(mined, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mined.folder, tmp_path / "x", ignore=shutil.ignore_patterns(".work")))
    for file in folder.glob("*/*.parquet"):
        rows = pq.read_table(file).to_pylist()
        for row in rows:
            for name in ("mined_documents", "mined_document_ids"):
                row[name] = [HOSTILE + text[:30] + "long " * 1000 for text in row[name] or ()]
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    page = write_report(read_output(folder), folder).read_text("utf-8")
    section = page[page.index('<h2 id="mined">') : page.index('<h2 id="cost">')]
    assert "&lt;/script&gt;" in section
    assert page.count("<script") == 2, "the page's own two"
    assert "<img" not in page
    for mark in "\u202e\u2066\x00\x1b":
        assert mark not in page
    assert next(row for row in data_of(page)["rows"] if row["mined"])["mined"][0]["text"].startswith("</script>")
    assert len(page.encode()) < 5_000_000
    with chromium(width=390) as browser:
        browser.get((folder / "report" / "index.html").as_uri())
        browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert "<img src=x" in browser.find_element("css selector", "#list details .text").text
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert not browser.get_log("browser")
