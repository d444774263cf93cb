"""Answers requests for one process: from the memory, from the offline rules, or from the endpoint, in that order of price."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import tenacity
import uvloop

from pipeline.chat.config import ChatConfig
from pipeline.chat.endpoint import Endpoint, Fatal, Passing, Unreachable
from pipeline.chat.limits import Limits
from pipeline.chat.memory import Memory, Remembered, usage_of
from pipeline.chat.money import Prices
from pipeline.chat.offline import OfflineModel
from pipeline.chat.request import Answer, ChatRequest, NoAnswer, Usage
from pipeline.live import LiveCounts, open_counts
from pipeline.records import OFFLINE, TASKS

ATTEMPTS = 8
LONGEST_S = 900.0
"""One request is tried this often, and for this long, before its seed is deferred."""
MOST_TRIES = 4
"""Batch jobs that one request goes out with."""
_FIRST_ATTEMPTS = 3  # at an address where nothing has answered yet
_FAILED_IN_A_ROW = 20  # requests given up without an answer between them: the endpoint is down, stop asking

_chats: dict[ChatConfig, Chat] = {}
_opening = threading.Lock()


def open_chat(config: ChatConfig) -> Chat:
    """The chat of this process for a configuration: one event loop, one window, one memory, shared by all its users."""
    with _opening:
        if config not in _chats:
            _chats[config] = Chat(config)
        return _chats[config]


def close_chats() -> None:
    """Close every chat of this process, with what its memory still has to write."""
    with _opening:
        for chat in _chats.values():
            chat.close()
        _chats.clear()


class Chat:
    """Answers requests. `stopped` is the sentence of the failure that ended the asking, if one did."""

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        self._offline = OfflineModel()
        self._counts: LiveCounts | None = open_counts(config.live_folder) if config.live_folder else None
        self._prices = Prices.load(config.prices)
        self.stopped: str | None = None
        self._answered = False
        self._failed_in_a_row = 0
        self._retrying = _retrying(self._may_pass)
        self._asking: dict[str, list[asyncio.Future[Answer]]] = {}
        self._submitted: deque[tuple[Coroutine[Any, Any, Any], Callable[[Any, BaseException | None], None]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        # An answer that has come waits for the interpreter's lock, and its slot with it: 1 ms at most, not the usual 5.
        sys.setswitchinterval(0.001)
        # So does one that comes while the collector looks through every object of every library: those are set aside.
        gc.freeze()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat", daemon=True)
        self._thread.start()
        if not config.offline_only:
            self._memory = Memory(config.store)
            self._spent = self._memory.spent_usd()
            self._unkept_usd = 0.0  # of answers that are here and not durable yet
            self._limits = Limits(config.window, _share(config.rpm, config), _share(config.tpm, config))
            self._endpoint: Endpoint | None = None

    def submit(
        self, conversation: Coroutine[Any, Any, Any], ended: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Run a conversation on the chat's event loop; `ended` is told its result or its exception, on the loop's thread.

        Only the conversation's `ask` holds a slot of the window.
        """
        # Waking a loop from another thread costs a system call: once for all that gathers until it looks.
        self._submitted.append((conversation, ended))
        if len(self._submitted) == 1:
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        while self._submitted:
            task = self._loop.create_task(_tell(*self._submitted[0]))
            self._submitted.popleft()  # after it is taken up, so that who appends next sees an empty queue and wakes us
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def ask(self, request: ChatRequest) -> Answer:
        """The answer, durable before it is returned. Raises NoAnswer where there is none now."""
        if request.model == OFFLINE:
            self._count("made")
            return self._offline.answer(request)
        waiting = self._asking.get(request.key)
        if waiting is not None:  # another conversation asks the same right now: one call serves both
            future: asyncio.Future[Answer] = self._loop.create_future()
            waiting.append(future)
            return await future
        waiting = self._asking[request.key] = []
        try:
            answer = await self._recall_or_ask(request)
        except BaseException as error:
            for other in waiting:
                other.set_exception(error)
            raise
        else:
            for other in waiting:
                other.set_result(answer)
            return answer
        finally:
            del self._asking[request.key]

    def close(self) -> None:
        """End the loop and close the memory."""
        if not self._config.offline_only:
            if self._endpoint:
                asyncio.run_coroutine_threadsafe(self._endpoint.close(), self._loop).result(timeout=10)
            self._memory.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._counts:
            self._counts.flush()

    async def _recall_or_ask(self, request: ChatRequest) -> Answer:
        try:
            remembered = await self._memory.look(request.key)
        except OSError as error:
            raise self._stop(str(error)) from None
        if remembered is not None:
            self._count("from_memory")
            body = json.loads(remembered.raw)
            return answer_of(body, Usage(**usage_of(body)), from_memory=True, cost_usd=remembered.cost_usd)
        if self._config.mode == "batch":
            raise await self._order(request)
        return await self._ask_endpoint(request)

    async def _order(self, request: ChatRequest) -> NoAnswer:
        """In batch mode nothing is asked here: the request goes into the outbox, and a job will fill the memory."""
        try:
            tries = await self._memory.order(request)
        except OSError as error:
            return self._stop(str(error))
        if tries >= MOST_TRIES:
            return NoAnswer("endpoint_failed", f"it failed in {tries} batch jobs")
        return NoAnswer("batch_running", "its answer comes with a batch job")

    async def _ask_endpoint(self, request: ChatRequest) -> Answer:
        failed = 0

        async def attempt() -> Answer:
            nonlocal failed
            await self._limits.enter(TASKS.index(request.task), _expected_tokens(request) if self._config.tpm else 0.0)
            try:
                # The slot is held until the answer is written: what a kill can lose is what was in flight, and no more.
                answer = await self._write(request, *await self._once(request), failed)
            except Passing:
                failed += 1
                self._count("failed_attempts")
                raise
            finally:
                self._limits.leave()
            await self._sync()
            return answer

        try:
            try:
                return await attempt()
            except Passing as failure:
                first: list[Passing] = [failure]
            # tenacity's bookkeeping costs as much as all of ours: only what has failed once goes through it

            async def again() -> Answer:
                if first:
                    raise first.pop()
                return await attempt()

            return await self._retrying.copy()(again)
        except Passing as failure:
            raise self._given_up(failure, failed) from None
        except Fatal as failure:
            raise self._stop(failure.sentence) from None

    async def _write(
        self, request: ChatRequest, raw: str, body: Mapping[str, Any], latency_s: float, failed: int
    ) -> Answer:
        """The answer, written. Its cost counts from now on: the budget is held against it."""
        usage = Usage(**usage_of(body))
        cost_usd = self._prices.cost(request.model, usage)
        answer = answer_of(body, usage, failed_attempts=failed, latency_s=latency_s, cost_usd=cost_usd)
        remembered = Remembered(
            key=request.key,
            task=request.task,
            model=request.model,
            raw=raw,
            model_version=answer.model_version,
            failed_attempts=answer.failed_attempts,
            latency_s=answer.latency_s,
            cost_usd=answer.cost_usd,
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.usage.cached_tokens,
            completion_tokens=answer.usage.completion_tokens,
            reasoning_tokens=answer.usage.reasoning_tokens,
        )
        self._unkept_usd += answer.cost_usd or 0.0
        try:
            self._spent = await self._memory.write(remembered)
        except OSError as error:
            raise Fatal(str(error)) from None
        finally:
            self._unkept_usd -= answer.cost_usd or 0.0
        self._failed_in_a_row, self._answered = 0, True
        self._count("made")
        return answer

    async def _sync(self) -> None:
        try:
            await self._memory.sync()
        except OSError as error:
            raise Fatal(str(error)) from None

    async def _once(self, request: ChatRequest) -> tuple[str, dict[str, Any], float]:
        """One attempt, in a slot of the window: the response as it came and as parsed, and its latency."""
        if self.stopped:
            raise Fatal(self.stopped)
        spent = self._spent + self._unkept_usd
        if self._config.max_cost_usd is not None and spent >= self._config.max_cost_usd:
            raise NoAnswer("budget", f"{spent:.4f} US$ are spent, --max-cost-usd is {self._config.max_cost_usd:g}")
        if self._endpoint is None:
            self._endpoint = Endpoint(self._config)
        began = time.monotonic()
        try:
            raw, body, headers = await self._endpoint.complete(request)
        except Passing as failure:
            if failure.pushes_back:
                self._limits.pushed_back(began, failure.retry_after_s)
            raise
        latency_s = time.monotonic() - began
        self._limits.answered(request.task, latency_s)
        _heed(headers, self._limits)
        return raw, body, latency_s

    def _may_pass(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unreachable) and not self._answered:
            return state.attempt_number < _FIRST_ATTEMPTS
        return isinstance(error, Passing)

    def _given_up(self, failure: Passing, attempts: int) -> NoAnswer:
        self._failed_in_a_row += 1
        told = f"{failure.detail} (the last of {attempts} attempts)"
        if isinstance(failure, Unreachable) and not self._answered:
            return self._stop(f"no endpoint at {self._config.base_url or 'its usual address'}: {told}")
        if self._failed_in_a_row >= _FAILED_IN_A_ROW:
            return self._stop(f"the endpoint keeps failing: {told}")
        return NoAnswer("endpoint_failed", told)

    def _stop(self, sentence: str) -> NoAnswer:
        self.stopped = self.stopped or sentence
        return NoAnswer("stopped", self.stopped)

    def _count(self, what: str) -> None:
        if self._counts:
            self._counts.add(what)


