from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        limits.succeeded()
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
