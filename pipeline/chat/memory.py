"""Remembers every answer, durably, before anything downstream sees it: SQLite on a machine, PostgreSQL for many.

One thread a process owns the connection. It takes whatever questions and answers have gathered while it was busy, serves them in
one transaction, and wakes the waiting coroutines once. So an answer costs a share of one commit, not a commit of its own, and
several processes can share a store.

An answer gets safe in two steps. Once it is written, no kill of the process can lose it: that takes well under a millisecond,
and its slot of the window waits for no more. Once it is synced, no power cut can: that is a disk's flush, which another thread
asks for, once for all that gathers meanwhile, and whoever uses the answer waits for it. PostgreSQL does both in its commit.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.chat.request import ChatRequest
from pipeline.errors import UsageError

FORMAT = "inf-ir answers 1"

_metadata = sa.MetaData()
_format = sa.Table("infir_format", _metadata, sa.Column("format", sa.Text, primary_key=True))
answers = sa.Table(
    "infir_answers",
    _metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
    sa.Column("failed_attempts", sa.Integer, nullable=False),
    sa.Column("latency_s", sa.Float, nullable=False),
    sa.Column("cost_usd", sa.Float),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)
spend = sa.Table(
    "infir_spend",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("usd", sa.Float, nullable=False),
)

outbox = sa.Table(
    "infir_outbox",
    _metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("job", sa.Text),
)
"""Requests that wait for a batch job, or for its results. `job`: which one they went out with."""
jobs = sa.Table(
    "infir_jobs",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("batch", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)
"""Batch jobs: `id` is ours and goes into the job's metadata, `batch` the endpoint's. state: sending, running, done."""

# Built once: building a statement costs as much as running it.
_KEYS: sa.BindParameter[list[str]] = sa.bindparam("keys", expanding=True)
_LOOK = sa.select(answers).where(answers.c.key.in_(_KEYS))
_TRIES = sa.select(outbox.c.key, outbox.c.tries).where(outbox.c.key.in_(_KEYS))
_BOOK = sa.update(spend).values(usd=spend.c.usd + sa.bindparam("paid"))
_SPENT = sa.select(spend.c.usd)

_RACES = 20  # looks at a store that others are making, 50 ms apart
_MOST = 500  # keys or rows a statement: within SQLite's bound on parameters


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer as the endpoint gave it (`raw`, the response body) and what it took. cost_usd: None where unknown."""

    key: str
    task: str
    model: str
    raw: str
    model_version: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    failed_attempts: int
    latency_s: float
    cost_usd: float | None
    mode: str = "online"
    created_at: str = ""


_FIELDS = tuple(field.name for field in fields(Remembered))


@dataclass(frozen=True, slots=True)
class Experience:
    """What the answers of one task and model were like, on average; zeros where there are none."""

    answers: int = 0
    mean_completion: float = 0.0
    mean_reasoning: float = 0.0
    cached_share: float = 0.0
    mean_latency_s: float = 0.0


@dataclass(slots=True)
class _Look:
    key: str
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Remembered | None]


@dataclass(slots=True)
class _Write:
    answer: Remembered
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[float]


@dataclass(slots=True)
class _Order:
    request: ChatRequest
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[int]


_Job = _Look | _Write | _Order


