from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from curated import ROOT

from pipeline.chat.memory import FORMAT, Memory, Remembered, open_engine, read_experience
from pipeline.errors import UsageError


def answer(key: str, cost: float | None = 0.25, **changes: Any) -> Remembered:
    fields: dict[str, Any] = {
        "key": key,
        "task": "judge",
        "model": "m",
        "raw": '{"choices": []}',
        "model_version": "m-1",
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 20,
        "reasoning_tokens": 5,
        "failed_attempts": 1,
        "latency_s": 0.5,
        "cost_usd": cost,
    }
    return Remembered(**(fields | changes))


def test_what_was_kept_is_found_again_by_another_process_and_spend_adds_up(store: str) -> None:
    async def keep() -> list[float]:
        return list(await asyncio.gather(*(memory.write(answer(f"k{i}")) for i in range(700))))

    memory = Memory(store)
    spent = asyncio.run(keep())
    memory.close()
    assert max(spent) == pytest.approx(175.0)
    again = Memory(store)

    async def look() -> list[Remembered | None]:
        return list(await asyncio.gather(*(again.look(f"k{i}") for i in range(1200))))

    found = asyncio.run(look())
    assert [r.key if r else None for r in found[:700]] == [f"k{i}" for i in range(700)]
    assert not any(found[700:])
    assert again.spent_usd() == pytest.approx(175.0)
    assert found[0] is not None
    assert found[0].created_at
    again.close()
    known = read_experience(store)["judge", "m"]
    assert (known.answers, known.mean_completion, known.cached_share) == (700, 20.0, 0.4)


KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, "tests/pipeline/chat")
from test_memory import Memory, answer

async def keep():
    memory = Memory(sys.argv[1])
    for i in range(50):
        await memory.write(answer(f"k{i}"))
        print(i, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(keep())
"""


def test_an_answer_that_is_written_outlives_the_process_whatever_happens_to_it(store: str) -> None:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'pipeline'}"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, store], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    memory = Memory(store)

    async def look() -> list[Remembered | None]:
        return [await memory.look(f"k{i}") for i in range(50)]

    assert all(asyncio.run(look()))
    memory.close()


def test_sync_returns_once_a_flush_that_began_after_the_write_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush = os.fsync

    def watched(file: int) -> None:
        events.append("flush begins")
        time.sleep(0.02)
        flush(file)
        events.append("flush ends")

    async def keep(i: int) -> None:
        await memory.write(answer(f"k{i}"))
        events.append(f"written {i}")
        await memory.sync()
        events.append(f"synced {i}")

    async def scenario() -> None:
        await keep(0)
        events.clear()
        monkeypatch.setattr(os, "fsync", watched)
        await asyncio.gather(*(keep(i) for i in range(1, 40)))

    memory = Memory(f"sqlite:///{tmp_path}/answers.sqlite")
    asyncio.run(scenario())
    monkeypatch.undo()
    memory.close()
    for i in range(1, 40):
        between = events[events.index(f"written {i}") : events.index(f"synced {i}")]
        assert "flush begins" in between
        assert "flush ends" in between[between.index("flush begins") :]
    assert events.count("flush begins") <= 20, "a flush serves all that wait"


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_disk_that_cannot_be_flushed_is_told(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: int) -> None:
        raise OSError(5, "Input/output error")

    async def scenario() -> None:
        await memory.write(answer("k"))
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="the store of answers failed: Input/output error"):
            await memory.sync()

    memory = Memory(store)
    asyncio.run(scenario())
    monkeypatch.undo()
    memory.close()


MANY = """
import asyncio, sys
sys.path.insert(0, "tests/pipeline/chat")
from test_memory import Memory, answer

async def keep():
    memory = Memory(sys.argv[1])
    await asyncio.gather(*(memory.write(answer(f"shared{i}", cost=0.5)) for i in range(100)))
    await asyncio.gather(*(memory.write(answer(f"{sys.argv[2]}-{i}", cost=0.5)) for i in range(100)))
    memory.close()

asyncio.run(keep())
"""


def test_several_processes_write_one_store_at_once_and_every_payment_counts(store: str) -> None:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'pipeline'}"}
    children = [subprocess.Popen([sys.executable, "-c", MANY, store, f"p{n}"], cwd=ROOT, env=env) for n in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    memory = Memory(store)
    assert memory.spent_usd() == pytest.approx(300.0), (
        "what three processes paid for the same answer was paid three times"
    )
    memory.close()
    assert read_experience(store)["judge", "m"].answers == 400


def test_a_damaged_or_foreign_sqlite_file_is_refused_and_left_byte_for_byte(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("create table thesis (chapter text)")
        connection.execute("insert into thesis values ('years of work')")
    connection.close()
    other = tmp_path / "other.sqlite"
    open_engine(f"sqlite:///{other}").dispose()
    with sqlite3.connect(other) as connection:
        connection.execute("update infir_format set format = 'inf-ir answers 99'")
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"SQLite format 3\x00" + b"\x07" * 5000)
    text = tmp_path / "text.sqlite"
    text.write_text("a shopping list, not a database\n" * 50)
    for file, says in ((foreign, "another program's"), (other, "99"), (damaged, "can't use"), (text, "can't use")):
        before = file.read_bytes()
        with pytest.raises(UsageError, match=says):
            Memory(f"sqlite:///{file}")
        assert file.read_bytes() == before
    assert FORMAT == "inf-ir answers 1"


@pytest.mark.parametrize("url", ["nonsense", "mysql://somewhere/x", "postgresql://u:planted-password@127.0.0.1:9/x"])
def test_a_store_that_cannot_be_reached_is_one_sentence_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Memory(url)
    assert "--store" in str(caught.value)
    assert "planted-password" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_tables_of_ours_without_our_mark_are_another_programs_in_postgresql(store: str) -> None:
    engine = sa.create_engine(store.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("create table infir_answers (x int)"))
    engine.dispose()
    with pytest.raises(UsageError, match="another program's"):
        Memory(store)


def test_a_full_disk_is_told_as_an_os_error_and_what_was_kept_stays(tmp_path: Path) -> None:
    script = (
        "import asyncio, resource, sys; sys.path.insert(0, 'tests/pipeline/chat')\n"
        "from test_memory import Memory, answer\n"
        "async def keep():\n"
        "    memory = Memory(sys.argv[1])\n"
        "    await memory.write(answer('before'))\n"
        "    import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "    try:\n"
        "        for i in range(400): await memory.write(answer(f'k{i}', raw='x' * 5000))\n"
        "    except OSError as error: print(error); raise SystemExit(7)\n"
        "asyncio.run(keep())\n"
    )
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'pipeline'}"}
    url = f"sqlite:///{tmp_path}/a.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", script, url], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "the store of answers failed" in done.stdout
    memory = Memory(url)

    async def look() -> Remembered | None:
        return await memory.look("before")

    assert asyncio.run(look())
    memory.close()
