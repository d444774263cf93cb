from __future__ import annotations

import csv
import json
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline import manifest as manifests
from pipeline.audit import agreement
from pipeline.audit import sample as samples
from pipeline.audit.__main__ import main
from pipeline.audit.annotations import Annotations
from pipeline.audit.sample import audit_folder, judged_rows
from pipeline.card import write_card
from pipeline.errors import UsageError
from pipeline.judging import shown_order
from pipeline.report.page import render
from pipeline.report.survey import Survey


@pytest.fixture
def output(sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.folder, tmp_path / "infir", ignore=shutil.ignore_patterns(".work")))


def judge_grade(judged: dict, cell: tuple[str, int, int]) -> int:
    name, c, p = cell
    return judged[name][shown_order(name, "contexts")[c]][shown_order(name, "passages")[p]]


def test_the_draw_is_even_over_strata_repeatable_and_blind(output: Path) -> None:
    drawn = samples.draw(output, 30, seed=0)
    assert drawn == samples.draw(output, 30, seed=0) != samples.draw(output, 30, seed=1)
    assert len(drawn.rows) == 30
    assert max(Counter(row.dimension for row in drawn.rows).values()) <= 5
    assert sum(row.weight for row in drawn.rows) <= sum(1 for _ in judged_rows(output)) + 1e-9
    assert main(["sample", str(output), "--rows", "30"]) == 0
    text = (output / "audit" / "sample.json").read_text("utf-8")
    for hidden in ("relevance", "rationale", "reason", "accepted"):
        assert f'"{hidden}"' not in text


def test_answers_outlive_a_kill_and_an_undo_takes_the_last_one_back(output: Path) -> None:
    folder = audit_folder(output)
    drawn = samples.draw(output, 2, 0)
    samples.write(drawn, folder)
    anna = Annotations(folder, drawn, "anna")
    first, second = drawn.cells[:2]
    anna.grade(first, 3)
    anna.grade(second, 1)
    assert anna.undo() == second
    anna.grade(second, 2)
    with (folder / "anna.jsonl").open("a") as file:
        file.write('{"row": "cut of')  # a machine that lost power while it wrote
    again = Annotations(folder, drawn, "anna")
    assert again.grades == {first: 3, second: 2}
    assert again.next_cell == drawn.cells[2]
    again.grade(drawn.cells[2], 0)
    again.grade(drawn.cells[3], 1)
    kept = {first: 3, second: 2, drawn.cells[2]: 0, drawn.cells[3]: 1}
    assert Annotations(folder, drawn, "anna").grades == kept, "the torn line took no later answer with it"
    with pytest.raises(ValueError, match="no cell"):
        again.grade(first, 4)
    with pytest.raises(ValueError, match="no cell"):
        again.grade(("nobody", 0, 0), 1)


def test_people_who_agree_with_the_judge_get_kappa_one_and_the_card_says_so(output: Path) -> None:
    assert main(["sample", str(output), "--rows", "20"]) == 0
    drawn = samples.read(audit_folder(output))
    judged = {row["id"]: row["relevance"] for row in judged_rows(output)}
    for name in ("anna", "ben"):
        person = Annotations(audit_folder(output), drawn, name)
        for cell in drawn.cells:
            person.grade(cell, judge_grade(judged, cell))
    assert main(["agree", str(output)]) == 0
    figures = json.loads((output / "audit" / "agreement.json").read_text())
    assert figures["judge_and_people"]["kappa"] == pytest.approx(1.0)
    assert figures["between_people"]["fleiss"]["kappa"] == pytest.approx(1.0)
    assert figures["between_people"]["krippendorff"]["alpha"] == pytest.approx(1.0)
    assert sum(map(sum, figures["confusion"])) == 180
    default = next(t for t in figures["thresholds"] if (t["relevant"], t["irrelevant"]) == (2, 1))
    assert default["precision"] == 1.0
    assert "Cohen's kappa 1.00" in (output / "README.md").read_text("utf-8").replace("\\", "")


