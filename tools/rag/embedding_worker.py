"""The process that runs the embedding or re-ranking model: `python -m tools.rag.embedding_worker MODEL THREADS`.

    frame  = size of head, size of body (two 32-bit numbers), head (JSON), body
    here  -> ready {fingerprint, dimension, window, tokenizer} | missing {reason}, once
    asked -> {id, lane, prompt, texts} | {lane, drop: id}: nobody waits for that one any more
    here  -> {id, tokens, cut} with the vectors as the body, or {id, error}

With `--rerank` behind it, {id, lane, query, texts} is answered by a score of 0 to 1 for each text as the body.

Two threads work, one for queries and one for bulk; the latter has the lower priority in the kernel, and so a query runs
beside a batch and not behind it. The process ends when its input does.
"""

import json
import os
import queue
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from .model_files import ModelFiles, ModelMissing, find_model

HEAD = struct.Struct("<II")
BATCH_TOKENS = 1024  # of a batch with its padding: larger ones leave the processor's cache and gain nothing
NICENESS = {"query": 0, "bulk": 10}
FIRST = "The first call prepares what all the others use."
RERANK_OWNER = "cross-encoder"  # on the hub, of names without one
MAX_CHARACTERS_A_TOKEN = 40  # what lies behind so many is not even looked at

Vectors = NDArray[np.float32]
Encoded = tuple[Vectors, list[int], list[bool]]
Answer = Callable[[dict[str, Any]], tuple[dict[str, Any], Vectors]]  # what was asked -> head and body


class Encoder(Protocol):
    dimension: int

    def encode(self, texts: Sequence[str]) -> Encoded: ...


class Runtime:
    """A graph of `bert_graph` on onnxruntime: a sixth of PyTorch's memory, a tenth of its start, and as fast."""

    def __init__(self, files: ModelFiles, threads: int, graph: bytes, weights: dict[str, Vectors]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between two batches would take the processor from everybody else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._pad = int(files.config.get("pad_token_id") or 0)

    def run(self, dimension: int, ids: Sequence[Sequence[int]], **others: Sequence[Sequence[int]]) -> Vectors:
        """A row of the output for each row of tokens. `others` are further inputs of the same form."""
        result = np.empty((len(ids), dimension), np.float32)
        for batch in _batches(ids):
            mask = [[1] * len(ids[number]) for number in batch]
            inputs = {"ids": _padded([ids[number] for number in batch], self._pad), "mask": _padded(mask, 0)}
            for name, rows in others.items():
                inputs[name] = _padded([rows[number] for number in batch], 0)
            result[batch] = self._session.run(None, inputs)[0]
        return result


class Bert:
    """A BERT that embeds."""

    def __init__(self, files: ModelFiles, threads: int) -> None:
        from . import bert_graph
        from .tokens import load_tokenizer

        self._runtime = Runtime(files, threads, *bert_graph.build(files))
        self._tokenizer = load_tokenizer(files.folder / "tokenizer.json")
        self._marks = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._window = files.window
        self._lower = files.lower_case
        self.dimension = int(files.config["hidden_size"])

    def encode(self, texts: Sequence[str]) -> Encoded:
        longest = self._window * MAX_CHARACTERS_A_TOKEN
        pieces = [text[:longest].lower() if self._lower else text[:longest] for text in texts]
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(pieces)]
        cut = [len(row) > self._window or len(text) > longest for row, text in zip(rows, texts, strict=True)]
        # The closing mark stays the last token of a text that is cut.
        rows = [row if len(row) <= self._window else [*row[: self._window - 1], row[-1]] for row in rows]
        return self._runtime.run(self.dimension, rows), [len(row) for row in rows], cut


class CrossEncoder:
    """A BERT that reads a query and a text together, and says how well they go together."""

    def __init__(self, files: ModelFiles, threads: int) -> None:
        from . import bert_graph
        from .tokens import load_tokenizer

        if not files.is_bert:
            kind = files.config.get("model_type", "unknown")
            raise ModelMissing(f"{files.name} is of the kind {kind}, and re-ranking needs a BERT in safetensors.")
        self._runtime = Runtime(files, threads, *bert_graph.build_cross_encoder(files))
        self._tokenizer = load_tokenizer(files.folder / "tokenizer.json")
        self._tokenizer.enable_truncation(files.window, strategy="longest_first")
        self._longest = files.window * MAX_CHARACTERS_A_TOKEN

    def score(self, query: str, texts: Sequence[str]) -> Vectors:
        pairs = [(query[: self._longest], text[: self._longest]) for text in texts]
        rows = self._tokenizer.encode_batch_fast(pairs)
        types = [row.type_ids for row in rows]
        logits = self._runtime.run(1, [row.ids for row in rows], types=types).astype(np.float64)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)


