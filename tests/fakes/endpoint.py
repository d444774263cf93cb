"""A local OpenAI-compatible endpoint: a real HTTP server on loopback, as strict about requests as the real one.

`python -m tests.fakes.endpoint --port 8399 --latency-ms 200 --sigma 0.3` starts one for benchmarks.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from pipeline.chat.tokens import PER_MESSAGE, count_tokens
from tests.fakes.batches import Batches
from tests.fakes.loopback import on_loopback
from tests.fakes.writer import answer as write

KEY = "sk-local-0123456789abcdef"
MODELS = ("writer-1", "judge-1")
_FIELDS = {
    "model",
    "messages",
    "response_format",
    "temperature",
    "max_completion_tokens",
    "reasoning_effort",
    "stream",
}


@dataclass
class Faults:
    """Shares of requests that go wrong. Transport faults are drawn anew for each attempt; what is wrong with an answer's content
    depends on the request alone, so that runs with and without transport faults meet the same bad answers.
    """

    too_many: float = 0.0
    server_error: float = 0.0
    unavailable: float = 0.0
    reset: float = 0.0
    cut_off: float = 0.0
    hang: float = 0.0
    breaks_schema: float = 0.0
    not_json: float = 0.0
    refuses: float = 0.0
    empty: float = 0.0
    too_long: float = 0.0
    filtered: float = 0.0
    always: int | None = None
    """A status that every request gets."""
    retry_after_s: float | None = 0.05
    seed: int = 0


@dataclass
class Log:
    """What was asked and what was served, for tests to look at."""

    attempts: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    """When each attempt came, by `time.monotonic`."""
    most_in_flight: int = 0


@dataclass
class Endpoint:
    """The server's behaviour. `log` may be read and `faults` replaced while it runs."""

    faults: Faults = field(default_factory=Faults)
    latency_s: float = 0.0
    sigma: float = 0.0
    responder: Callable[[dict[str, Any]], str] = write
    key: str = KEY
    """The key that is valid here; with an empty one any request is let in."""
    models: tuple[str, ...] = MODELS
    structured: bool = True
    keep_bodies: bool = False
    remembers: bool = False
    """An answer is made once a request and kept: a benchmark that warms it up measures its callers, not our writer."""
    log_file: Path | None = None
    log: Log = field(default_factory=Log)
    batches: Batches = field(default_factory=Batches)
    url: str = ""
    _in_flight: int = 0
    _made: dict[str, bytes] = field(default_factory=dict)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/models", self._list_models)
        self.batches.add_routes(app, self)
        return app

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self._in_flight += 1
        self.log.most_in_flight = max(self.log.most_in_flight, self._in_flight)
        try:
            response = await self._complete(request)
            self.log.statuses[response.status] += 1
            return response
        finally:
            self._in_flight -= 1

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": m, "object": "model"} for m in self.models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        name = hashlib.sha256(raw).hexdigest()
        if name in self._made and self._lets_in(request):
            await self._take_time()
            return web.Response(body=self._made[name], content_type="application/json")
        refusal = self._refused(request, raw)
        if refusal is not None:
            return refusal
        self.log.attempts[name] += 1
        self.log.moments.append(time.monotonic())
        body = json.loads(raw)
        if self.keep_bodies:
            self.log.bodies.append(body)
        await self._take_time()
        chance = random.Random(f"{self.faults.seed}:{name}:{self.log.attempts[name]}")
        fault = await self._transport_fault(request, chance)
        if fault is not None:
            return fault
        answer = json.dumps(self._answer(body, name)).encode()
        if chance.random() < self.faults.cut_off:
            return web.Response(body=answer[: len(answer) // 2], content_type="application/json")
        self.log.served[name] += 1
        if self.remembers:
            self._made[name] = answer
        if self.log_file:
            with self.log_file.open("a") as log:
                log.write(name + "\n")
        return web.Response(body=answer, content_type="application/json")

    async def _take_time(self) -> None:
        if self.latency_s:
            # The mean of the lognormal is latency_s, whatever its sigma.
            mu = math.log(self.latency_s) - self.sigma**2 / 2
            await asyncio.sleep(random.lognormvariate(mu, self.sigma))

    def _lets_in(self, request: web.Request) -> bool:
        return not self.key or request.headers.get("Authorization") == f"Bearer {self.key}"

    def _refused(self, request: web.Request, raw: bytes) -> web.Response | None:
        if not self._lets_in(request):
            return error(401, f"Incorrect API key provided: {request.headers.get('Authorization', '')[-8:]}.")
        if request.headers.get("Content-Type", "").split(";")[0] != "application/json":
            return error(415, "expected application/json")
        try:
            body = json.loads(raw)
        except ValueError:
            return error(400, "the body is not JSON")
        if body.get("model") not in self.models:
            return error(404, f"The model `{body.get('model')}` does not exist")
        problem = malformed(body)
        if problem:
            return error(400, problem)
        if not self.structured and body["response_format"]["type"] == "json_schema":
            return error(400, "response_format json_schema is not supported by this server")
        return None

    async def _transport_fault(self, request: web.Request, chance: random.Random) -> web.Response | None:
        faults = self.faults
        if faults.always:
            return error(faults.always, "as it was told to")
        if chance.random() < faults.too_many:
            after = {} if faults.retry_after_s is None else {"Retry-After": f"{faults.retry_after_s:g}"}
            return error(429, "Rate limit reached", after)
        if chance.random() < faults.server_error:
            return error(500, "The server had an error")
        if chance.random() < faults.unavailable:
            return error(503, "overloaded")
        if chance.random() < faults.hang:
            await asyncio.sleep(3600)
        if chance.random() < faults.reset:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return None

    def _answer(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        faults, chance = self.faults, random.Random(name)
        content: str | None = self.responder(body)
        refusal, finish = None, "stop"
        if chance.random() < faults.breaks_schema:
            content = json.dumps({"unexpected": True})
        elif chance.random() < faults.not_json:
            content = "Sure! Here is what you asked for."
        elif chance.random() < faults.refuses:
            content, refusal = None, "I can't help with that."
        elif chance.random() < faults.too_long:
            content, finish = (content or "")[:20], "length"
        elif chance.random() < faults.filtered:
            content, finish = None, "content_filter"
        prompt = sum(count_tokens(message["content"]) + PER_MESSAGE for message in body["messages"])
        completion = max(1, count_tokens(content or ""))
        message = {"role": "assistant", "content": content, "refusal": refusal}
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        return {
            "id": f"chatcmpl-{name[:16]}",
            "object": "chat.completion",
            "model": f"{body['model']}-2026-01-01",
            "choices": [] if chance.random() < faults.empty else choices,
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
                "prompt_tokens_details": {"cached_tokens": prompt // 2},
                "completion_tokens_details": {"reasoning_tokens": completion // 3},
            },
        }


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error in OpenAI's shape."""
    return web.json_response(
        {"error": {"message": message, "type": "error", "code": None}}, status=status, headers=headers
    )


def malformed(body: dict[str, Any]) -> str | None:
    """What the real endpoint would refuse a body for."""
    unknown = set(body) - _FIELDS
    if unknown:
        return f"Unrecognized request argument supplied: {sorted(unknown)[0]}"
    if body.get("stream"):
        return "this endpoint does not stream"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "'messages' must be a list that is not empty"
    for message in messages:
        if message.get("role") not in ("system", "user", "assistant") or not isinstance(message.get("content"), str):
            return "a message needs a role and a content"
    form = body.get("response_format", {})
    if form.get("type") == "json_object":
        return None if "JSON" in messages[0]["content"] else "'messages' must contain the word 'JSON' in JSON mode"
    if form.get("type") != "json_schema":
        return "response_format: expected json_schema or json_object"
    schema = form["json_schema"]
    if schema.get("strict") is not True or not schema.get("name", "").replace("_", "").isalnum():
        return "response_format.json_schema: expected strict and a name"
    return loose(schema["schema"])


def loose(node: Any) -> str | None:
    """What keeps a schema from being valid for strict structured output."""
    if isinstance(node, list):
        return next((found for item in node if (found := loose(item))), None)
    if not isinstance(node, dict):
        return None
    if node.get("type") == "object":
        if node.get("additionalProperties") is not False:
            return "Invalid schema: 'additionalProperties' is required to be supplied and to be false"
        if set(node.get("required", ())) != set(node.get("properties", {})):
            return "Invalid schema: 'required' is required to include every key in properties"
    return next((found for value in node.values() if (found := loose(value))), None)


@contextmanager
def serving(endpoint: Endpoint, port: int = 0) -> Iterator[Endpoint]:
    """Serve on loopback while the body runs; `url` says where."""
    with on_loopback(endpoint.app(), port) as url:
        endpoint.url = f"{url}/v1"
        yield endpoint


def main() -> None:
    parser = argparse.ArgumentParser(description="A local OpenAI-compatible endpoint for benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--sigma", type=float, default=0.3)
    parser.add_argument("--keyless", action="store_true", help="let everybody in: some clients send no key to loopback")
    options = parser.parse_args()
    key = "" if options.keyless else KEY
    endpoint = Endpoint(latency_s=options.latency_ms / 1000, sigma=options.sigma, key=key, remembers=True)
    with serving(endpoint, options.port):
        print(endpoint.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
