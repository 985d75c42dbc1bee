"""Embedders: text to vectors, in batches, off the event loop. Importing this imports no vendor's library."""

from openproto.embedding.embeddings import Embeddings
from openproto.embedding.local import LocalEmbedder, count_tokens
from openproto.embedding.openai import OpenAIEmbedder
from openproto.embedding.protocol import Embedder, Vector
from openproto.embedding.resolve import resolve_embedder

__all__ = [
    "Embedder",
    "Embeddings",
    "LocalEmbedder",
    "OpenAIEmbedder",
    "Vector",
    "count_tokens",
    "resolve_embedder",
]
