from __future__ import annotations

from typing import Any

import pytest

from openproto.embedding import Embedder, LocalEmbedder, OpenAIEmbedder, resolve, resolve_embedder
from openproto.embedding.minilm import MiniLMEmbedder


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENPROTO_EMBEDDER_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [(None, type(None)), ("none", type(None)), ("local", LocalEmbedder), ("local/minilm", MiniLMEmbedder)],
)
def test_each_name_becomes_its_embedder_and_an_object_passes_through(spec: str | None, kind: type) -> None:
    found = resolve_embedder(spec)
    assert isinstance(found, kind)
    assert resolve_embedder(found) is found
    assert found is None or isinstance(found, Embedder)


@pytest.mark.parametrize(("installed", "kind"), [(True, LocalEmbedder), (False, type(None))])
def test_auto_is_local_where_it_is_installed(installed: bool, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "is_installed", lambda: installed)
    assert isinstance(resolve_embedder("auto"), kind)


@pytest.mark.parametrize(
    ("spec", "model"),
    [("openai/BAAI/bge-small-en", "BAAI/bge-small-en"), ("openai:nomic-embed-text:latest", "nomic-embed-text:latest")],
)
def test_openai_takes_any_model_and_server(spec: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in (
        ("", "https://api.openai.com/v1"),
        ("OPENAI_BASE_URL", "http://one:1/v1"),
        ("OPENPROTO_EMBEDDER_URL", "http://two:2/v1/"),
    ):
        if name:
            monkeypatch.setenv(name, url)
        embedder = resolve_embedder(spec)
        assert isinstance(embedder, OpenAIEmbedder)
        assert (embedder.model, embedder._url) == (model, f"{url.rstrip('/')}/embeddings")


@pytest.mark.parametrize(
    "spec", ["", "loca", "openai", "openai/", "openai-x", "fastembed/x", object(), OpenAIEmbedder, 3]
)
def test_anything_else_is_refused_with_the_choices(spec: object) -> None:
    with pytest.raises(ValueError, match=r"'auto', 'local', 'none', 'openai/<model>', 'local/minilm'.*pip install"):
        resolve_embedder(spec)  # type: ignore[arg-type]  # that is the point


def test_importing_and_resolving_import_no_library(run_python: Any) -> None:
    ended = run_python(
        "import sys; from openproto.embedding import *\n"
        "resolve_embedder('auto'), resolve_embedder('openai/m'), resolve_embedder('local/minilm')\n"
        "names = ('httpx', 'wordllama', 'numpy', 'tokenizers', 'onnxruntime')\n"
        "print([name for name in names if name in sys.modules])"
    )
    assert ended.stdout.strip() == "[]", ended.stderr
