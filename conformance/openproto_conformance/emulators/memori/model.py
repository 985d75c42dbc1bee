"""A model for Memori's engine, made of what lies in wordllama's package: no network is needed.

It stands in the place of `Qdrant/all-MiniLM-L6-v2-onnx`, in the layout of a Hugging Face cache: an ONNX graph that
looks up a vector for each token, of the length that the real model's have, and leaves it to the engine to average them.
Texts that mean the same lie near each other, less well than with the real model.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

_REVISION = "stand-in"
_WORDLLAMA = 256
_MINILM = 384
_MOST_TOKENS = 512
"""How much of a text the real model looks at."""


def build_model(folder: Path) -> None:
    """Write the model into `folder`, for `Memori(models=folder)`; takes a second.

    Raises ImportError where onnx, numpy, or wordllama is missing.
    """
    try:
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise ImportError(f"Memori's stand-in model needs {error.name}: pip install 'openproto[local]' onnx") from error

    home = folder / "models--Qdrant--all-MiniLM-L6-v2-onnx"
    files = home / "snapshots" / _REVISION
    files.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(_REVISION)

    vectors = load_file(_wordllama("weights/l2_supercat_256.safetensors"))["embedding.weight"]
    padding = np.array([0, 0, 0, 0, 0, _MINILM - _WORDLLAMA], np.int64)
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    state = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", _MINILM])
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["vectors", "input_ids"], ["found"]),
            helper.make_node("Cast", ["found"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Pad", ["wide", "padding"], ["last_hidden_state"]),
        ],
        "lookup",
        tokens,
        [state],
        [numpy_helper.from_array(vectors, "vectors"), numpy_helper.from_array(padding, "padding")],
    )
    # The opset and the version of the format that ONNX Runtime 1.23 reads for certain.
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), files / "model.onnx")

    tokenizer = json.loads(_wordllama("tokenizers/l2_supercat_tokenizer_config.json").read_text())
    # Without the mark at the beginning of a text, whose vector would make all texts alike.
    _write(files / "tokenizer.json", {**tokenizer, "post_processor": None})
    # The engine reads its limit here, and would ask huggingface.co for a file that is missing.
    _write(files / "sentence_bert_config.json", {"max_seq_length": _MOST_TOKENS})
    _write(files / "config.json", {"pad_token_id": 0})
    _write(files / "special_tokens_map.json", {"pad_token": "<unk>", "unk_token": "<unk>"})
    _write(files / "tokenizer_config.json", {"model_max_length": _MOST_TOKENS, "pad_token": "<unk>"})


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _wordllama(name: str) -> Path:
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("Memori's stand-in model needs wordllama: pip install 'openproto[local]'")
    return Path(spec.submodule_search_locations[0], name)
