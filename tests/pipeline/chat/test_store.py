from __future__ import annotations

import asyncio
from pathlib import Path

import jsonlines
import pytest
from test_memory import answer

from pipeline.chat.memory import Memory
from pipeline.store import main


@pytest.fixture
def filled(store: str) -> str:
    memory = Memory(store)

    async def keep() -> None:
        for i in range(10):
            await memory.write(answer(f"k{i}", model="old" if i < 4 else "new", cost=None if i == 9 else 0.5))

    asyncio.run(keep())
    memory.close()
    return store


def test_the_books_show_answers_and_spend_by_model_and_say_unknown(
    filled: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", filled]) == 0
    out = capfd.readouterr().out
    assert "old" in out
    assert "2.0000" in out
    assert "2.5000 and unknown" in out.replace("\n", " ")
    assert "4.5000 US$" in out


def test_answers_are_exported_whole_and_a_file_is_never_overwritten(filled: str, tmp_path: Path) -> None:
    assert main(["export", filled, "--to", str(tmp_path / "a.jsonl")]) == 0
    with jsonlines.open(tmp_path / "a.jsonl") as reader:
        rows = list(reader)
    assert [row["key"] for row in rows] == [f"k{i}" for i in range(10)]
    assert rows[0]["raw"] == '{"choices": []}'
    assert main(["export", filled, "--to", str(tmp_path / "a.jsonl")]) == 2


def test_pruning_forgets_answers_after_a_yes_and_never_the_spend(
    filled: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["prune", filled]) == 2
    assert main(["prune", filled, "--model", "old"]) == 0
    assert "4 answers would be forgotten" in capfd.readouterr().out
    assert main(["prune", filled, "--model", "old", "--yes"]) == 0
    assert main(["prune", filled, "--before", "2020-01-01", "--yes"]) == 0
    memory = Memory(filled)
    assert memory.spent_usd() == pytest.approx(4.5)
    assert asyncio.run(memory.look("k0")) is None
    assert asyncio.run(memory.look("k7"))
    memory.close()


def test_looking_at_a_store_that_is_not_there_makes_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path)]) == 2
    assert main(["show", f"sqlite:///{tmp_path}/x.sqlite"]) == 2
    assert not list(tmp_path.iterdir())
    assert "holds no store" in capfd.readouterr().err
