"""The mem0 provider: which of the two kinds it is, and the protocol's verbs on either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from platformdirs import user_data_path
from pydantic import BaseModel

from openproto.embedding import resolve_embedder
from openproto.emulation import EmulatedProvider, Ranked, Stored
from openproto.fields import check_whole
from openproto.models import MemoryRecord
from openproto.requests import MemoryInput, RecordRef, SearchQuery
from openproto.stores.indexer import EmbedderSpec
from openproto_adapters.mem0.config import as_mapping
from openproto_adapters.mem0.library import Library
from openproto_adapters.mem0.platform import Platform


class Mem0(EmulatedProvider[Library | Platform]):
    """Memories in mem0: in this process with the open-source library, or, with `api_key`, at the hosted platform.

    Args:
        path: Of the library, the folder of its local store; by default one in the user's data directory.
        config: Of the library, mem0's own configuration: a mapping of `vector_store`, `embedder`, `llm`,
            `history_db_path`..., or mem0's `MemoryConfig`.
        embedder: Of the library, "auto" (the local embedder), "openai/<model>", or an object, unless `config` has one.
        infer: Whether mem0 stores what a language model makes of a text (of the library: `config["llm"]`), in place of
            the text.
        api_key: The key of a hosted account; where only `base_url` is given, the one in MEM0_API_KEY.
        base_url: Where the hosted platform is, by default https://api.mem0.ai. Neither is ever taken from the
            environment alone: memories leave the machine only where the program says so.
        width: The most calls under way at once; a local store takes one at a time.
    """

    name = "mem0"
    requires: ClassVar[tuple[str, ...]] = ("mem0",)
    sdk = "mem0ai"
    tested_with = "2.2.1"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: Mapping[str, Any] | BaseModel | None = None,
        embedder: EmbedderSpec = "auto",
        infer: bool = False,
        api_key: str | None = None,
        base_url: str | None = None,
        width: int = 8,
    ) -> None:
        super().__init__()
        self._is_hosted = api_key is not None or base_url is not None
        settings = as_mapping(config)
        own_embedder = bool(settings.get("embedder"))
        if self._is_hosted and not (path is None and config is None and embedder == "auto"):
            raise ValueError(
                "path, config, and embedder are of the library in this process, api_key of the platform: give one kind"
            )
        if own_embedder and embedder != "auto":
            raise ValueError("give embedder=, or config={'embedder': ...}, and not both")
        if not self._is_hosted and infer and not settings.get("llm"):
            raise ValueError("infer=True needs a language model: config={'llm': {'provider': ..., 'config': {...}}}")
        check_whole(width=width)
        resolve_embedder(embedder)  # an unknown name is refused when the client is made
        self._path = Path(path) if path is not None else None
        self._config = settings
        self._embedder: EmbedderSpec = None if own_embedder else embedder
        self._infer = infer
        self._api_key = api_key
        self._base_url = base_url
        self._width = width
        kind = Platform if self._is_hosted else Library
        self.cancellation = kind.cancellation
        self.traits = replace(kind.traits, restores=not infer)

    async def connect(self) -> Library | Platform:
        backend = self._hosted() if self._is_hosted else self._library()
        try:
            await backend.open()
        except BaseException:
            await backend.close()
            raise
        return backend

    async def disconnect(self, backend: Library | Platform) -> None:
        await backend.close()

    def store_name(self) -> str:
        return f"mem0 {self.backend.name}"

    async def create(self, item: MemoryInput, key: str) -> Stored:
        return await self.backend.create(item, key)

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        """Return the memory of that id; mem0 has one space of ids for all users."""
        return await self.backend.find(id)

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        return await self.backend.find_key(user_id, key)

    async def replace(self, old: Stored, new: Stored) -> Stored:
        return await self.backend.replace(old, new)

    async def remove(self, stored: Stored) -> bool:
        return await self.backend.remove(stored)

    async def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        for number, stored in enumerate(await self.backend.everything(user_id)):
            if number % 100 == 0:
                await asyncio.sleep(0)
            yield stored

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        return await self.backend.rank(query, count)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record, and of the platform also whether it is indexed."""
        stored = await self._existing(ref.id, ref.user_id)
        backend = self.backend
        if isinstance(backend, Platform):
            stored = stored.changed(status=await backend.status(stored))
        return stored.shown

    async def remove_all(self, user_id: str) -> int:
        """Let the platform remove everything; of the library's stores only some could."""
        backend = self.backend
        return await (backend.remove_all(user_id) if isinstance(backend, Platform) else super().remove_all(user_id))

    async def owners(self) -> Collection[str]:
        return await self.backend.owners()

    async def check(self) -> None:
        await self.backend.health()

    async def describe(self) -> dict[str, str]:
        return {**await super().describe(), "store": self.backend.location}

    def _hosted(self) -> Platform:
        return Platform(self._api_key, self._base_url, infer=self._infer, width=self._width)

    def _library(self) -> Library:
        embedder = resolve_embedder(self._embedder)
        if embedder is None and not self._config.get("embedder"):
            raise ImportError(
                "mem0 needs an embedder: pip install 'openproto[local]' for one that needs no network, or name one, "
                "embedder='openai/<model>' or config={'embedder': {...}}"
            )
        path = self._path or user_data_path("openproto") / "mem0"
        return Library(path, self._config, embedder, infer=self._infer, width=self._width)
