"""What a store adds to a memory before it writes it: an id, words, and a vector.

A store remembers the model its vectors come from. `Indexer.open` compares that with the embedder at hand, because
vectors of two models cannot be compared with each other: a mismatch is an error before anything is read or written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from openproto.blocking.threads import Threads
from openproto.embedding import Embedder, Embeddings, Vector, resolve_embedder
from openproto.errors import OpenProtoError, ProviderError
from openproto.ids import new_id
from openproto.models import (
    OPERATIONS,
    VERBS,
    Capabilities,
    Features,
    Limits,
    MemoryRecord,
    MemorySource,
    Support,
    SupportDetails,
)
from openproto.provider import GeneratedKey, KeyedInput, Provider
from openproto.requests import MAX_CONTENT_LENGTH, MAX_SEARCH_LIMIT, MemoryInput, fingerprint
from openproto.stores.ranking import ScoreWeights
from openproto.stores.words import RULES, QueryTerms, query_terms

T = TypeVar("T")
W = TypeVar("W")

_log = logging.getLogger(__name__)

EmbedderSpec: TypeAlias = str | Embedder | None

_OLD_WORDS = (
    "the words of this store were made by the rules of an older openproto, which know English only: run `openproto "
    "reindex`, which works while the store is in use, and open the client again"
)

# Up to this many characters, splitting and hashing a text takes less time than a thread's hand-over.
_SMALL = 4_000


class StoredModel(NamedTuple):
    """What a store was built with: the model of its vectors (None: text alone), and whether it holds memories."""

    model: str | None
    dim: int | None
    has_memories: bool
    rules: int = RULES
    """By which rules its words were made."""


class IndexedInput(NamedTuple, Generic[W]):
    """A memory ready to be written."""

    item: MemoryInput
    idempotency_key: str
    id: str
    words: W
    """What it is found by, in the form that the store keeps."""
    vector: Vector | None

    @property
    def has_own_id(self) -> bool:
        """Whether the key is the record's id, so that no other note of the key is needed."""
        return type(self.idempotency_key) is GeneratedKey

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that two inputs share only when they are the same input."""
        return fingerprint(self.item)

    def record(self, model: str | None, version: str, created_at: datetime | None) -> MemoryRecord:
        """Return the record that the store has once this is written; a store may say later when that was."""
        item = vars(self.item)  # asking the model for each field takes twice as long
        source = item["source"]
        return MemoryRecord.of_valid(
            {
                "id": self.id,
                "content": item["content"],
                "user_id": item["user_id"],
                "created_at": created_at,
                "scope": item["scope"],
                "tags": [*item["tags"]],
                "source": source and MemorySource(**source.model_dump()),
                "confidence": item["confidence"],
                "valid_from": item["valid_from"],
                "valid_to": item["valid_to"],
                "supersedes": [*item["supersedes"]],
                "superseded_by": None,
                "embedding_model": model,
                "updated_at": None,
                "status": "done",
                "key": item["key"],
                "version": version,
                "duplicate_of": None,
            },
            self.item.extensions,
        )


IndexedBatch: TypeAlias = list[IndexedInput[W] | OpenProtoError]


class IndexedQuery(NamedTuple):
    """What a query finds: memories of these terms, near this vector."""

    terms: QueryTerms
    vector: Vector | None


class IndexedText(NamedTuple, Generic[W]):
    """What changed content is found by."""

    words: W
    vector: Vector | None


class Indexer(Generic[W]):
    """Prepares inputs and queries for one open store.

    Args:
        embedder: Anything that `resolve_embedder` takes.
        split: Makes of a memory's text the words that it is found by, in the form that the store keeps.
    """

    def __init__(self, embedder: EmbedderSpec, split: Callable[[str], W]) -> None:
        self._spec = embedder
        self._split_text = split
        self._embeddings: Embeddings | None = None
        self._has_old_words = False
        self._threads = Threads(1, "openproto-indexer")

    @property
    def model(self) -> str | None:
        """The model of the vectors, or None where the store works by text alone."""
        return self._embeddings.model if self._embeddings else None

    @property
    def dim(self) -> int | None:
        """The length of the vectors."""
        return self._embeddings.dim if self._embeddings else None

    @property
    def weights(self) -> ScoreWeights:
        """How the embedder wants its cosines and the words weighed."""
        if self._embeddings is None:
            return ScoreWeights()
        return ScoreWeights(self._embeddings.text_weight, self._embeddings.center_query)

    async def open(self, stored: StoredModel) -> None:
        """Load the embedder; raise ProviderError, naming both models, where it is not the store's."""
        self._has_old_words = stored.rules < RULES
        if self._has_old_words:
            _log.warning("search: %s", _OLD_WORDS)
        await self.load()
        if stored.model is None and stored.has_memories and self._spec == "auto" and self._embeddings:
            _log.info("the store works by text alone; `openproto reindex` would add vectors of %s to it", self.model)
            await self._embeddings.aclose()
            self._embeddings = None
        if stored.model is not None or stored.has_memories:
            self.check(stored.model, stored.dim)

    async def load(self) -> None:
        """Load the embedder without comparing it with anything, as a re-embedding does."""
        embedder = resolve_embedder(self._spec)
        if embedder is not None:
            self._embeddings = Embeddings(embedder)
            await self._embeddings.open()

    def check(self, model: str | None, dim: int | None) -> None:
        """Raise ProviderError unless `model` and `dim` are what this indexer makes."""
        if model != self.model or (model is not None and dim != self.dim):
            raise ProviderError(
                f"this store was built with {_called(model, dim)}, and is opened with "
                f"{_called(self.model, self.dim)}: their vectors cannot be compared. Open it with the embedder it was "
                "built with (embedder=, OPENPROTO_EMBEDDER, or pip install 'openproto[local]'), or re-embed it with "
                "`openproto reindex`, which works while the store is in use"
            )

    async def index(self, keyed: KeyedInput) -> IndexedInput[W]:
        """Return `keyed` ready to be written."""
        embeddings = self._embeddings
        vector = await embeddings.embed_one(keyed.item.content) if embeddings else None
        if len(keyed.item.content) <= _SMALL:
            return self._indexed(keyed, vector)
        return await self._threads(self._indexed, keyed, vector)

    async def index_many(
        self,
        batch: Sequence[KeyedInput],
        pack: Callable[[IndexedBatch[W]], T],
        known: Sequence[Vector | None] = (),
    ) -> T:
        """Return `pack` of the batch, each input ready to be written or the error of embedding it.

        `pack` runs off the loop, where the inputs are indexed. `known` are the vectors that need not be made.
        """
        vectors: list[Vector | OpenProtoError | None] = [*(known or [None] * len(batch))]
        unknown = [number for number, vector in enumerate(vectors) if vector is None]
        made = await self._embed_each([batch[number].item.content for number in unknown])
        for number, vector in zip(unknown, made, strict=True):
            vectors[number] = vector
        return await self._threads(
            lambda: pack(
                [
                    vector if isinstance(vector, OpenProtoError) else self._indexed(keyed, vector)
                    for keyed, vector in zip(batch, vectors, strict=True)
                ]
            )
        )

    async def index_query(self, query: str) -> IndexedQuery:
        """Return the query ready to be searched with."""
        if self._has_old_words and not query.isascii():
            # English words are the same by both rules; others would be missed without a word.
            raise ProviderError(_OLD_WORDS)
        return IndexedQuery(await self._split(query, query_terms), await self.embed(query))

    async def index_content(self, content: str) -> IndexedText[W]:
        """Return changed content ready to be written."""
        return IndexedText(await self._split(content, self._split_text), await self.embed(content))

    async def _split(self, text: str, split: Callable[[str], T]) -> T:
        return split(text) if len(text) <= _SMALL else await self._threads(split, text)

    async def embed(self, text: str) -> Vector | None:
        """Return the vector of `text`, or None where the store works by text alone."""
        return await self._embeddings.embed_one(text) if self._embeddings else None

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Vector | None]:
        """Return the vector of each text, or Nones where the store works by text alone."""
        return await self._embeddings.embed_many(texts) if self._embeddings else [None] * len(texts)

    async def close(self) -> None:
        """Release the embedder and its threads; may be called twice."""
        self._threads.close()
        if self._embeddings is not None:
            await self._embeddings.aclose()

    def _indexed(self, keyed: KeyedInput, vector: Vector | None) -> IndexedInput[W]:
        item, key = keyed
        id = str(key) if type(key) is GeneratedKey else new_id(item.user_id)
        return IndexedInput(item, key, id, self._split_text(item.content), vector)

    async def _embed_each(self, texts: Sequence[str]) -> Sequence[Vector | OpenProtoError | None]:
        try:
            return await self.embed_many(texts)
        except OpenProtoError:
            # One text may be at fault: ask again one by one, so that the others are stored.
            found = await asyncio.gather(*(self.embed(text) for text in texts), return_exceptions=True)
        vectors: list[Vector | OpenProtoError | None] = []
        for result in found:
            if isinstance(result, BaseException) and not isinstance(result, OpenProtoError):
                raise result
            vectors.append(result)
        return vectors


def store_capabilities(store: Provider, *, vectors: bool) -> Capabilities:
    """Return what a store that keeps every rule itself declares: all verbs and every feature, natively."""
    features = Features(
        vector_search=vectors,
        keyword_search=True,
        temporal=True,
        scopes="native",
        max_content_length=MAX_CONTENT_LENGTH,
        supports_audit=True,
        supports_supersession=True,
    )
    support: dict[str, Support | str] = dict.fromkeys(VERBS, "native")
    for feature, has in features.model_dump().items():
        support[feature] = "native" if has else "none"
    support |= dict.fromkeys([*OPERATIONS, "keys_outlive"], "native")
    return Capabilities(
        provider=store.name,
        verbs=list(VERBS),
        features=features,
        limits=Limits(max_search_results=MAX_SEARCH_LIMIT),
        x_openproto=SupportDetails(support=support, cancellation=store.cancellation),
    )


def _called(model: str | None, dim: int | None) -> str:
    return "no embedder (text alone)" if model is None else f"the embedder {model!r} ({dim} dimensions)"