def test_kappa_agrees_with_its_definition_where_people_differ(output: Path) -> None:
    drawn = samples.draw(output, 12, 0)
    folder = audit_folder(output)
    samples.write(drawn, folder)
    judged = {row["id"]: row["relevance"] for row in judged_rows(output)}
    person = Annotations(folder, drawn, "cora")
    for i, cell in enumerate(drawn.cells):
        person.grade(cell, min(3, judge_grade(judged, cell) + (i % 3 == 0)))
    figures = agreement.measure(drawn, [person], judged).as_dict()
    pairs = [(judge_grade(judged, cell), grade) for cell, grade in person.grades.items()]
    n = len(pairs)
    observed = sum((a - b) ** 2 for a, b in pairs) / n
    chance = sum((a - b) ** 2 for a, _ in pairs for _, b in pairs) / n**2
    assert figures["judge_and_people"]["kappa"] == pytest.approx(1 - observed / chance, abs=1e-3)
    assert agreement.differing_cells([person], judged) == []


def test_figures_that_are_not_defined_are_told_and_those_of_older_rows_are_not_shown(
    output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(output), "--rows", "4"]) == 0
    drawn = samples.read(audit_folder(output))
    for name, cells in (("anna", drawn.cells[:9]), ("ben", drawn.cells[9:18])):  # no cell of both, one grade everywhere
        person = Annotations(audit_folder(output), drawn, name)
        for cell in cells:
            person.grade(cell, 2)
    assert main(["agree", str(output)]) == 0
    out, err = capfd.readouterr()
    assert "anna and ben" in out
    assert not err
    file = audit_folder(output) / "agreement.json"
    figures = json.loads(file.read_text())
    assert figures["judge_and_people"]["kappa"] is None
    assert figures["between_people"]["fleiss"] is figures["between_people"]["krippendorff"] is None
    made = manifests.read_output(output)
    assert "not defined" in (output / "README.md").read_text("utf-8")
    assert "not defined on them" in render(made, Survey(), figures)
    file.write_text(json.dumps(figures | {"inputs": "0" * 64}))
    write_card(made, output)
    assert "Nobody has graded" in (output / "README.md").read_text("utf-8")


def test_a_sheet_goes_out_and_comes_back_and_no_text_in_it_is_a_formula(output: Path, tmp_path: Path) -> None:
    assert main(["sample", str(output), "--rows", "3"]) == 0
    drawn = samples.read(audit_folder(output))
    sheet = tmp_path / "grades.csv"
    assert main(["to-csv", str(output), "--to", str(sheet)]) == 0
    assert main(["to-csv", str(output), "--to", str(sheet)]) == 2, "a sheet with grades in it is never overwritten"
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))
    assert len(lines) == 28
    assert not any(cell.startswith(("=", "+", "@", "-")) for line in lines for cell in line)
    for line in lines[1:15]:
        line[-1] = "2"
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(lines)
    assert main(["from-csv", str(output), str(sheet), "--annotator", "dora"]) == 0
    assert list(Annotations(audit_folder(output), drawn, "dora").grades.values()) == [2] * 14
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(lines)
    assert main(["from-csv", str(output), str(sheet), "--annotator", "elsa"]) == 0
    assert list(Annotations(audit_folder(output), drawn, "elsa").grades.values()) == [2] * 14
    lines[20][-1] = "seven"
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(lines)
    assert main(["from-csv", str(output), str(sheet), "--annotator", "emil"]) == 2
    sheet.write_text("row,grade\n1,2\n")
    assert main(["from-csv", str(output), str(sheet), "--annotator", "emil"]) == 2
    assert not (output / "audit" / "emil.jsonl").exists(), "nothing of a malformed sheet is taken"


