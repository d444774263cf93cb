"""One call to an OpenAI-compatible endpoint, and what its failures mean."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import openai
import orjson
from yarl import URL

from pipeline.chat.config import ChatConfig
from pipeline.chat.request import ChatRequest

_NO_SCHEMA = re.compile(r"response_format|json_schema|structured|guided", re.IGNORECASE)
_LONGEST = 300  # characters of an endpoint's words that a sentence quotes


class Passing(Exception):
    """A failure that can pass: worth another attempt. pushes_back: the endpoint is at its limit, go slower."""

    def __init__(self, detail: str, pushes_back: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pushes_back = pushes_back
        self.retry_after_s = retry_after_s


class Unreachable(Passing):
    """Nothing answers at the address. It may come up; when nothing has ever answered, the address is wrong."""


class Fatal(Exception):
    """A failure that another attempt can't mend: the run stops with this sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Endpoint:
    """One endpoint: the `openai` client's configuration and authentication, and an aiohttp session for the hot call.

    aiohttp is the transport that the client itself offers. The layers between (typed parameters, response models, request
    options, the translation of httpx's types into aiohttp's) are most of the cost of a call: benchmarks/RESULTS.md has the
    figures. Made on the event loop that asks. Retries are `session`'s.
    """

    def __init__(self, config: ChatConfig) -> None:
        self._key = endpoint_key(config.base_url)
        client = openai.AsyncOpenAI(api_key=self._key, base_url=config.base_url, max_retries=0)
        self._url = URL(f"{str(client.base_url).rstrip('/')}/chat/completions")
        self._host = client.base_url.host
        told = {**client.default_headers, **client.auth_headers}
        self._http = aiohttp.ClientSession(
            # with organisation, project and custom headers; without what describes the client's own machine
            headers={k: v for k, v in told.items() if isinstance(v, str) and not k.lower().startswith("x-stainless")},
            connector=aiohttp.TCPConnector(limit=config.window, ssl=httpx2.create_ssl_context()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=config.timeout_s),
        )
        # Looked up once: aiohttp's own trust_env reads the environment and a .netrc file in a thread, for every request.
        self._proxy = None if proxy_bypass(self._host) else getproxies().get(client.base_url.scheme)
        self._timeout_s = config.timeout_s
        self.structured = True
        """Whether the endpoint takes a schema; without, JSON mode and our validation must do."""

    async def complete(self, request: ChatRequest) -> tuple[str, dict[str, Any], Mapping[str, str]]:
        """The response's body as it came and as parsed, and its headers. Raises Passing or Fatal."""
        structured = self.structured
        content = request.content if structured else _in_json_mode(request)
        try:
            async with self._http.post(self._url, data=aiohttp.BytesPayload(content), proxy=self._proxy) as response:
                raw = (await response.read()).decode("utf-8", "replace")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(f"nothing answers there: {_short(str(error))}") from None
        except TimeoutError:
            raise Passing(f"no answer within {self._timeout_s:g} s", pushes_back=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Passing(f"the connection broke: {_short(str(error) or type(error).__name__)}") from None
        if response.status >= 400:
            if structured and response.status in (400, 422) and _NO_SCHEMA.search(raw):
                self.structured = False
                return await self.complete(request)
            raise meaning(response.status, raw, response.headers, self._host, request.model, self._key)
        parsed = parsed_json(raw)
        if not isinstance(parsed, dict):
            raise Passing(f"the response is not a JSON object, or was cut off after {len(raw):,} characters")
        return raw, parsed, response.headers

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def parsed_json(text: str) -> Any:
    """What a JSON text holds, None where it is none."""
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)  # takes what some endpoints send all the same: lone surrogates, NaN
    except (ValueError, RecursionError):
        return None


def meaning(status: int, body: str, headers: Mapping[str, str], host: str, model: str, key: str) -> Passing | Fatal:
    """What an error status says: whether another attempt may help, and a sentence without the key."""
    said = _short(_message(body)).replace(key, "[key]")
    if status in (408, 409, 429) or status >= 500:
        if status == 429 and "insufficient_quota" in body:
            return Fatal(f"{host} says that the account's quota is used up: {said}")
        return Passing(f"status {status}: {said}", status in (429, 503), _retry_after(headers))
    if status == 401:
        return Fatal(f"{host} refused the key (401). Set OPENAI_API_KEY to a key that is valid there: {said}")
    if status == 403:
        return Fatal(f"{host} does not allow this key to do this (403): {said}")
    if status == 404:
        return Fatal(f"{host} knows no model {model!r}, or --base-url is wrong (404): {said}")
    return Fatal(f"{host} refused a request as malformed ({status}): {said}")


def _message(body: str) -> str:
    """What an error's body says, in OpenAI's shape or any other."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body


def endpoint_key(base_url: str | None) -> str:
    """The key, from the environment alone. Raises Fatal where OpenAI's own endpoint needs one."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and base_url is None:
        raise Fatal("OPENAI_API_KEY is not set. Put a key there, or name another endpoint with --base-url.")
    return key or "none"


def _in_json_mode(request: ChatRequest) -> bytes:
    """The same question to an endpoint that takes no schema: the schema goes into the system message."""
    messages = [dict(message) for message in request.body["messages"]]
    messages[0]["content"] += "\n\nAnswer with one JSON object that fits this JSON Schema:\n" + json.dumps(
        request.schema
    )
    body = request.body | {"messages": messages, "response_format": {"type": "json_object"}}
    return json.dumps(body, ensure_ascii=False).encode()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after`, which may be a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
