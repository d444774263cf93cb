from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chat.endpoint import meaning
from pipeline.chat.limits import CUT, Bucket, Limits


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_window_is_never_passed_and_always_full_while_there_is_work() -> None:
    async def scenario() -> tuple[int, float]:
        limits = Limits(8)
        most, full, looks = 0, 0, 0

        async def request() -> None:
            nonlocal most, full, looks
            await limits.enter(0, 0)
            most = max(most, limits.in_flight)
            await asyncio.sleep(random.uniform(0.001, 0.004))
            if waiting():
                looks += 1
                full += limits.in_flight == 8
            limits.leave()

        def waiting() -> bool:
            return bool(limits._waiting)

        await asyncio.gather(*(request() for _ in range(200)))
        return most, full / looks

    most, full = asyncio.run(scenario())
    assert most == 8
    assert full == 1.0


def test_later_tasks_go_first_and_within_a_task_the_older_request() -> None:
    async def scenario() -> list[str]:
        limits, order = Limits(1), []
        await limits.enter(0, 0)

        async def request(name: str, priority: int) -> None:
            await limits.enter(priority, 0)
            order.append(name)
            limits.leave()

        waiting = [
            asyncio.create_task(request(n, p)) for n, p in (("a0", 0), ("j1", 3), ("b0", 0), ("j2", 3), ("p", 1))
        ]
        await asyncio.sleep(0)
        limits.leave()
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(scenario()) == ["j1", "j2", "p", "a0", "b0"]


def test_requests_of_one_window_that_are_pushed_back_cut_it_once_and_answers_open_it_again() -> None:
    clock = Clock()
    limits = Limits(100, clock=clock)
    began = clock.now
    clock.now += 0.2
    for _ in range(60):
        limits.pushed_back(began, None)
    assert limits.allowed == pytest.approx(100 * CUT), "sixty refusals of one moment tell one thing"
    clock.now += 0.2
    limits.pushed_back(clock.now, None)
    assert limits.allowed == pytest.approx(100 * CUT**2)
    for _ in range(3000):
        limits.answered("judge", 0.2)
    assert limits.allowed == 100


def test_retry_after_holds_everybody_back_together() -> None:
    async def scenario() -> float:
        limits = Limits(4)
        loop = asyncio.get_running_loop()
        limits.pushed_back(loop.time(), 0.15)
        began = loop.time()
        await asyncio.gather(*(limits.enter(0, 0) for _ in range(2)))
        return loop.time() - began

    assert asyncio.run(scenario()) >= 0.14


def test_a_request_that_is_given_up_while_it_waits_holds_no_slot() -> None:
    async def scenario() -> int:
        limits = Limits(1)
        await limits.enter(0, 0)
        waiting = asyncio.create_task(limits.enter(0, 0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        limits.leave()
        await asyncio.wait_for(limits.enter(0, 0), 1)
        return limits.in_flight

    assert asyncio.run(scenario()) == 1


@settings(max_examples=60)
@given(st.integers(30, 6000), st.lists(st.floats(0.0, 3.0), min_size=5, max_size=200))
def test_a_cap_a_minute_is_kept_over_any_minute_whatever_the_arrivals(per_minute: int, gaps: list[float]) -> None:
    bucket, now, taken = Bucket(per_minute), 0.0, []
    for gap in gaps:
        now += gap
        now += bucket.wait_s(now)
        bucket.wait_s(now)
        bucket.take(1)
        taken.append(now)
    for start in taken:
        within = sum(start <= at < start + 60 for at in taken)
        assert within <= per_minute + per_minute / 60 + 2


def test_a_window_of_answers_that_all_come_late_shrinks_the_window_and_usual_noise_does_not() -> None:
    chance = random.Random(0)
    limits = Limits(64)

    def answers(n: int, times: float) -> None:
        for _ in range(n):
            task, mean = chance.choice((("instruct", 0.2), ("judge", 2.0)))
            limits.answered(task, mean * times * chance.lognormvariate(-0.18, 0.6))

    answers(64 * 40, 1.0)
    assert limits.allowed == 64, "tasks and answers differ among themselves, which tells nothing"
    answers(64 * 6, 4.0)
    assert limits.allowed < 32
    answers(64 * 6, 4.0)
    assert limits.allowed >= 16, "latency alone may have other causes: no further than to a quarter"
    answers(64 * 60, 4.0)
    assert limits.allowed == 64, "an endpoint that got slower for good is not starved"


def test_a_retry_after_may_be_seconds_milliseconds_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    waits = [
        meaning(429, "{}", headers, "h", "m", "key").retry_after_s  # type: ignore[union-attr]
        for headers in (
            {"retry-after": "2"},
            {"retry-after-ms": "250"},
            {"retry-after": soon},
            {"retry-after": "soon"},
            {},
        )
    ]
    assert waits[:2] == [2.0, 0.25]
    assert waits[2] == pytest.approx(30, abs=2)
    assert waits[3:] == [None, None]