async def _tell(conversation: Coroutine[Any, Any, Any], ended: Callable[[Any, BaseException | None], None]) -> None:
    try:
        result = await conversation
    except BaseException as error:
        ended(None, error)
    else:
        ended(result, None)


def answer_of(
    body: Mapping[str, Any],
    usage: Usage,
    *,
    failed_attempts: int = 0,
    latency_s: float = 0.0,
    from_memory: bool = False,
    cost_usd: float | None = None,
) -> Answer:
    """The answer in a response body. A body without choices is an answer too: an empty one."""
    choice = (body.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    return Answer(
        content=message.get("content"),
        refusal=message.get("refusal"),
        finish_reason=choice.get("finish_reason") or "none",
        usage=usage,
        model_version=str(body.get("model") or "unknown"),
        failed_attempts=failed_attempts,
        latency_s=latency_s,
        from_memory=from_memory,
        cost_usd=cost_usd,
    )


def _retrying(may_pass: Any) -> tenacity.AsyncRetrying:
    """Retries in one place: jittered, bounded in number and in time, only for what can pass."""
    return tenacity.AsyncRetrying(
        retry=may_pass,
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=30),
        stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_after_delay(LONGEST_S),
        reraise=True,
    )


def _share(cap: int | None, config: ChatConfig) -> float | None:
    return None if cap is None else cap / config.processes


def _expected_tokens(request: ChatRequest) -> float:
    """Roughly, for the cap a minute: four characters a token, and an answer of 200."""
    return sum(len(message.content) for message in request.messages) / 4 + 200


def _heed(headers: Mapping[str, str], limits: Limits) -> None:
    for kind in ("requests", "tokens"):
        remaining, reset = headers.get(f"x-ratelimit-remaining-{kind}"), headers.get(f"x-ratelimit-reset-{kind}")
        if remaining is not None and reset is not None and remaining.isdigit():
            limits.told(float(remaining), _seconds(reset))


def _seconds(text: str) -> float:
    """OpenAI's way to write a time: `1s`, `6m0s`, `20ms`."""
    units = {"ms": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0}
    total, number = 0.0, ""
    rest = text.strip()
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = "ms" if rest.startswith("ms") else rest[0]
        try:
            total += float(number) * units[unit]
        except (ValueError, KeyError):
            return 0.0
        number, rest = "", rest[len(unit) :]
    return total
