"""The Batch API: requests go out as files, jobs run for up to a day at half the price, results fill the same memory.

The driver alone calls this, between passes over the seeds; of several runs that share a store, one at a time. Everything that it
does stands in the store first: a job's row is written, with the requests that go out with it, before the job is created, and the
job carries our id in its metadata. So after a crash at any moment a job is found again, by its batch id or by that metadata, and
no request is ever in two living jobs.
"""

from __future__ import annotations

import fcntl
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import openai
import sqlalchemy as sa

from pipeline.chat.config import ChatConfig
from pipeline.chat.endpoint import Fatal, endpoint_key, meaning
from pipeline.chat.memory import jobs, keep_answers, open_engine, outbox, spend, usage_of
from pipeline.chat.money import Prices
from pipeline.chat.request import Usage
from pipeline.chat.session import MOST_TRIES

LINES = 50_000
BYTES = 200_000_000
"""A file's limits, https://platform.openai.com/docs/guides/batch."""
POLL_S = 20.0
_MARK = "infir_job"
_LOCK = int.from_bytes(b"inf-ir", "big")
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(slots=True)
class Progress:
    """What one step did. over_budget: requests stay in the outbox because the budget is reached."""

    answered: int = 0
    sent: int = 0
    running: int = 0
    over_budget: bool = False