class Memory:
    """The store as coroutines see it. A store that can't be used is a UsageError when it is opened."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url, flush=False)
        self._flusher = _Flusher(self._engine)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="memory", daemon=True)
        self._thread.start()

    async def look(self, key: str) -> Remembered | None:
        """The answer to a request, if it is there. Raises OSError where the store fails."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Remembered | None] = loop.create_future()
        self._jobs.put(_Look(key, loop, future))
        return await future

    async def write(self, answer: Remembered) -> float:
        """Returns when no kill can lose the answer: what has been spent over the whole store, other processes included.

        Raises OSError where the store fails, a full disk for one.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()
        self._jobs.put(_Write(answer, loop, future))
        return await future

    async def sync(self) -> None:
        """Returns when no power cut can lose what is written. Raises OSError where the disk fails."""
        await self._flusher.flush()

    async def order(self, request: ChatRequest) -> int:
        """Put a request into the outbox of the batch jobs; returns, when that is durable, how often it has failed there."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._jobs.put(_Order(request, loop, future))
        return await future

    def spent_usd(self) -> float:
        """What was spent over the whole store, as far as prices are known."""
        with self._engine.connect() as connection:
            return float(connection.execute(_SPENT).scalar_one())

    def close(self) -> None:
        """Serve what waits, then close."""
        self._jobs.put(None)
        self._thread.join()
        self._flusher.close()
        self._engine.dispose()

    def _serve(self) -> None:
        open_ = True
        while open_:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            open_ = None not in jobs
            todo = [job for job in jobs if job is not None]
            if not todo:
                continue
            try:
                found, tries, spent = self._transact(todo)
            except sa.exc.SQLAlchemyError as error:
                _wake(todo, {}, {}, 0.0, OSError(f"the store of answers failed: {_first_line(error)}"))
            else:
                _wake(todo, found, tries, spent, None)

    def _transact(self, jobs: Sequence[_Job]) -> tuple[dict[str, Remembered], dict[str, int], float]:
        keys = [job.key for job in jobs if isinstance(job, _Look)]
        rows = [{name: getattr(job.answer, name) for name in _FIELDS} for job in jobs if isinstance(job, _Write)]
        ordered = {job.request.key: job.request for job in jobs if isinstance(job, _Order)}
        found: dict[str, Remembered] = {}
        tries: dict[str, int] = {}
        spent = 0.0
        with self._engine.begin() as connection:
            for start in range(0, len(keys), _MOST):
                asked = {"keys": keys[start : start + _MOST]}
                found |= {row.key: Remembered(*row) for row in connection.execute(_LOOK, asked)}
            if rows:
                spent = keep_answers(connection, rows)
            if ordered:
                connection.execute(
                    insert_new(connection, outbox), [_order_row(request) for request in ordered.values()]
                )
                known = list(ordered)
                for start in range(0, len(known), _MOST):
                    asked = {"keys": known[start : start + _MOST]}
                    tries |= {row.key: row.tries for row in connection.execute(_TRIES, asked)}
        return found, tries, spent


class _Flusher:
    """Flushes a SQLite file's write-ahead log to the disk; PostgreSQL has done so by the end of its commit."""

    def __init__(self, engine: sa.Engine) -> None:
        database = engine.url.database
        self._log = Path(f"{database}-wal") if engine.dialect.name == "sqlite" and database else None
        self._file: int | None = None
        self._thread = ThreadPoolExecutor(1, "flush")
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def flush(self) -> None:
        """Returns when what was written before is on the disk. Those who ask during one flush share the next."""
        if self._log is None:
            return
        if self._next is None:
            self._next = asyncio.create_task(self._flush_after(self._running))
        await asyncio.shield(self._next)

    def close(self) -> None:
        """Close the log."""
        self._thread.shutdown()
        if self._file is not None:
            os.close(self._file)

    async def _flush_after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._fsync)
        except OSError as error:
            raise OSError(f"the store of answers failed: {error.strerror}") from None

    def _fsync(self) -> None:
        assert self._log is not None
        if self._file is None:
            # It lies there from the first write on, and stays as long as the engine has a connection.
            self._file = os.open(self._log, os.O_RDONLY)
            folder = os.open(self._log.parent, os.O_RDONLY)
            os.fsync(folder)  # a new file survives a power cut once its folder is flushed too
            os.close(folder)
        os.fsync(self._file)


def open_engine(url: str, flush: bool = True) -> sa.Engine:
    """Open a store, making it where there is none. A damaged or foreign one is refused and never written to.

    flush: every commit to a SQLite file waits for the disk; False where the caller sees to that (`Memory.sync`).
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise UsageError(f"--store: {url!r} is not a store; expected sqlite:///FILE or postgresql://…") from error
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "postgresql":
        engine = looking = sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_size=2)
    elif parsed.get_backend_name() == "sqlite":
        engine = sa.create_engine(parsed, connect_args={"timeout": 60, "check_same_thread": False})
        sa.event.listen(engine, "connect", _set_up_flushed if flush else _set_up_unflushed)
        looking = sa.create_engine(f"sqlite:///file:{quote(parsed.database or '')}?mode=ro&uri=true")
    else:
        raise UsageError(f"--store: {shown} is not a store that we know; expected sqlite:///FILE or postgresql://…")
    try:
        if engine is looking or _holds_something(parsed.database):
            _refuse_foreign(looking, shown)
        _make_ours(engine)
    except (sa.exc.SQLAlchemyError, ModuleNotFoundError) as error:
        raise UsageError(
            f"--store: can't use {shown}: {_first_line(error)}. It was left as it is; name another, or mend this one."
        ) from error
    return engine


def read_experience(url: str) -> dict[tuple[str, str], Experience]:
    """(task, model) -> what the answers of a store were like. A store that can't be used is a UsageError."""
    engine = open_engine(url)
    mean, total = sa.func.avg, sa.func.sum
    chosen = sa.select(
        answers.c.task,
        answers.c.model,
        sa.func.count(),
        mean(answers.c.completion_tokens),
        mean(answers.c.reasoning_tokens),
        total(answers.c.cached_tokens),
        total(answers.c.prompt_tokens),
        mean(answers.c.latency_s),
    ).group_by(answers.c.task, answers.c.model)
    with engine.connect() as connection:
        rows = connection.execute(chosen).all()
    engine.dispose()
    return {
        (task, model): Experience(n, float(done), float(thought), float(cached) / max(1, int(prompt)), float(latency))
        for task, model, n, done, thought, cached, prompt, latency in rows
    }


