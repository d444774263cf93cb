"""One call to an OpenAI-compatible endpoint, and what its failures mean."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from pipeline.chat.config import ChatConfig
from pipeline.chat.request import ChatRequest

_JSON = {"Content-Type": "application/json"}
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
    """The `openai` client, for what it is good at: configuration, authentication, errors, connections.

    The hot call goes through its generic `post` with a body that is already bytes, and takes the raw response: building typed
    parameters and response models would be most of the cost of a call. Its own retries are off: `session` has them.
    """

    def __init__(self, config: ChatConfig) -> None:
        self._key = endpoint_key(config.base_url)
        self._client = openai.AsyncOpenAI(
            api_key=self._key,
            base_url=config.base_url,
            max_retries=0,
            timeout=config.timeout_s,
            http_client=openai.DefaultAioHttpClient(
                timeout=config.timeout_s,
                limits=httpx2.Limits(max_connections=config.window, max_keepalive_connections=config.window),
            ),
        )
        self._timeout_s = config.timeout_s
        self.structured = True
        """Whether the endpoint takes a schema; without, JSON mode and our validation must do."""

    async def complete(self, request: ChatRequest) -> tuple[str, Mapping[str, str]]:
        """The response's body as it came, and its headers. Raises Passing or Fatal."""
        structured = self.structured
        body = request.body if structured else _in_json_mode(request)
        content = json.dumps(body, ensure_ascii=False).encode()
        try:
            response = await self._client.post(
                "/chat/completions", content=content, cast_to=httpx2.Response, options={"headers": _JSON}
            )
            raw = response.text
        except openai.APIStatusError as error:
            if structured and error.status_code in (400, 422) and _NO_SCHEMA.search(error.message):
                self.structured = False
                return await self.complete(request)
            raise meaning(error, request.model, self._key) from None
        except openai.APITimeoutError as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise _unreachable(error) from None
            raise Passing(f"no answer within {self._timeout_s:g} s", pushes_back=True) from None
        except openai.APIConnectionError as error:
            raise _unreachable(error) from None
        except (httpx2.HTTPError, OSError) as error:
            raise Passing(f"the connection broke: {_short(str(error) or type(error).__name__)}") from None
        try:
            whole = isinstance(json.loads(raw), dict)
        except ValueError:
            whole = False
        if not whole:
            raise Passing(f"the response is not a JSON object, or was cut off after {len(raw):,} characters")
        return raw, response.headers

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def meaning(error: openai.APIStatusError, model: str, key: str) -> Passing | Fatal:
    """What a status says: whether another attempt may help, and a sentence without the key."""
    status, host = error.status_code, error.request.url.host
    said = _short(error.message).replace(key, "[key]")
    if status in (408, 409, 429) or status >= 500:
        if status == 429 and "insufficient_quota" in error.message:
            return Fatal(f"{host} says that the account's quota is used up: {said}")
        return Passing(f"status {status}: {said}", status in (429, 503), _retry_after(error.response.headers))
    if status == 401:
        return Fatal(f"{host} refused the key (401). Set OPENAI_API_KEY to a key that is valid there: {said}")
    if status == 403:
        return Fatal(f"{host} does not allow this key to do this (403): {said}")
    if status == 404:
        return Fatal(f"{host} knows no model {model!r}, or --base-url is wrong (404): {said}")
    return Fatal(f"{host} refused a request as malformed ({status}): {said}")


def endpoint_key(base_url: str | None) -> str:
    """The key, from the environment alone. Raises Fatal where OpenAI's own endpoint needs one."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and base_url is None:
        raise Fatal("OPENAI_API_KEY is not set. Put a key there, or name another endpoint with --base-url.")
    return key or "none"


def _in_json_mode(request: ChatRequest) -> dict[str, Any]:
    """The same question to an endpoint that takes no schema: the schema goes into the system message."""
    messages = [dict(message) for message in request.body["messages"]]
    messages[0]["content"] += "\n\nAnswer with one JSON object that fits this JSON Schema:\n" + json.dumps(
        request.schema
    )
    return request.body | {"messages": messages, "response_format": {"type": "json_object"}}


def _unreachable(error: openai.APIConnectionError) -> Passing:
    cause = error.__cause__ or error
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return Unreachable(f"nothing answers there: {_short(str(cause))}")
    return Passing(f"the connection broke: {_short(str(cause) or type(cause).__name__)}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after`; a date is read as no hint."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
    return None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
