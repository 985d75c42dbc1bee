"""The embedder that needs no network: wordllama's static word vectors.

Only wordllama's data is used, the weights and the tokenizer that lie in its package. Importing its code would
set up the root logger and import an HTTP client, and its `embed` pads every text to the longest of the batch,
so one text of 100 000 characters would cost gigabytes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_HINT = "the local embedder needs wordllama: pip install 'openproto[local]'"

_PAUSE = 0.002
_PARTS = ("type", "vocab", "merges")

_loading = threading.Lock()


class LocalEmbedder:
    """Averages wordllama's word vectors: fast, private, modest in quality. All instances share the weights.

    A text is embedded whole, however long; memory grows with the vocabulary and the number of tokens only.
    """

    # Not wordllama's version: the vectors depend on this weight file alone, and a new release must not orphan
    # them.
    model: str = "wordllama-l2-supercat-256"
    dim: int = 256
    text_weight: float = 1.6
    center_query: bool = True

    def open(self) -> None:
        """Load the weights; an ImportError says what to install."""
        _shared_tokenizer()
        _shared_weights()

    def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the mean of the word vectors of each text."""
        import numpy as np

        weights = _shared_weights()
        rows: list[NDArray[np.float32]] = []
        # encode_batch_fast and not encode, which holds the GIL throughout: 0.3 s for the worst text of that
        # length.
        for encoding in _shared_tokenizer().encode_batch_fast(list(texts), add_special_tokens=False):
            # Distinct tokens with their counts: a long text needs no more rows than the vocabulary has.
            tokens, counts = np.unique(np.asarray(encoding.ids, np.int32), return_counts=True)
            total = counts.astype(np.float32) @ weights[tokens].astype(np.float32)
            rows.append(total / np.float32(max(len(encoding), 1)))
        return rows


def count_tokens(text: str) -> int:
    """Return the number of tokens in `text` by wordllama's tokenizer, a Llama 2 vocabulary.

    Blocks, for 0.1 s when it first loads the tokenizer: call it in a thread.
    """
    return len(_shared_tokenizer().encode_batch_fast([text], add_special_tokens=False)[0])


def is_installed() -> bool:
    """Return whether wordllama can be found, without importing it."""
    return find_spec("wordllama") is not None


def _shared_tokenizer() -> Tokenizer:
    with _loading:
        return _load_tokenizer()


def _shared_weights() -> NDArray[np.float16]:
    with _loading:
        return _load_weights()


@cache
def _load_tokenizer() -> Tokenizer:
    file = _data_file("tokenizers/l2_supercat_tokenizer_config.json")
    try:
        from tokenizers import Tokenizer, models
    except ModuleNotFoundError as error:
        raise ImportError(_HINT) from error
    # In parts, because `Tokenizer.from_file` holds the GIL from beginning to end, 40 ms. Where C or Rust calls Python
    # code, as for each number and each merge here, other threads get their turn; `int` and a list would not be such
    # code.
    config = json.loads(file.read_bytes(), parse_int=_parse_int)
    model = config["model"]
    vocab, merges = model["vocab"], _Merges(model["merges"])
    tokenizer = Tokenizer.from_str(json.dumps({**config, "model": {**model, "vocab": {}, "merges": []}}))
    options = {name: value for name, value in model.items() if name not in _PARTS and value is not None}
    tokenizer.model = models.BPE(vocab, merges, **options)
    return tokenizer


def _parse_int(digits: str) -> int:
    return int(digits)


class _Merges(list[Any]):
    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for merge in super().__iter__():
            yield tuple(merge.split(" "))
        # Then the tokenizer is built, which nothing interrupts: other threads get their turn just before.
        time.sleep(_PAUSE)


@cache
def _load_weights() -> NDArray[np.float16]:
    file = _data_file("weights/l2_supercat_256.safetensors")
    try:
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise ImportError(_HINT) from error
    weights: NDArray[np.float16] = load_file(file)["embedding.weight"]
    return weights


def _data_file(name: str) -> Path:
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_HINT)
    file = Path(spec.submodule_search_locations[0], name)
    if not file.is_file():
        raise ImportError(f"this version of wordllama has no {name}; pip install 'openproto[local]'")
    return file
