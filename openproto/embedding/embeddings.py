"""The running form of an embedder, which is what the stores use."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from openproto.blocking.threads import Threads
from openproto.embedding.batching import Batcher
from openproto.embedding.protocol import DEFAULT_MAX_BATCH, DEFAULT_TEXT_WEIGHT, Embedder, Vector
from openproto.embedding.vectors import unit_vectors, zero_vector
from openproto.errors import ProviderError

# A plain embedder has one thread; of an async one several calls are under way, so that a slow one blocks
# nobody.
_ASYNC_WIDTH = 4
# A hop to the thread costs more than normalising this many numbers, and less than normalising more.
_FEW = 50_000


class Embeddings:
    """Embeds texts for one client on one event loop: opened, batched, normalised, and safe to cancel."""

    def __init__(self, embedder: Embedder, *, max_batch: int | None = None) -> None:
        self._embedder = embedder
        self._max_batch = max_batch or int(getattr(embedder, "max_batch", DEFAULT_MAX_BATCH))
        self._is_async = inspect.iscoroutinefunction(embedder.embed)
        self._threads = Threads(1, "openproto-embedder")
        self._batcher: Batcher | None = None
        self._must_close = False
        self._closed = False

    @property
    def model(self) -> str:
        """The embedder's model."""
        return self._embedder.model

    @property
    def dim(self) -> int:
        """The length of every vector; known once open."""
        return self._embedder.dim

    @property
    def text_weight(self) -> float:
        """How much word coverage counts next to the cosine with this embedder."""
        return float(getattr(self._embedder, "text_weight", DEFAULT_TEXT_WEIGHT))

    @property
    def center_query(self) -> bool:
        """Whether a query's vector is moved away from the mean of the user's memories before it is compared."""
        return bool(getattr(self._embedder, "center_query", False))

    async def open(self) -> None:
        """Load or connect the embedder; does nothing when open already."""
        if self._closed:
            raise RuntimeError("the embedder is closed; make a new one")
        if self._batcher is not None:
            return
        if find_spec("numpy") is None:
            raise ImportError("vectors need numpy: pip install numpy", name="numpy")
        self._must_close = True
        # NumPy takes a while to import, which must not hold up the loop.
        await self._threads(import_module, "numpy")
        await self._call_hook("open")
        if self.dim < 1:
            raise ProviderError(
                f"embedder {self.model!r} says that its vectors have {self.dim} dimensions; correct its dim"
            )
        width = _ASYNC_WIDTH if self._is_async else 1
        self._batcher = Batcher(self._embed, model=self.model, width=width, max_batch=self._max_batch)

    async def embed_one(self, text: str) -> Vector:
        """Return the unit vector of `text`; that of a blank text is all zeros."""
        batcher = self._open_batcher()
        return (await batcher.part([text]))[0] if text.strip() else zero_vector(self.dim)

    async def embed_many(self, texts: Iterable[str]) -> list[Vector]:
        """Return the unit vectors of `texts` in order, or raise the first error.

        To have an error for each bad text instead, gather calls of `embed_one`: they are batched all the same.
        """
        batcher = self._open_batcher()
        texts = list(texts)
        if all(map(str.strip, texts)):
            return await batcher.vectors(texts)
        in_order = iter(await batcher.vectors(text for text in texts if text.strip()))
        return [next(in_order) if text.strip() else zero_vector(self.dim) for text in texts]

    async def aclose(self) -> None:
        """End the work, raise in every caller that waits, and close the embedder; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._batcher is not None:
                await self._batcher.stop()
            if self._must_close:
                await self._call_hook("close")
        finally:
            self._threads.close()

    def _open_batcher(self) -> Batcher:
        if self._batcher is None or self._closed:
            raise RuntimeError(
                "the embedder is closed; make a new one"
                if self._closed
                else "the embedder is not open; await its open() first"
            )
        return self._batcher

    async def _embed(self, texts: list[str]) -> list[Vector | ProviderError]:
        embedder: Any = self._embedder
        model, dim = embedder.model, embedder.dim
        if not self._is_async:
            return await self._threads(
                lambda: unit_vectors(embedder.embed(texts), count=len(texts), model=model, dim=dim)
            )
        rows = await embedder.embed(texts)
        if len(rows) * dim <= _FEW:
            return unit_vectors(rows, count=len(texts), model=model, dim=dim)
        return await self._threads(lambda: unit_vectors(rows, count=len(texts), model=model, dim=dim))

    async def _call_hook(self, name: str) -> None:
        hook: Any = getattr(self._embedder, name, None)
        if inspect.iscoroutinefunction(hook):
            await hook()
        elif hook is not None:
            await self._threads(hook)