class Batches:
    """The jobs of one store. `step` may be called again and again."""

    def __init__(self, config: ChatConfig, lines: int = LINES, size: int = BYTES) -> None:
        self._config = config
        self._limits = (lines, size)
        self._prices = Prices.load(config.prices)
        self._engine = open_engine(config.store)
        self._key = endpoint_key(config.base_url)
        self._client = openai.OpenAI(
            api_key=self._key, base_url=config.base_url, timeout=config.timeout_s, max_retries=5
        )

    def step(self) -> Progress:
        """Find lost jobs, take in what has ended, send what waits. Raises Fatal with a sentence."""
        progress = Progress()
        try:
            with _alone(self._engine):
                self._find_lost()
                self._take_in(progress)
                self._send(progress)
        except openai.APIStatusError as error:
            response = error.response
            host = error.request.url.host
            failure = meaning(response.status_code, response.text, response.headers, host, "of the batch", self._key)
            raise Fatal(failure.args[0]) from None
        except openai.APIConnectionError as error:
            raise Fatal(f"the endpoint can't be reached: {error.__cause__ or error}") from None
        with self._engine.connect() as connection:
            chosen = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == "running")
            progress.running = connection.execute(chosen).scalar_one()
        return progress

    def wait(self, poll_s: float = POLL_S) -> Progress:
        """Step until something was answered, or nothing runs any more."""
        while True:
            progress = self.step()
            if progress.answered or not progress.running:
                return progress
            time.sleep(poll_s)

    def close(self) -> None:
        """Close the store and the connections."""
        self._engine.dispose()
        self._client.close()

    def _find_lost(self) -> None:
        """Jobs whose creation was cut off: the endpoint has them, or they never were and their requests go out anew."""
        with self._engine.connect() as connection:
            lost = set(connection.execute(sa.select(jobs.c.id).where(jobs.c.state == "sending")).scalars())
        if not lost:
            return
        found = {(batch.metadata or {}).get(_MARK): batch.id for batch in self._client.batches.list(limit=100)}
        with self._engine.begin() as connection:
            for job in lost:
                if job in found:
                    connection.execute(
                        sa.update(jobs).where(jobs.c.id == job).values(batch=found[job], state="running")
                    )
                else:
                    connection.execute(sa.update(outbox).where(outbox.c.job == job).values(job=None))
                    connection.execute(sa.delete(jobs).where(jobs.c.id == job))

    def _take_in(self, progress: Progress) -> None:
        with self._engine.connect() as connection:
            running = connection.execute(sa.select(jobs.c.id, jobs.c.batch).where(jobs.c.state == "running")).all()
        for job, batch_id in running:
            batch = self._client.batches.retrieve(batch_id)
            if batch.status not in _ENDED:
                continue
            if batch.status == "failed" and not batch.output_file_id:
                said = "; ".join(error.message or "" for error in (batch.errors.data if batch.errors else None) or [])
                self._close_job(job)
                raise Fatal(f"the endpoint refused a batch job: {said or 'no reason given'}")
            for file in (batch.output_file_id, batch.error_file_id):
                if file:
                    progress.answered += self._keep(self._client.files.content(file).iter_lines())
            self._close_job(job)

    def _keep(self, lines: Iterable[str]) -> int:
        """Keep the answers of a result file, in any order; failed lines stay in the outbox."""
        kept = 0
        for chunk in _chunks(_answered(lines)):
            with self._engine.begin() as connection:
                waiting = {
                    row.key: row
                    for row in connection.execute(sa.select(outbox).where(outbox.c.key.in_([key for key, _ in chunk])))
                }
                rows = [self._row(waiting[key], body) for key, body in chunk if key in waiting]
                if rows:
                    keep_answers(connection, rows)
                    connection.execute(sa.delete(outbox).where(outbox.c.key.in_([row["key"] for row in rows])))
                kept += len(rows)
        return kept

    def _row(self, ordered: Any, body: dict[str, Any]) -> dict[str, Any]:
        raw = json.dumps(body, ensure_ascii=False)
        usage = usage_of(body)
        return {
            "key": ordered.key,
            "task": ordered.task,
            "model": ordered.model,
            "raw": raw,
            "model_version": str(body.get("model") or "unknown"),
            "failed_attempts": ordered.tries,
            "latency_s": 0.0,
            "cost_usd": self._prices.cost(ordered.model, Usage(**usage), batch=True),
            "mode": "batch",
            **usage,
        }

    def _close_job(self, job: str) -> None:
        """What the job left without an answer goes out again, with the next one."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(outbox).where(outbox.c.job == job).values(job=None, tries=outbox.c.tries + 1))
            connection.execute(sa.update(jobs).where(jobs.c.id == job).values(state="done"))

    def _send(self, progress: Progress) -> None:
        while True:
            job, lines = self._pack(progress)
            if not lines:
                return
            name = f"{job}.jsonl"
            file = self._client.files.create(file=(name, "".join(lines).encode()), purpose="batch")
            batch = self._client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_MARK: job},
            )
            with self._engine.begin() as connection:
                connection.execute(sa.update(jobs).where(jobs.c.id == job).values(batch=batch.id, state="running"))
            progress.sent += len(lines)

    def _pack(self, progress: Progress) -> tuple[str, list[str]]:
        """Choose the next job's requests, of one model, within the limits and the budget, and write its row."""
        waits = (outbox.c.job.is_(None)) & (outbox.c.tries < MOST_TRIES)
        most_lines, most_bytes = self._limits
        job = f"job-{uuid.uuid4().hex[:16]}"
        with self._engine.begin() as connection:
            model = connection.execute(
                sa.select(outbox.c.model).where(waits).order_by(outbox.c.model).limit(1)
            ).scalar()
            if model is None:
                return job, []
            left = self._left(connection)
            lines: list[str] = []
            keys: list[str] = []
            size = 0
            chosen = sa.select(outbox).where(waits, outbox.c.model == model).order_by(outbox.c.key).limit(most_lines)
            for row in connection.execute(chosen):
                body = json.loads(row.body)
                line = {"custom_id": row.key, "method": "POST", "url": "/v1/chat/completions", "body": body}
                text = json.dumps(line, ensure_ascii=False) + "\n"
                left -= self._expected_usd(row.model, body)
                size += len(text.encode())
                if left < 0:
                    progress.over_budget = True
                    break
                if size > most_bytes and lines:
                    break
                lines.append(text)
                keys.append(row.key)
            if keys:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                connection.execute(sa.insert(jobs).values(id=job, batch=None, state="sending", created_at=now))
                for start in range(0, len(keys), 500):
                    mine = outbox.c.key.in_(keys[start : start + 500])
                    connection.execute(sa.update(outbox).where(mine).values(job=job))
        return job, lines

    def _left(self, connection: sa.Connection) -> float:
        """What the budget still allows: the cap less what was spent and what the running jobs are expected to cost."""
        if self._config.max_cost_usd is None:
            return float("inf")
        spent = float(connection.execute(sa.select(spend.c.usd)).scalar_one())
        out = connection.execute(sa.select(outbox.c.model, outbox.c.body).where(outbox.c.job.is_not(None)))
        return (
            self._config.max_cost_usd - spent - sum(self._expected_usd(model, json.loads(body)) for model, body in out)
        )

    def _expected_usd(self, model: str, body: dict[str, Any]) -> float:
        """Roughly: four characters a token, and an answer of 200."""
        prompt = sum(len(message["content"]) for message in body["messages"]) // 4
        return self._prices.cost(model, Usage(prompt_tokens=prompt, completion_tokens=200), batch=True) or 0.0


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """Wait until no other run moves this store's jobs: a job that is being sent by one must not look lost to another."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:  # the end of a transaction gives the lock back, whatever happens
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield
    elif engine.url.database:
        with open(f"{engine.url.database}-jobs", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    else:
        yield


def _answered(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """key and response body of the lines that were answered; a line that failed, or was cut off, is none."""
    for line in lines:
        try:
            entry = json.loads(line)
            response = entry["response"]
            if response and response["status_code"] == 200 and isinstance(response["body"], dict):
                yield entry["custom_id"], response["body"]
        except (ValueError, KeyError, TypeError):
            continue


def _chunks(items: Iterator[tuple[str, dict[str, Any]]], size: int = 500) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    chunk: list[tuple[str, dict[str, Any]]] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
