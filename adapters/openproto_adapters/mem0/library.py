"""The open-source library, in this process: no language model and no network needed, and any of its stores.

Each call runs in a thread and, on a store in this process, alone (`shared_library.py`); a cancelled one ends there, so
that a write is whole. Vectors are made before a call begins, where they delay no other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from uuid import uuid4

from openproto.blocking.imports import large_import
from openproto.blocking.threads import Threads, start_alone
from openproto.embedding import Embedder, Embeddings
from openproto.embedding.protocol import DEFAULT_TEXT_WEIGHT
from openproto.emulation import NATIVE, Ranked, Stored, Traits, is_uuid, no_such_memory, user_token
from openproto.errors import ProviderError, ProviderUnavailableError
from openproto.fanout import shielded
from openproto.models import Cancellation
from openproto.requests import MAX_SEARCH_LIMIT, MemoryInput, SearchQuery
from openproto.stores.words import query_terms, term_set
from openproto_adapters.mem0 import rows
from openproto_adapters.mem0.config import Config, check_names, complete, explained, local_path
from openproto_adapters.mem0.errors import typed_errors
from openproto_adapters.mem0.quiet_import import import_mem0
from openproto_adapters.mem0.shared_library import SharedLibrary, shared_library

if TYPE_CHECKING:
    from openproto_adapters.mem0.parts import Embed

T = TypeVar("T")
Rows: TypeAlias = list[dict[str, Any]]

_MODEL_FILE = "openproto-embedder.json"
_LISTED_AT_FIRST = 10_000
_EMBED_WITHIN = 30.0
_DIGITS = 6
_POOL = MAX_SEARCH_LIMIT + 5  # of the store's hits are scored at least; mem0's own search would ask for four times that


class Library:
    """mem0's `Memory`; `embedder` is None where `config` has one of mem0's own."""

    cancellation: Cancellation = "detached"
    traits = Traits(native=NATIVE, most_ranked=100_000, lists_users=True)

    def __init__(self, path: Path, config: Config, embedder: Embedder | None, *, infer: bool, width: int) -> None:
        self._path = path
        self._config = config
        self._embeddings = Embeddings(embedder) if embedder else None
        self._infer = infer
        local = local_path(complete(config, path, None))
        self._shared = shared_library(*local) if local else SharedLibrary(shared=False)
        # Where all take turns, more threads would only wait.
        self._threads = Threads(1 if local else width, "openproto-mem0")
        self._complete: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return user_token(repr(local_path(self._complete) or self._complete["vector_store"]))

    async def open(self) -> None:
        """Load the embedder, import mem0, and open the store, which must have been built with that embedder."""
        if self._embeddings:
            await self._embeddings.open()
        self._complete = complete(self._config, self._path, self._embeddings.dim if self._embeddings else None)
        self._is_qdrant = self._complete["vector_store"]["provider"] == "qdrant"
        await self._threads(self._enter, self._embeddings.model if self._embeddings else None)

    async def close(self) -> None:
        """Leave the store once the call that uses it has ended; the last client of the process closes it."""
        self._threads.close()
        leaving = start_alone(lambda: self._shared.leave(self, self._close), "openproto-mem0-close")
        if self._embeddings:
            await self._embeddings.aclose()
        await shielded(leaving)

    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Add the text as it is, or, with `infer`, what mem0's language model makes of it."""
        stored = Stored.new(item, key, id="")
        metadata = rows.metadata_of(stored)
        if not self._infer:  # of several memories, mem0's own moments say which of them was the first
            metadata["created_at"] = stored.record.created_at.isoformat()
        scope = {"user_id": rows.entity(item.user_id), **rows.agent_and_run(item.scope)}
        message = {"role": "user", "content": item.content}

        def add(memory: Any) -> Rows:
            return [*memory.add([message], metadata=metadata, infer=self._infer, **scope)["results"]]

        if not (results := await self._call(add, item.content)):
            raise rows.nothing_inferred()
        return stored.changed(id=results[0]["id"], content=results[0]["memory"])

    async def find(self, id: str) -> Stored | None:
        """Return the memory of whatever user, because mem0 asks for none here."""
        if not is_uuid(id):
            return None
        return rows.to_stored(found) if (found := await self._call(lambda memory: memory.get(id))) else None

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        return rows.first_of(key, await self._all({"user_id": rows.entity(user_id), rows.KEY: user_token(key)}))

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Update the memory if it is still there: mem0 would bring a deleted one back."""
        id, content = old.record.id, new.record.content

        def update(memory: Any) -> None:
            if memory.get(id) is None:
                raise no_such_memory()
            memory.update(id, text=content, metadata=rows.metadata_of(new))

        await self._call(update, content)
        return new

    async def remove(self, stored: Stored) -> bool:
        id = stored.record.id

        def delete(memory: Any) -> bool:
            found = memory.get(id) is not None
            if found:
                memory.delete(id)
            return found

        return await self._call(delete)

    async def everything(self, user_id: str) -> list[Stored]:
        return await self._all({"user_id": rows.entity(user_id)})

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Search mem0's store by meaning, and score hits by cosine and words: its own scores differ between queries."""
        text, name = query.query.strip(), rows.entity(query.user_id)
        filters = {"user_id": name, **self._native_filters(query)}
        most = max(count + 1, _POOL)  # as many for every limit, so that a limit changes no order

        def search(memory: Any) -> Ranked:
            store, vector = memory.vector_store, memory.embedding_model.embed(text, "search")
            if self._is_qdrant:  # whose copy of what is scored takes longer than all else: first the texts alone
                asked = {"query_filter": store._create_filter(filters), "limit": most, "with_payload": ["data"]}
                hits = store.client.query_points(store.collection_name, vector, **asked).points
            else:
                hits = [*store.search(text, vector, top_k=most, filters=filters)]
            wanted = set(query_terms(text).terms)
            scored = ((-self._score(wanted, hit), str(hit.id), hit) for hit in hits if hit.payload.get("data"))
            chosen = nsmallest(count, scored, key=lambda hit: hit[:2])
            best = [hit for *_, hit in chosen]
            whole = store.client.retrieve(store.collection_name, [h.id for h in best]) if self._is_qdrant else best
            own = {str(hit.id): rows.to_stored(rows.answer_of(str(hit.id), hit.payload), name) for hit in whole}
            return Ranked([(its, -score) for score, id, _ in chosen if (its := own.get(id))], len(hits) <= count)

        return await self._call(search, text)

    def _score(self, wanted: set[int], hit: Any) -> float:
        weight = self._embeddings.text_weight if self._embeddings else DEFAULT_TEXT_WEIGHT
        share = len(wanted.intersection(term_set(hit.payload["data"]))) / len(wanted) if wanted else 0.0
        # The last digits of a cosine differ from call to call, and with them the order of equal ones.
        return round((float(hit.score) + weight * share) / (1 + weight), _DIGITS)

    async def health(self) -> None:
        """Read something; a store on a server is created here where it is missing."""
        await self._call(lambda memory: memory.get(str(uuid4())))

    @property
    def location(self) -> str:
        return " at ".join(local_path(self._complete) or [self._complete["vector_store"]["provider"]])

    def _native_filters(self, query: SearchQuery) -> dict[str, str]:
        """Return what the store filters by before its limit; only Qdrant finds an element of a list."""
        if not self._is_qdrant:
            return {}
        # Memories of other programs have such a scope without the key.
        by_scope = query.scope is not None and query.scope.partition("/")[0] != "agent"
        wanted = {rows.SCOPES: query.scope if by_scope else None, rows.TAGS: query.tags[0] if query.tags else None}
        return {name: value for name, value in wanted.items() if value is not None}

    async def owners(self) -> set[str]:
        """Return whose memories there are; `get_all` wants a user, and what is beneath it does not."""
        listed = await self._listed(lambda memory, most: memory._get_all_from_vector_store({}, most, show_expired=True))
        found = await self._threads(
            lambda: [*map(rows.to_stored, {row.get("user_id"): row for row in listed}.values())]
        )
        return {stored.record.user_id for stored in found if stored}

    async def _all(self, filters: dict[str, str]) -> list[Stored]:
        listed = await self._listed(
            lambda memory, most: memory.get_all(filters=filters, top_k=most, show_expired=True)["results"]
        )

        def read() -> list[Stored]:
            return [*filter(None, (rows.to_stored(one, filters["user_id"]) for one in listed))]

        return await self._threads(read)

    async def _listed(self, ask: Callable[[Any, int], Rows]) -> Rows:
        def list_all(memory: Any) -> Rows:
            """mem0 has no pages, only a limit: ask for more until there is no more."""
            limit = _LISTED_AT_FIRST
            while len(listed := ask(memory, limit)) >= limit:
                limit *= 10
            return listed

        return await self._call(list_all)

    async def _call(self, work: Callable[[Any], T], *texts: str) -> T:
        """Return `work(memory)`, with the vectors of `texts` at hand."""
        return await self._threads(self._in_turn, work, await self._embedding(texts))

    async def _embedding(self, texts: tuple[str, ...]) -> Embed | None:
        if (embeddings := self._embeddings) is None:
            return None
        vectors = {text: (await embeddings.embed_one(text)).tolist() for text in texts}
        loop = asyncio.get_running_loop()

        def embed(text: str) -> list[float]:
            if text not in vectors:  # one that mem0 has made itself: a fact, or a name in the text
                future = asyncio.run_coroutine_threadsafe(embeddings.embed_one(text), loop)
                vectors[text] = future.result(_EMBED_WITHIN).tolist()
            vector: list[float] = vectors[text]
            return vector

        return embed

    def _in_turn(self, work: Callable[[Any], T], embed: Embed | None) -> T:
        from openproto_adapters.mem0.parts import current_embed

        if embed:
            current_embed.set(embed)  # in this call's own context
        with self._shared.turn(self) as memory, typed_errors():
            return work(memory)

    def _enter(self, model: str | None) -> None:
        mem0 = import_mem0()
        rows.Row.model_rebuild()  # here, where it does not hold up the loop
        from mem0.configs.base import MemoryConfig

        check_names(self._config, MemoryConfig)
        with typed_errors():
            self._shared.enter(self, {**self._complete, "model": model}, lambda _: self._build(mem0, model))

    @large_import()
    def _build(self, mem0: Any, model: str | None) -> Any:
        from openproto_adapters.mem0.parts import HandedEmbedder, NoHistory

        local = local_path(self._complete)
        folder = Path(local[1]) if local and local[1] != ":memory:" else None
        if folder:
            _check_folder(folder, model)
        try:
            with explained():
                memory = mem0.Memory.from_config(self._complete)
        except RuntimeError as error:
            if not local:
                raise
            raise ProviderUnavailableError(
                f"the store at {local[1]} is open in another process, and mem0's local stores serve one at a time; "
                "close it there, or use a store on a server (config=)"
            ) from error
        if model is not None:
            memory.embedding_model = HandedEmbedder(memory.embedding_model.config)
        if self._complete["history_db_path"] == ":memory:":
            memory.db.close()
            memory.db = NoHistory()
        # The keyword signal is no part of our scores; fastembed, where it is installed, would fetch a model for it.
        if hasattr(memory.vector_store, "_bm25_encoder"):
            memory.vector_store._bm25_encoder = False
        try:
            self._check_size(memory.vector_store)
            if folder and model is not None:
                (folder / _MODEL_FILE).write_text(json.dumps({"model": model}), encoding="utf-8")
        except BaseException:
            self._close(memory)
            raise
        return memory

    def _check_size(self, store: Any) -> None:
        """Raise ProviderError where a collection of Qdrant's holds vectors of another length."""
        wanted = self._complete["vector_store"]["config"].get("embedding_model_dims")
        if wanted is None or not self._is_qdrant:
            return
        size = store.client.get_collection(store.collection_name).config.params.vectors.size
        if size != wanted:
            raise ProviderError(
                f"the collection {store.collection_name!r} holds vectors of {size} numbers, and the embedder makes "
                f"{wanted}: open it with the embedder it was built with (embedder=, or config={{'embedder': ...}})"
            )

    def _close(self, memory: Any) -> None:
        """Close the library and what it opened beneath itself, which its own `close` leaves open."""
        given = self._complete["vector_store"]["config"]
        for store in filter(None, (memory.vector_store, memory._entity_store)):
            for name in ("client", "connection_pool"):
                opened = getattr(store, name, None)
                if opened is not None and given.get(name) is None and hasattr(opened, "close"):
                    opened.close()
        memory.close()


def _check_folder(folder: Path, model: str | None) -> None:
    """Raise ProviderError where a folder cannot be, or was written with another embedder's vectors."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / _MODEL_FILE
        built_with = json.loads(file.read_text(encoding="utf-8"))["model"] if file.exists() else model
    except OSError as error:
        raise ProviderError(f"{folder} cannot be created: {error.strerror}; choose another path=") from error
    if built_with != model:
        raise ProviderError(
            f"the store at {folder} was built with the embedder {built_with!r}, and is opened with {model!r}: "
            "their vectors cannot be compared. Open it with the embedder it was built with, or use another path="
        )
