"""How many requests are under way: one window for the whole process, and one back-off that all requests share."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

CUT = 0.7
"""The window shrinks to this share when the endpoint pushes back: at most once for the requests of one window."""
GROWTH = 0.05
"""And grows by this share, and one, for every window of answers: back to full from a half in some 14 windows."""
LONGEST_PAUSE_S = 60.0
SLOW = 2.0
"""Answers that take this many times their task's usual latency, on average over a window, shrink the window too."""
SLOW_FLOOR = 0.25
"""Latency alone, which may have other causes than our load, shrinks it no further than to this share."""
_FORGETS = 1.05  # what is usual rises this much with every window of answers: an endpoint may get slower for good
_FEWEST = 32  # answers that a mean is taken over


@dataclass(slots=True)
class Bucket:
    """A cap a minute, spread evenly: it may run into debt by one request, and then waits the debt out."""

    per_minute: float
    level: float = 0.0
    filled_at: float = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until something may be taken."""
        # A second's worth may gather, so that a burst after a pause can't pass the cap within its minute.
        self.level = min(self.per_minute / 60, self.level + (now - self.filled_at) * self.per_minute / 60)
        self.filled_at = now
        return max(0.0, -self.level * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        """Take an amount that `wait_s` allowed."""
        self.level -= amount


class _Pace:
    """How slow an endpoint is against what was usual for the same tasks: tasks differ, and so do single answers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._usual_s: dict[str, float] = {}
        self._latencies_s: dict[str, list[float]] = {}
        self._taken = 0

    def take(self, task: str, latency_s: float) -> float:
        """With the last answer of a window, its mean latency over the usual; 1.0 in between."""
        self._latencies_s.setdefault(task, []).append(latency_s)
        self._taken += 1
        if self._taken < self._size:
            return 1.0
        slowness = n = 0.0
        for name, latencies in self._latencies_s.items():
            if len(latencies) >= _FEWEST // 4:
                mean = sum(latencies) / len(latencies)
                usual = self._usual_s[name] = min(mean, self._usual_s.get(name, mean) * _FORGETS)
                slowness += len(latencies) * mean / max(usual, 1e-9)
                n += len(latencies)
        self._latencies_s, self._taken = {}, 0
        return slowness / n if n else 1.0


class Limits:
    """Lets requests through by priority, then by age. Used from one event loop.

    window: requests in flight, at the most. rpm, tpm: caps for this process, or None.
    """

    def __init__(
        self,
        window: int,
        rpm: float | None = None,
        tpm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.window = window
        self.allowed = float(window)
        self.in_flight = 0
        self._clock = clock
        self._requests = Bucket(rpm, filled_at=clock()) if rpm else None
        self._tokens = Bucket(tpm, filled_at=clock()) if tpm else None
        self._waiting: list[tuple[int, int, float, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._paused_until = 0.0
        self._cut_at = 0.0
        self._streak = 0
        self._pace = _Pace(max(window, _FEWEST))
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, priority: int, tokens: float) -> None:
        """Wait for a slot; the higher priority goes first. tokens: what the request is expected to use."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._order), tokens, future))
        self._let_in()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the slot back."""
        self.in_flight -= 1
        self._let_in()

    def answered(self, task: str, latency_s: float) -> None:
        """An answer came: open the window a little, or shrink it where a whole window of answers came late."""
        self._streak = 0
        if self._pace.take(task, latency_s) >= SLOW:
            self.allowed = min(self.allowed, max(1.0, self.allowed * CUT, self.window * SLOW_FLOOR))
        else:
            self.allowed = min(self.window, self.allowed + (1 + GROWTH * self.allowed) / max(1.0, self.allowed))

    def pushed_back(self, began: float, retry_after_s: float | None) -> None:
        """The endpoint said, or showed, that it is too much: everybody waits, together, and fewer go on.

        began: when the request was sent. One sent before the last cut tells nothing new.
        """
        now = self._clock()
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + min(retry_after_s, LONGEST_PAUSE_S))
        if began < self._cut_at:
            return
        self._cut_at = now
        self._streak += 1
        self.allowed = max(1.0, self.allowed * CUT)
        if retry_after_s is None and self._streak > 1:
            pause = min(LONGEST_PAUSE_S, 0.1 * 2**self._streak) * random.uniform(0.5, 1.0)  # noqa: S311
            self._paused_until = max(self._paused_until, now + pause)

    def told(self, remaining: float, reset_s: float) -> None:
        """What `x-ratelimit-remaining-*` and `-reset-*` say: wait for the reset when nothing remains."""
        if remaining < 1:
            self._paused_until = max(self._paused_until, self._clock() + min(reset_s, LONGEST_PAUSE_S))

    def _let_in(self) -> None:
        while self._waiting and self.in_flight < int(self.allowed):
            wait = self._wait_s()
            if wait > 0:
                self._later(wait)
                return
            _, _, tokens, future = heapq.heappop(self._waiting)
            if future.done():
                continue  # its request was given up
            if self._requests:
                self._requests.take(1)
            if self._tokens:
                self._tokens.take(tokens)
            self.in_flight += 1
            future.set_result(None)

    def _wait_s(self) -> float:
        now = self._clock()
        wait = self._paused_until - now
        for bucket in (self._requests, self._tokens):
            if bucket:
                wait = max(wait, bucket.wait_s(now))
        return wait

    def _later(self, wait: float) -> None:
        if self._timer is None or self._timer.cancelled():

            def again() -> None:
                self._timer = None
                self._let_in()

            self._timer = asyncio.get_running_loop().call_later(wait, again)