def test_what_cannot_be_used_is_one_line_and_changes_nothing(
    output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    assert main(["sample", str(tmp_path / "nothing")]) == 2
    assert main(["agree", str(output)]) == 2
    assert main(["sample", str(output), "--rows", "5"]) == 0
    drawn = samples.read(audit_folder(output))
    Annotations(audit_folder(output), drawn, "anna").grade(drawn.cells[0], 1)
    before = {p.name: p.read_bytes() for p in audit_folder(output).iterdir()}
    assert main(["sample", str(output), "--rows", "6"]) == 2, "a sample that is being graded stays"
    assert main(["from-csv", str(output), str(tmp_path / "no.csv"), "--annotator", "x/../y"]) == 2
    assert {p.name: p.read_bytes() for p in audit_folder(output).iterdir()} == before
    other = json.loads((audit_folder(output) / "anna.jsonl").read_text().split("\n")[0]) | {"sample": "0" * 16}
    (audit_folder(output) / "zoe.jsonl").write_text(json.dumps(other) + "\n\n\n")
    assert main(["agree", str(output)]) == 2
    assert "another sample" in capfd.readouterr().err
    shard = next((output / "data").glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:100])
    assert main(["sample", str(output), "--rows", "7"]) == 2
    for line in capfd.readouterr().err.strip().split("\n"):
        assert line.startswith("error: ")


def test_a_port_in_use_is_told(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(output), "--rows", "2"]) == 0
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        assert main(["serve", str(output), "--port", str(busy.getsockname()[1])]) == 2
    assert "in use" in capfd.readouterr().err
    for port in ("-1", "65536", "http"):
        with pytest.raises(SystemExit) as stop:
            main(["serve", str(output), "--port", port])
        assert stop.value.code == 2


def test_grades_given_by_key_in_a_real_browser_are_there_after_a_reload(output: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    from tests.browser import chromium

    assert main(["sample", str(output), "--rows", "2"]) == 0
    drawn = samples.read(audit_folder(output))
    hostile = "<script>document.title='broken'</script> \u202e ${x} {{y}} {% z %} \x00\x1b " + "long" * 5000
    raw = json.loads((audit_folder(output) / "sample.json").read_text())
    raw["rows"][0]["passages"] = [hostile] * 3
    (audit_folder(output) / "sample.json").write_text(json.dumps(raw))
    command = [sys.executable, "-m", "pipeline.audit", "serve", str(output), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, chromium() as browser:
        try:
            assert server.stdout is not None
            browser.get(server.stdout.readline().split()[2])
            wait = WebDriverWait(browser, 10)
            wait.until(lambda b: b.find_element(By.ID, "name").is_displayed())
            browser.find_element(By.ID, "name").send_keys("anna", Keys.ENTER)
            wait.until(lambda b: b.find_element(By.ID, "count").text == "0 / 18")
            assert hostile[:20] in browser.find_element(By.ID, "text").text
            assert browser.title == "Audit"
            assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
            page = browser.find_element(By.TAG_NAME, "body")
            for done, key in enumerate("310", start=1):
                page.send_keys(key)
                wait.until(lambda b, n=done: b.find_element(By.ID, "count").text == f"{n} / 18")
            page.send_keys("u")
            wait.until(lambda b: b.find_element(By.ID, "count").text == "2 / 18")
            browser.execute_script("window.before = true")
            browser.refresh()
            wait.until(lambda b: b.find_element(By.ID, "count").text == "2 / 18")
            assert not browser.execute_script("return window.before"), "the page is a new one"
            assert browser.find_element(By.ID, "matrix").text.split() == ["3", "1"]
            assert not [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
        finally:
            server.terminate()
    assert list(Annotations(audit_folder(output), drawn, "anna").grades.values()) == [3, 1]


def test_another_sites_name_for_this_machine_is_refused(output: Path) -> None:
    from starlette.testclient import TestClient

    from pipeline.audit.serve import make_app

    samples.write(samples.draw(output, 2, 0), audit_folder(output))
    app = make_app(audit_folder(output), samples.read(audit_folder(output)))
    assert TestClient(app, base_url="http://127.0.0.1").get("/api/anna").status_code == 200
    assert TestClient(app, base_url="http://evil.example").get("/api/anna").status_code == 400
    refused = TestClient(app, base_url="http://127.0.0.1").get("/api/..%2F..%2Fetc")
    assert refused.status_code in (404, 422)


def test_a_name_that_is_no_file_name_is_refused(output: Path) -> None:
    drawn = samples.draw(output, 2, 0)
    for name in ("", "../x", "a b", "ä", "x" * 41):
        with pytest.raises(UsageError):
            Annotations(audit_folder(output), drawn, name)
