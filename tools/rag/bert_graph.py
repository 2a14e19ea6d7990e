"""A BERT as a graph for onnxruntime, made from the weights of its folder: an encoder, or a cross-encoder.

Inputs `ids` and `mask` (batch, tokens), of a cross-encoder also `types`. Output `vectors` (batch, size), each of length
1, or `logits` (batch, 1). The weights are not in the graph: they go to the session as they lie in memory (`weights`),
so that there is one copy of them. Attention, GELU and the norms are onnxruntime's fused operators: the same numbers as
PyTorch's to seven digits.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .model_files import ModelFiles, ModelMissing

FUSED = "com.microsoft"
OPSET = 17
IR_VERSION = 8

Array = NDArray[np.float32]


@dataclass(slots=True)
class _Graph:
    weights: dict[str, Array]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    used: dict[str, Array] = field(default_factory=dict)

    def add(self, operator: str, inputs: list[str], *, domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        """Add a node; returns its first output."""
        name = f"{operator}_{len(self.nodes)}"
        names = [name] + [f"{name}.{number}" for number in range(1, outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, domain=domain, **attributes))
        return name

    def weight(self, name: str, *, transpose: bool = False) -> str:
        value = self.weights[name]
        return self.own(name, np.ascontiguousarray(value.T) if transpose else value)

    def own(self, name: str, value: Array) -> str:
        self.used[name] = value
        return name

    def integers(self, values: list[int]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name


Built = tuple[bytes, dict[str, Array]]  # a graph, and the weights that it asks for by name


def build(files: ModelFiles) -> Built:
    """
    Raises:
        ModelMissing: the weights are not those of such a model.
    """
    return _build(files, _vectors)


def build_cross_encoder(files: ModelFiles) -> Built:
    """
    Raises:
        ModelMissing: the weights are not those of such a model.
    """
    return _build(files, _logits)


def _build(files: ModelFiles, make: Callable[[_Graph, ModelFiles], bytes]) -> Built:
    try:
        graph = _Graph(dict(_read_weights(files.folder / "model.safetensors")))
        return make(graph, files), graph.used
    except (KeyError, ValueError, OSError) as error:
        raise ModelMissing(f"the weights of {files.name} cannot be read: {error}.") from error


def _vectors(graph: _Graph, files: ModelFiles) -> bytes:
    # The type is the same for every token: it goes into the table of positions.
    table = graph.weights["embeddings.position_embeddings.weight"]
    table = table + graph.weights["embeddings.token_type_embeddings.weight"][0]
    state = _encoder(graph, files, _words(graph), table)
    pooled = _mean(graph, state) if files.pooling == "mean" else _first(graph, state)
    norm = graph.add("ReduceL2", [pooled], axes=[1], keepdims=1)
    graph.nodes.append(helper.make_node("Div", [pooled, norm], ["vectors"]))
    return _serialize(graph, ["ids", "mask"], "vectors")


def _logits(graph: _Graph, files: ModelFiles) -> bytes:
    if "classifier.weight" not in graph.weights or len(graph.weights["classifier.weight"]) != 1:
        raise ModelMissing(f"{files.name} is no cross-encoder: it does not give a pair of texts one score.")
    types = graph.add("Gather", [graph.weight("embeddings.token_type_embeddings.weight"), "types"])
    table = graph.weights["embeddings.position_embeddings.weight"]
    state = _encoder(graph, files, graph.add("Add", [_words(graph), types]), table)
    pooled = graph.add("Tanh", [_dense(graph, "pooler.dense", _first(graph, state))])
    graph.nodes.append(helper.make_node("Identity", [_dense(graph, "classifier", pooled)], ["logits"]))
    return _serialize(graph, ["ids", "mask", "types"], "logits")


def _words(graph: _Graph) -> str:
    return graph.add("Gather", [graph.weight("embeddings.word_embeddings.weight"), "ids"])


def _encoder(graph: _Graph, files: ModelFiles, words: str, table: Array) -> str:
    config = files.config
    heads, epsilon = int(config["num_attention_heads"]), float(config["layer_norm_eps"])
    mask = graph.add("Cast", ["mask"], to=TensorProto.INT32)
    # Positions are the same for every text: a batch takes the first rows of their table.
    positions = graph.own("positions", table[: files.window])
    length = graph.add("Shape", ["ids"], start=1, end=2)
    positions = graph.add("Slice", [positions, graph.integers([0]), length, graph.integers([0])])
    state = _norm(graph, "embeddings.LayerNorm", graph.add("Add", [words, positions]), epsilon)
    for number in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{number}"
        attended = _attention(graph, f"{layer}.attention", state, mask, heads)
        state = _add_and_norm(graph, f"{layer}.attention.output", attended, state, epsilon)
        inner = graph.add("MatMul", [state, graph.weight(f"{layer}.intermediate.dense.weight", transpose=True)])
        inner = graph.add("BiasGelu", [inner, graph.weight(f"{layer}.intermediate.dense.bias")], domain=FUSED)
        state = _add_and_norm(graph, f"{layer}.output", inner, state, epsilon)
    return state


def _attention(graph: _Graph, name: str, state: str, mask: str, heads: int) -> str:
    parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([graph.weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([graph.weights[f"{part}.bias"] for part in parts])
    inputs = [state, graph.own(f"{name}.weight", np.ascontiguousarray(weight)), graph.own(f"{name}.bias", bias), mask]
    return graph.add("Attention", inputs, domain=FUSED, num_heads=heads)


def _add_and_norm(graph: _Graph, name: str, inner: str, state: str, epsilon: float) -> str:
    """How a half of a layer ends: a dense layer, added to what went into the half."""
    new = graph.add("MatMul", [inner, graph.weight(f"{name}.dense.weight", transpose=True)])
    scale, shift = (graph.weight(f"{name}.LayerNorm.{part}") for part in ("weight", "bias"))
    inputs = [new, state, scale, shift, graph.weight(f"{name}.dense.bias")]
    return graph.add("SkipLayerNormalization", inputs, domain=FUSED, epsilon=epsilon)


def _dense(graph: _Graph, name: str, state: str) -> str:
    product = graph.add("MatMul", [state, graph.weight(f"{name}.weight", transpose=True)])
    return graph.add("Add", [product, graph.weight(f"{name}.bias")])


def _norm(graph: _Graph, name: str, state: str, epsilon: float) -> str:
    scale, shift = (graph.weight(f"{name}.{part}") for part in ("weight", "bias"))
    return graph.add("LayerNormalization", [state, scale, shift], axis=-1, epsilon=epsilon)


def _mean(graph: _Graph, state: str) -> str:
    """The mean over the tokens of each text. Its length does not matter, since it is made 1 in the end."""
    weights = graph.add("Unsqueeze", [graph.add("Cast", ["mask"], to=TensorProto.FLOAT), graph.integers([1])])
    return graph.add("Squeeze", [graph.add("MatMul", [weights, state]), graph.integers([1])])


def _first(graph: _Graph, state: str) -> str:
    ends = [graph.integers([number]) for number in (0, 1, 1)]
    return graph.add("Squeeze", [graph.add("Slice", [state, *ends]), graph.integers([1])])


def _serialize(graph: _Graph, inputs: list[str], output: str) -> bytes:
    tokens = ["batch", "tokens"]
    weights = []
    for name, value in graph.used.items():
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
        weights.append(tensor)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, tokens) for name in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", None])],
            initializer=weights + graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)],
        ir_version=IR_VERSION,
    )
    return bytes(model.SerializeToString())


def _read_weights(path: Path) -> Iterator[tuple[str, Array]]:
    """A safetensors file: the size of its header, the header in JSON, and the numbers."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    size = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + size]))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin : 8 + size + end]
        if entry["dtype"] in {"F32", "F16", "BF16"}:
            yield name.removeprefix("bert."), _as_float32(raw, entry["dtype"]).reshape(entry["shape"])


def _as_float32(raw: NDArray[np.uint8], kind: str) -> Array:
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view("<f4" if kind == "F32" else "<f2").astype(np.float32)
