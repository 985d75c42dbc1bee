"""Memori's native engine: the embedding model, and the ranking by meaning and words.

One engine serves the process, because each loads the model again and keeps threads. It asks for what it ranks through
callbacks on those threads; they answer from what the caller has read, with the caller's filters and errors.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from openproto.blocking.forking import in_forked_child
from openproto.blocking.imports import environment
from openproto.errors import ProviderError, ProviderUnavailableError

Facts: TypeAlias = Sequence[tuple[int, bytes]]
"""Numbers of facts, and their vectors as Memori keeps them: 32-bit floats, little-endian."""

_READ = 20_000
"""Characters of a text that the engine gets: the model reads a few hundred tokens, and more would only cost memory."""

Texts: TypeAlias = Callable[[Sequence[int]], Mapping[int, str]]

_loading = threading.Lock()
_engines: dict[Path, Engine] = {}
_of_parents: list[dict[Path, Engine]] = []


def engine(models: Path) -> Engine:
    """Return the process's engine with the model in the folder `models`, loaded the first time, or tried again."""
    with _loading:
        if models not in _engines:
            _engines[models] = Engine(models)
        return _engines[models]


class _Question(NamedTuple):
    facts: Facts
    texts: Texts
    errors: list[Exception]


class Engine:
    """The engine; calls may come from any thread."""

    def __init__(self, models: Path) -> None:
        # Not through memori, which looks for this library in the working directory first.
        from memori_python import EngineHandle

        with environment(_environment(models)):
            try:
                self._handle = EngineHandle(None, self._vectors, self._contents, _refuse)
                (probe,) = self._handle.embed_texts(["a"])
            except BaseException as error:  # a panic in Rust is not an Exception
                raise ProviderUnavailableError(
                    "Memori's embedding model cannot be loaded. It is downloaded when it is first used, which needs a "
                    "network; without one, models= names a folder that holds it"
                ) from error
        self._dim = len(probe)
        self._numbers = count()
        self._asked: dict[str, _Question] = {}
        # The callbacks are Python. Several at once would leave the event loop little of the interpreter's time.
        self._ranking = threading.Lock()

    @property
    def vector_size(self) -> int:
        """The bytes of a vector."""
        return 4 * self._dim

    def embed(self, text: str) -> bytes:
        """Return the vector of a text; all zeros where the text has nothing visible."""
        try:
            # One by one: of several, the engine pads all to the longest, and leaves the invisible out.
            vectors = self._handle.embed_texts([text.lstrip()[:_READ]])
        except Exception as error:
            raise _failed(error) from error
        vector = vectors[0] if vectors else [0.0] * self._dim
        if len(vector) != self._dim:
            raise ProviderError(
                "Memori's engine answered with a vector of another length than before; open the client anew"
            )
        return struct.pack(f"<{self._dim}f", *vector)

    def rank(self, query: str, facts: Facts, texts: Texts, most: int) -> list[tuple[int, float]]:
        """Return the numbers and scores of the best facts, `most` at most; `texts` reads the texts of candidates."""
        ticket = str(next(self._numbers))
        request = {"entity_id": ticket, "query_text": query, "dense_limit": len(facts), "limit": most}
        question = self._asked[ticket] = _Question(facts, texts, [])
        try:
            with self._ranking:
                answer = self._handle.retrieve(json.dumps(request))
        except ValueError:
            return []  # a query with nothing visible in it
        except Exception as error:
            if question.errors:
                raise question.errors[0] from None
            raise _failed(error) from error
        finally:
            del self._asked[ticket]
        return _hits(answer, ticket, facts)

    def _vectors(self, request: str) -> str:
        ticket = json.loads(request)["entity_id"]
        # Put together by hand: json.dumps would hold the interpreter until megabytes are done.
        rows = (
            f'{{"id":"{ticket}:{place}","content_embedding_b64":"{b64encode(vector).decode()}"}}'
            for place, (_, vector) in enumerate(self._asked[ticket].facts)
        )
        return f"[{','.join(rows)}]"

    def _contents(self, request: str) -> str:
        ids: list[str] = json.loads(request)["ids"]
        if not ids:
            return "[]"
        question = self._asked[ids[0].partition(":")[0]]
        numbers = {id: question.facts[int(id.partition(":")[2])][0] for id in ids}
        try:
            texts = question.texts(list(numbers.values()))
        except Exception as error:
            question.errors.append(error)  # the engine would make a text of it
            raise
        rows = (
            json.dumps({"id": id, "content": texts[number], "date_created": "", "summaries": []})
            for id, number in numbers.items()
            if number in texts  # deleted meanwhile
        )
        return f"[{','.join(rows)}]"


def _hits(answer: Any, ticket: str, facts: Facts) -> list[tuple[int, float]]:
    hits: list[tuple[int, float]] = []
    try:
        for hit in json.loads(answer):
            asked, _, place = hit["id"].partition(":")
            if asked != ticket:
                raise ProviderError(
                    "Memori's engine answered with a fact that it was not given, which was dropped; report it"
                )
            hits.append((facts[int(place)][0], float(hit["rank_score"])))
    except (LookupError, TypeError, ValueError, AttributeError):
        # Not chained: a parser's error repeats what it read, which is memory content.
        raise ProviderError("Memori's engine answered with something other than a ranking; report it") from None
    return hits


def _refuse(request: str) -> str:
    raise RuntimeError("nothing is written through Memori's engine; use the provider's verbs")


def _failed(error: Exception) -> ProviderError:
    return ProviderError(f"Memori's engine failed with {type(error).__name__}; report it")


def _environment(models: Path) -> dict[str, str]:
    """Return where the model is, and which ONNX Runtime to load, for the engine, which reads the environment alone.

    Memori would download one. An ONNX Runtime that the environment names already is the one. A recent one reports
    to its maker unless it is told not to when it is loaded.
    """
    wanted = {"FASTEMBED_CACHE_DIR": str(models), "ORT_DISABLE_TELEMETRY": os.environ.get("ORT_DISABLE_TELEMETRY", "1")}
    if "ORT_DYLIB_PATH" not in os.environ:
        wanted["ORT_DYLIB_PATH"] = str(_runtime())
    return wanted


def _runtime() -> Path:
    """Return the library of the installed onnxruntime; asked of no import, which loads that library a second time."""
    spec = find_spec("onnxruntime")
    folder = Path(spec.submodule_search_locations[0], "capi") if spec and spec.submodule_search_locations else Path()
    for pattern in ("libonnxruntime.so.*", "libonnxruntime.*.dylib", "onnxruntime.dll"):
        for library in folder.glob(pattern):
            return library
    raise ImportError("memori needs ONNX Runtime: pip install 'openproto[memori]', or name one in ORT_DYLIB_PATH")


@in_forked_child
def _forget() -> None:
    """Leave a parent's engines to the parent: their threads do not exist in a child, and would be waited for."""
    global _engines, _loading
    _of_parents.append(_engines)
    _engines, _loading = {}, threading.Lock()