def keep_answers(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> float:
    """Insert answers and book what they cost; returns what has been spent over the whole store."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    connection.execute(insert_new(connection, answers), [{**row, "created_at": now} for row in rows])
    paid = sum(row["cost_usd"] or 0.0 for row in rows)
    if paid:
        connection.execute(_BOOK, {"paid": paid})
    return float(connection.execute(_SPENT).scalar_one())


def insert_new(connection: sa.Connection, table: sa.Table) -> sa.Insert:
    """An insert that keeps the row that is there: two processes may have asked the same."""
    return _insert_new(connection.dialect.name, table)


@cache
def _insert_new(dialect_name: str, table: sa.Table) -> sa.Insert:
    dialect: Any = postgresql if dialect_name == "postgresql" else sqlite
    insert: sa.Insert = dialect.insert(table).on_conflict_do_nothing(index_elements=["key"])
    return insert


def _order_row(request: ChatRequest) -> dict[str, Any]:
    body = request.content.decode()
    return {"key": request.key, "task": request.task, "model": request.model, "body": body, "tries": 0, "job": None}


def _holds_something(file: str | None) -> bool:
    return file is not None and Path(file).exists() and Path(file).stat().st_size > 0


def _refuse_foreign(engine: sa.Engine, shown: str) -> None:
    """Look without writing: even switching a SQLite file to WAL would change another program's database."""
    tables = set(sa.inspect(engine).get_table_names())
    if _format.name not in tables:
        ours = tables & set(_metadata.tables)
        if ours or (tables and engine.dialect.name == "sqlite"):
            raise UsageError(f"--store: {shown} is another program's database; it was left as it is. Name another.")
        return
    with engine.connect() as connection:
        found = connection.execute(sa.select(_format.c.format)).scalars().all()
    if found and list(found) != [FORMAT]:
        raise UsageError(f"--store: {shown} holds {found[0]!r}, this version reads {FORMAT!r}; it was left as it is.")


def _make_ours(engine: sa.Engine) -> None:
    """Make the tables where they are missing. Others may be at it: the losers of that race look again."""
    for attempt in range(_RACES + 1):
        try:
            with engine.begin() as connection:
                _metadata.create_all(connection)
                if connection.execute(sa.select(_format.c.format)).first() is None:
                    connection.execute(sa.insert(spend).values(id=1, usd=0.0))
                    connection.execute(sa.insert(_format).values(format=FORMAT))
            return
        except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
            if attempt == _RACES:
                raise
            time.sleep(0.05)


def _set_up_flushed(connection: Any, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _set_up_unflushed(connection: Any, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _wake(
    jobs: Sequence[_Job], found: dict[str, Remembered], tries: dict[str, int], spent: float, error: OSError | None
) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)

    def settle(mine: list[_Job]) -> None:
        for job in mine:
            if job.future.done():
                continue
            if error:
                job.future.set_exception(error)
            elif isinstance(job, _Look):
                job.future.set_result(found.get(job.key))
            elif isinstance(job, _Order):
                job.future.set_result(tries[job.request.key])
            else:
                job.future.set_result(spent)

    for loop, mine in by_loop.items():
        loop.call_soon_threadsafe(settle, mine)


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:200]


def usage_of(body: Mapping[str, Any]) -> dict[str, int]:
    """The four token counts of a response body; what an endpoint leaves out is 0."""
    usage = body.get("usage") or {}
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "prompt_tokens": int(usage.get("prompt_tokens") or 0),
        "cached_tokens": int(prompt.get("cached_tokens") or 0),
        "completion_tokens": int(usage.get("completion_tokens") or 0),
        "reasoning_tokens": int(completion.get("reasoning_tokens") or 0),
    }