class SentenceTransformers:
    """Any other model, where sentence-transformers is installed."""

    def __init__(self, files: ModelFiles, threads: int) -> None:
        try:
            import torch  # type: ignore[import-not-found, unused-ignore]
            from sentence_transformers import (  # type: ignore[import-not-found, unused-ignore]
                SentenceTransformer,
            )
        except ImportError as error:
            kind = files.config.get("model_type", "unknown")
            raise ModelMissing(
                f"{files.name} is of the kind {kind}, which needs sentence-transformers: "
                "install it (pip install sentence-transformers), or choose a BERT such as all-MiniLM-L6-v2."
            ) from error
        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(files.folder), device="cpu")
        self._window = files.window
        self.dimension = int(self._model.get_sentence_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> Encoded:
        longest = self._window * MAX_CHARACTERS_A_TOKEN
        pieces = [text[:longest] for text in texts]
        sizes = [len(ids) for ids in self._model.tokenizer(pieces)["input_ids"]]
        vectors = self._model.encode(pieces, normalize_embeddings=True, show_progress_bar=False)
        cut = [size > self._window or len(text) > longest for size, text in zip(sizes, texts, strict=True)]
        return np.asarray(vectors, np.float32), [min(size, self._window) for size in sizes], cut


@dataclass(slots=True)
class Lane:
    waiting: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    dropped: set[int] = field(default_factory=set)


class Worker:
    def __init__(self, answer: Answer, output: BinaryIO) -> None:
        self._answer = answer
        self._output = output
        self._lock = threading.Lock()
        self._lanes = {name: Lane() for name in NICENESS}

    def serve(self, source: BinaryIO) -> None:
        """Do what is asked until the input ends. The one who asks bounds how much waits here."""
        for name, lane in self._lanes.items():
            threading.Thread(target=self._work, args=(lane, NICENESS[name]), daemon=True).start()
        while frame := read_frame(source):
            asked, _ = frame
            lane = self._lanes[asked["lane"]]
            if "drop" in asked:
                lane.dropped.add(asked["drop"])
            else:
                lane.waiting.put(asked)

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        with self._lock:
            write_frame(self._output, head, body)

    def _work(self, lane: Lane, niceness: int) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        while True:
            asked = lane.waiting.get()
            if asked["id"] in lane.dropped:
                lane.dropped.discard(asked["id"])
                continue
            try:
                head, vectors = self._answer(asked)
            except Exception as error:  # one request's trouble, which its sender is told of
                self.send({"id": asked["id"], "error": f"{type(error).__name__}: {error}"})
            else:
                self.send({"id": asked["id"]} | head, vectors.tobytes())


def read_frame(source: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next frame, or None at the end of the input."""
    sizes = source.read(HEAD.size)
    if len(sizes) < HEAD.size:
        return None
    head_size, body_size = HEAD.unpack(sizes)
    return json.loads(source.read(head_size)), source.read(body_size)


def write_frame(output: BinaryIO, head: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(head).encode()
    output.write(HEAD.pack(len(text), len(body)) + text + body)
    output.flush()


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The numbers of rows of like length, so that hardly anything is padding."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number])):
        if batch and (len(batch) + 1) * len(rows[number]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _padded(rows: Sequence[Sequence[int]], filler: int) -> NDArray[np.int64]:
    """Rows of which the last is the longest."""
    table = np.full((len(rows), len(rows[-1])), filler, np.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def _open_encoder(name: str, threads: int) -> tuple[ModelFiles, int, Answer]:
    files = find_model(name)
    encoder: Encoder = Bert(files, threads) if files.is_bert else SentenceTransformers(files, threads)
    if not (files.folder / "tokenizer.json").is_file():
        raise ModelMissing(f"{name} has no tokenizer.json, without which texts are not cut.")
    encoder.encode([FIRST])

    def answer(asked: dict[str, Any]) -> tuple[dict[str, Any], Vectors]:
        prompt = files.prompts.get(asked["prompt"], "")
        vectors, tokens, cut = encoder.encode([prompt + text for text in asked["texts"]])
        return {"tokens": tokens, "cut": cut}, vectors

    return files, encoder.dimension, answer


def _open_cross_encoder(name: str, threads: int) -> tuple[ModelFiles, int, Answer]:
    files = find_model(name, RERANK_OWNER)
    encoder = CrossEncoder(files, threads)
    encoder.score(FIRST, [FIRST])
    return files, 1, lambda asked: ({}, encoder.score(asked["query"], asked["texts"]))


def main() -> NoReturn:
    name, threads, rerank = sys.argv[1], int(sys.argv[2]), "--rerank" in sys.argv[3:]
    source = sys.stdin.buffer
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print does not belong into the frames
    try:
        files, dimension, answer = (_open_cross_encoder if rerank else _open_encoder)(name, threads)
    except ModelMissing as error:
        setting = "RAG_RERANK_MODEL" if rerank else "RAG_EMBEDDING_MODEL"
        write_frame(output, {"missing": f"{setting}: {error}"})
        sys.exit(1)
    worker = Worker(answer, output)
    ready = {"fingerprint": files.fingerprint(), "dimension": dimension, "window": files.window}
    worker.send(ready | {"tokenizer": str(files.folder / "tokenizer.json")})
    worker.serve(source)
    output.flush()
    os._exit(0)  # threads in the middle of a batch are not waited for


if __name__ == "__main__":
    main()
