"""The embedder for OpenAI and for every server that speaks its `/embeddings`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from openproto.blocking.imports import import_async_http
from openproto.blocking.threads import Threads
from openproto.embedding.protocol import DEFAULT_MAX_BATCH, DEFAULT_TEXT_WEIGHT
from openproto.errors import InvalidRequestError, PayloadTooLargeError, ProviderError, UnauthorizedError
from openproto.fields import check_number, check_seconds, check_whole

if TYPE_CHECKING:
    from openproto.embedding.openai_endpoint import Endpoint

OPENAI_URL = "https://api.openai.com/v1"

_KNOWN_DIMS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
# OpenAI's models read 8191 tokens, about this many characters of English.
_MOST_CHARACTERS = 32_000
# A text that is still refused at this length is not refused for its length: the smallest models read 512
# tokens.
_FEWEST_CHARACTERS = 500


class OpenAIEmbedder:
    """Embeds over HTTP.

    `dim` shortens the vectors where the model can do that, and is checked where it cannot; left out, it is
    known for OpenAI's models and asked of others at `open()`. `timeout` bounds one call of `embed` with all
    its retries. The key comes from `api_key` or OPENAI_API_KEY; servers without keys need none. Of a text
    longer than the model reads, the beginning is embedded.
    """

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        base_url: str = OPENAI_URL,
        api_key: str | None = None,
        dim: int | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        max_batch: int = DEFAULT_MAX_BATCH,
        text_weight: float = DEFAULT_TEXT_WEIGHT,
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("base_url must be an http or https URL")
        if url.username or url.password:
            raise ValueError("base_url must not hold credentials, because URLs are logged; use api_key=")
        check_whole(max_batch=max_batch)
        check_whole(0, retries=retries, dim=dim or 0)
        check_seconds(timeout=timeout)
        check_number(text_weight=text_weight)
        self.model = model
        self.dim = dim or _KNOWN_DIMS.get(model, 0)
        self.max_batch = max_batch
        self.text_weight = text_weight
        self._url = base_url.rstrip("/") + "/embeddings"
        self._api_key = api_key
        self._shortened: int | None = None
        self._timeout = timeout
        self._retries = retries
        self._endpoint: Endpoint | None = None

    async def open(self) -> None:
        """Connect, and settle the dimension of an unknown model; an ImportError says what to install."""
        threads = Threads(1, "openproto-openai")
        try:
            # Importing httpx and reading the TLS certificates takes long enough to be felt on the loop.
            self._endpoint = await threads(self._connect)
        finally:
            threads.close()
        native = _KNOWN_DIMS.get(self.model) or await self._probe()
        self.dim = self.dim or native
        if self.dim != native:
            self._shortened = self.dim
            if (dim := await self._probe()) != self.dim:
                raise ProviderError(
                    f"embedder {self.model!r} gives {dim} dimensions, not the {self.dim} asked for; leave out dim="
                )

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return the server's vectors in the order of `texts`."""
        if self._endpoint is None:
            raise RuntimeError("the embedder is not open; await its open() first")
        cut = [text[:_MOST_CHARACTERS] for text in texts]
        while True:
            try:
                return await self._endpoint.embeddings(cut, dimensions=self._shortened)
            except (InvalidRequestError, PayloadTooLargeError):
                # Servers do not say which limit was met. A batch is split by the caller; a lone text is
                # halved.
                if len(cut) != 1 or len(cut[0]) <= _FEWEST_CHARACTERS:
                    raise
                cut = [cut[0][: len(cut[0]) // 2]]

    async def close(self) -> None:
        """Close the connections."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    async def _probe(self) -> int:
        [row] = await self.embed(["dimension"])
        return len(row) if isinstance(row, list) else 0

    def _connect(self) -> Endpoint:
        key = (self._api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not key and self._url.startswith(OPENAI_URL):
            raise UnauthorizedError("OpenAI wants an API key: set OPENAI_API_KEY or pass api_key=")
        if not (key.isascii() and key.isprintable()):
            # httpx would quote the whole key in its complaint.
            raise UnauthorizedError("the API key holds characters that no HTTP header can carry; look at it for blanks")
        try:
            from openproto.embedding.openai_endpoint import Endpoint
        except ModuleNotFoundError as error:
            if error.name != "httpx":
                raise
            raise ImportError(f"the openai embedder needs {error.name}: pip install 'openproto[openai]'") from error
        import_async_http()
        return Endpoint(self._url, model=self.model, api_key=key, timeout=self._timeout, retries=self._retries)
