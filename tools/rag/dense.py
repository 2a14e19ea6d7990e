"""The vectors of a collection in memory, for FAISS: a cache of the store.

Up to `EXACT_BELOW` chunks, and always with `RAG_INDEX_TYPE=Flat`, the search is exact, in half precision, read from the
store in a moment. HNSW and IVF are made from it in the background, since that takes a minute; until they are done the
exact index answers. They are kept in a file, which is checked when it is read. Blocks; one thread at a time.
"""

import json
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from .store import Changes, Ids, Mark, Vectors

IndexType = Literal["Flat", "HNSW", "IVF"]
Scored = tuple[int, float]  # the id of a chunk, and what it scores

EXACT_BELOW = 10_000  # chunks: a millisecond, at which nothing is to be gained
HNSW_NEIGHBOURS = 32
HNSW_BUILD_EFFORT = 80
HNSW_EFFORT = 128
IVF_PROBES_SHARE = 16  # one list of so many is looked at
MAX_GHOSTS_SHARE = 5  # one vector of so many may be removed before an HNSW index is made anew

_HEAD = struct.Struct("<I")

log = logging.getLogger(__name__)


class DenseIndex:
    """An index, and how far it has followed the store."""

    def __init__(self, dimension: int, kind: IndexType = "Flat", size: int = 0) -> None:
        self.kind = kind
        self.dimension = dimension
        self.mark = Mark()
        self._ghosts: set[int] = set()  # removed, and still in an index that cannot forget
        self._index = _make(kind, dimension, size)

    def __len__(self) -> int:
        return int(self._index.ntotal) - len(self._ghosts)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        links = 8 * HNSW_NEIGHBOURS if self.kind == "HNSW" else 0
        return int(self._index.ntotal) * (2 * self.dimension + 8 + links)

    @property
    def worn_out(self) -> bool:
        return len(self._ghosts) * MAX_GHOSTS_SHARE > int(self._index.ntotal)

    def follow(self, changes: Changes, ids: Ids, vectors: Vectors) -> None:
        """Apply what has changed since `mark`; `ids` and `vectors` are what is new."""
        for first, last in changes.removed:
            if self.kind == "HNSW":
                self._ghosts.update(number for number in range(first, last + 1) if number <= self.mark.last_chunk)
            elif first <= self.mark.last_chunk:
                self._index.remove_ids(faiss.IDSelectorRange(first, last + 1))
        if len(ids) and self.kind == "Flat":
            self._index.add_sa_codes(vectors.view(np.uint8), ids)  # half precision is what it keeps
        elif len(ids):
            floats = vectors.astype(np.float32)
            if not self._index.is_trained:
                self._index.train(floats)
            self._index.add_with_ids(floats, ids)
        self.mark = changes.mark

    def search(self, vector: NDArray[np.float32], limit: int, allowed: Ids | None = None) -> list[Scored]:
        if not len(self):
            return []
        parameters = self._parameters(allowed)
        found = min(limit + len(self._ghosts), int(self._index.ntotal))
        scores, ids = self._index.search(vector.reshape(1, -1), found, params=parameters)
        hits = [(int(number), float(score)) for number, score in zip(ids[0], scores[0], strict=True) if number >= 0]
        return [hit for hit in hits if hit[0] not in self._ghosts][:limit]

    def save(self, path: Path, fingerprint: str) -> None:
        """Keep it in a file, as a whole or not at all. Not one with vectors of what was removed."""
        if self._ghosts:
            return
        data = faiss.serialize_index(self._index).tobytes()
        head = {"kind": self.kind, "fingerprint": fingerprint, "size": len(data), "crc": zlib.crc32(data)}
        head |= {"generation": self.mark.generation, "last_chunk": self.mark.last_chunk}
        text = json.dumps(head).encode()
        draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with draft.open("wb") as file:
                file.writelines((_HEAD.pack(len(text)), text, data))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _parameters(self, allowed: Ids | None) -> Any:
        selector = None if allowed is None else faiss.IDSelectorBatch(allowed)
        if self.kind == "HNSW":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=HNSW_EFFORT)
        if self.kind == "IVF":
            # What a filter allows may be in any list.
            share = IVF_PROBES_SHARE if allowed is None else 1
            return faiss.SearchParametersIVF(sel=selector, nprobe=max(1, self._index.nlist // share))
        return None if selector is None else faiss.SearchParameters(sel=selector)


def load_index(path: Path, kind: IndexType, dimension: int, fingerprint: str) -> DenseIndex | None:
    """The index that was kept, or None when there is none, or not this one, or it is damaged."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.read(_HEAD.unpack(file.read(_HEAD.size))[0]))
            data = file.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error):
        head, data = {}, b""
    fits = (head.get("kind"), head.get("fingerprint"), head.get("size")) == (kind, fingerprint, len(data))
    if fits and zlib.crc32(data) == head["crc"]:
        index = DenseIndex(dimension, kind)
        index._index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        index.mark = Mark(head["generation"], head["last_chunk"])
        return index
    log.warning("rag: a kept index is damaged or of another kind: it is made anew")
    path.unlink(missing_ok=True)
    return None


def _make(kind: IndexType, dimension: int, size: int) -> Any:
    half, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    if kind == "HNSW":
        index = faiss.IndexHNSWSQ(dimension, half, HNSW_NEIGHBOURS, metric)
        index.hnsw.efConstruction = HNSW_BUILD_EFFORT
        return faiss.IndexIDMap(index)
    if kind == "IVF":
        lists = max(16, min(4096, 4 * int(size**0.5)))
        coarse = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFScalarQuantizer(coarse, dimension, lists, half, metric, False)
        index.own_fields = True
        coarse.this.disown()
        return index
    return faiss.IndexIDMap(faiss.IndexScalarQuantizer(dimension, half, metric))
