"""The process that runs the embedding model: `python -m tools.rag.embedding_worker MODEL THREADS`.

    frame  = size of head, size of body (two 32-bit numbers), head (JSON), body
    here  -> ready {fingerprint, dimension, window, tokenizer} | missing {reason}, once
    asked -> {id, lane, prompt, texts} | {lane, drop: id}: nobody waits for that one any more
    here  -> {id, tokens, cut} with the vectors as the body, or {id, error}

Two threads work, one for queries and one for bulk; the latter has the lower priority in the kernel, and so a query runs
beside a batch and not behind it. The process ends when its input does.
"""

import json
import os
import queue
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from .model_files import ModelFiles, ModelMissing, find_model

HEAD = struct.Struct("<II")
BATCH_TOKENS = 1024  # of a batch with its padding: larger ones leave the processor's cache and gain nothing
NICENESS = {"query": 0, "bulk": 10}
MAX_CHARACTERS_A_TOKEN = 40  # what lies behind so many is not even looked at

Vectors = NDArray[np.float32]
Encoded = tuple[Vectors, list[int], list[bool]]


class Encoder(Protocol):
    dimension: int

    def encode(self, texts: Sequence[str]) -> Encoded: ...


class Bert:
    """A BERT on onnxruntime: a sixth of PyTorch's memory, a tenth of its start, and as fast."""

    def __init__(self, files: ModelFiles, threads: int) -> None:
        import onnxruntime

        from . import bert_graph
        from .tokens import load_tokenizer

        graph, weights = bert_graph.build(files)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between two batches would take the processor from everybody else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        options.add_external_initializers(list(weights), values)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = load_tokenizer(files.folder / "tokenizer.json")
        self._marks = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._window = files.window
        self._lower = files.lower_case
        self.dimension = int(files.config["hidden_size"])
        self._pad = int(files.config.get("pad_token_id") or 0)

    def encode(self, texts: Sequence[str]) -> Encoded:
        longest = self._window * MAX_CHARACTERS_A_TOKEN
        pieces = [text[:longest].lower() if self._lower else text[:longest] for text in texts]
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(pieces)]
        cut = [len(row) > self._window or len(text) > longest for row, text in zip(rows, texts, strict=True)]
        # The closing mark stays the last token of a text that is cut.
        rows = [row if len(row) <= self._window else [*row[: self._window - 1], row[-1]] for row in rows]
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for batch in _batches(rows):
            ids = np.full((len(batch), len(rows[batch[-1]])), self._pad, np.int64)
            mask = np.zeros_like(ids)
            for place, number in enumerate(batch):
                ids[place, : len(rows[number])] = rows[number]
                mask[place, : len(rows[number])] = 1
            vectors[batch] = self._session.run(["vectors"], {"ids": ids, "mask": mask})[0]
        return vectors, [len(row) for row in rows], cut


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
                f"RAG_EMBEDDING_MODEL: {files.name} is of the kind {kind}, which needs sentence-transformers: "
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
    def __init__(self, encoder: Encoder, prompts: dict[str, str], output: BinaryIO) -> None:
        self._encoder = encoder
        self._prompts = prompts
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
            prompt = self._prompts.get(asked["prompt"], "")
            try:
                vectors, tokens, cut = self._encoder.encode([prompt + text for text in asked["texts"]])
            except Exception as error:  # one request's trouble, which its sender is told of
                self.send({"id": asked["id"], "error": f"{type(error).__name__}: {error}"})
            else:
                self.send({"id": asked["id"], "tokens": tokens, "cut": cut}, vectors.tobytes())


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


def main() -> NoReturn:
    name, threads = sys.argv[1], int(sys.argv[2])
    source = sys.stdin.buffer
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print does not belong into the frames
    try:
        files = find_model(name)
        encoder: Encoder = Bert(files, threads) if files.is_bert else SentenceTransformers(files, threads)
        if not (files.folder / "tokenizer.json").is_file():
            raise ModelMissing(f"RAG_EMBEDDING_MODEL: {name} has no tokenizer.json, without which texts are not cut.")
        encoder.encode(["The first call prepares what all the others use."])
    except ModelMissing as error:
        write_frame(output, {"missing": str(error)})
        sys.exit(1)
    worker = Worker(encoder, files.prompts, output)
    ready = {"fingerprint": files.fingerprint(), "dimension": encoder.dimension, "window": files.window}
    worker.send(ready | {"tokenizer": str(files.folder / "tokenizer.json")})
    worker.serve(source)
    output.flush()
    os._exit(0)  # threads in the middle of a batch are not waited for


if __name__ == "__main__":
    main()
