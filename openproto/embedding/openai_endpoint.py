"""One `/embeddings` endpoint over httpx: deadline, retries, and the map of its failures to our errors.

Imported when an `OpenAIEmbedder` opens, in a thread. No message holds the key, the input, or what the server
wrote: servers quote both in their answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from random import uniform
from typing import Any

import httpx
from pydantic_core import from_json

from openproto.errors import (
    InvalidRequestError,
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    UnauthorizedError,
)
from openproto.http_status import read_retry_after

_ERRORS: dict[int, type[OpenProtoError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    403: UnauthorizedError,
    408: ProviderTimeoutError,
    413: PayloadTooLargeError,
    422: InvalidRequestError,
    429: RateLimitedError,
    504: ProviderTimeoutError,
}
_WORTH_REPEATING = (RateLimitedError, ProviderTimeoutError, ProviderUnavailableError)
_CONNECTIONS = 4
_CONNECT_TIMEOUT = 5.0
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0


class Endpoint:
    """Posts texts and returns rows; owns its client."""

    def __init__(self, url: str, *, model: str, api_key: str, timeout: float, retries: int) -> None:
        self._url = url
        self._model = model
        self._timeout = timeout
        self._retries = retries
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # httpx's timeouts are per phase, and a server that drips never meets them; the deadline is ours.
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        )

    async def embeddings(self, texts: Sequence[str], *, dimensions: int | None = None) -> list[Any]:
        """Return one row per text, in order, within the timeout; what a row holds is not checked."""
        body: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                rows = await self._post_with_retries(body, deadline)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ProviderTimeoutError(
                f"{self._name} did not answer within {self._timeout:g} s; raise timeout="
            ) from error
        if len(rows) != len(texts):
            raise ProviderError(f"{self._name} gave {len(rows)} vectors for {len(texts)} texts: look at base_url=")
        return rows

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @property
    def _name(self) -> str:
        return f"the embedding server ({self._model})"

    async def _post_with_retries(self, body: dict[str, Any], deadline: asyncio.Timeout) -> list[Any]:
        retries, longest = self._retries, _FIRST_WAIT
        while True:
            try:
                return await self._post(body)
            except _WORTH_REPEATING as error:
                wait = max(uniform(0, longest), error.retry_after or 0.0)  # noqa: S311  # jitter need not be secret
                ends_at = deadline.when() or 0.0
                # A pause that would outlast the deadline is not begun: the caller learns the real error instead.
                if not retries or asyncio.get_running_loop().time() + wait >= ends_at:
                    raise
            await asyncio.sleep(wait)
            retries, longest = retries - 1, min(2 * longest, _LONGEST_WAIT)

    async def _post(self, body: dict[str, Any]) -> list[Any]:
        try:
            response = await self._client.post(self._url, json=body)
        except httpx.TimeoutException as error:
            raise ProviderTimeoutError(f"{self._name} could not be reached in time; raise timeout=") from error
        except httpx.TransportError as error:
            raise ProviderUnavailableError(
                f"{self._name} cannot be reached ({type(error).__name__}): look at base_url="
            ) from error
        except httpx.HTTPError as error:
            raise ProviderError(
                f"{self._name} gave an unreadable answer ({type(error).__name__}): look at base_url="
            ) from error
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response)
        return self._rows(response)

    def _rows(self, response: httpx.Response) -> list[Any]:
        try:
            # pydantic's parser, because json needs 66 ms of the loop for 256 vectors of 1536, and this one 15.
            items = from_json(response.content)["data"]
            # Some servers leave the index out and keep the order.
            rows = {item.get("index", position): item["embedding"] for position, item in enumerate(items)}
            return [rows[index] for index in range(len(items))]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ProviderError(f"{self._name} gave an answer that holds no embeddings: look at base_url=") from error

    def _refusal(self, response: httpx.Response) -> OpenProtoError:
        status = response.status_code
        kind = _ERRORS.get(status, ProviderUnavailableError if status >= 500 else ProviderError)
        return kind(
            f"{self._name} answered {status}{_code(response)}",
            request_id=response.headers.get("x-request-id"),
            retry_after=read_retry_after(response.headers.get("retry-after", "")),
        )


def _code(response: httpx.Response) -> str:
    # OpenAI's `code` ("insufficient_quota") says what to do; only a plain word is let through.
    try:
        code = from_json(response.content)["error"]["code"]
    except (ValueError, TypeError, LookupError):
        return ""
    return f" ({code})" if isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code) else ""
