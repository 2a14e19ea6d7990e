"""How fast documents come in beside plain sentence-transformers, and how fast passages are found at what size.

Large collections are filled with texts of random words and random vectors: what is measured there is everything but
the model, and the query's own embedding.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backend.core.documents.records import Document
from tools.rag.chunking import Chunk
from tools.rag.collections import Collections

SIZES = (1_000, 10_000, 100_000)
CHUNKS_A_DOCUMENT = 100
WORDS_A_CHUNK = 100
VOCABULARY = 50_000
QUERIES = 200

PLAIN = """
import json, sys, time
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = json.load(sys.stdin)
model.encode(texts[:8])
started = time.perf_counter()
model.encode(texts)
print(json.dumps(time.perf_counter() - started))
"""


async def measure_ingest(collections: Collections, texts: Sequence[str], work: Path, peer: Path | None) -> str:
    """Chunks a second from files to a collection that can be searched, and of the model alone on the same chunks."""
    rng = random.Random(0)
    paths = []
    for number in range(0, len(texts), 50):
        path = work / f"{number}.txt"
        paths.append(path)
        await asyncio.to_thread(path.write_text, "\n\n".join(texts[number : number + 50]) + f"\n\n{rng.random()}")
    started = time.perf_counter()
    for path in paths:
        await collections.add("bench", "ingest", path, path.name)
    ours_s = time.perf_counter() - started
    opened = collections._open(await collections.get("bench", "ingest"))
    chunks = await asyncio.to_thread(opened.store.chunks, range(1, 1_000_000 if len(texts) > 50_000 else 50_000))
    lines = [
        "| ingest | chunks/s |",
        "| --- | --: |",
        f"| ours: read, cut, embedded, stored, indexed | {len(chunks) / ours_s:.1f} |",
    ]
    if peer:
        model = collections._embedder.info.tokenizer.parent
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            peer / "bin" / "python", "-c", PLAIN, model, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        told, _ = await process.communicate(json.dumps([chunk.text for chunk in chunks.values()]).encode())
        lines.append(f"| SentenceTransformer.encode alone | {len(chunks) / json.loads(told):.1f} |")
    return "\n".join(lines)


async def measure_search(collections: Collections, size: int, data_dir: Path) -> str:
    """A line of the table: queries, opening, deleting and memory at so many chunks."""
    name = f"size-{size}"
    collection = await collections.get("bench", name)
    opened = collections._open(collection)
    model = collections._embedder.info
    await asyncio.to_thread(_fill, opened.store, size, model.fingerprint, model.dimension)
    await asyncio.to_thread(opened.synchronize)
    collections._shelf.put_away(collections._catalog.folder(collection))
    before = _memory_mib()
    started = time.perf_counter()
    await collections.search("bench", [name], "word1 word2")
    open_ms = 1000 * (time.perf_counter() - started)
    memory = _memory_mib() - before
    times = []
    for _ in range(QUERIES):
        query = " ".join(_words(random.Random(), 5))
        started = time.perf_counter()
        await collections.search("bench", [name], query)
        times.append(1000 * (time.perf_counter() - started))
    times.sort()
    started = time.perf_counter()
    await collections.delete_document("bench", name, "3")
    delete_ms = 1000 * (time.perf_counter() - started)
    p50, p99 = statistics.median(times), times[int(0.99 * len(times))]
    return f"| {size:,} | {p50:.1f} | {p99:.1f} | {open_ms:.0f} | {delete_ms:.0f} | {memory:.0f} |"


async def measure_together(collections: Collections, texts: Sequence[str], work: Path) -> str:
    """Two who search while a third uploads."""
    path = work / "book.txt"
    await asyncio.to_thread(path.write_text, "\n\n".join(texts))
    quiet = await _search_for(collections, 40)
    upload = asyncio.create_task(collections.add("third", "default", path, "book.txt"))
    await asyncio.sleep(2)
    busy = [one for each in await asyncio.gather(*(_search_for(collections, 60) for _ in range(2))) for one in each]
    still = not upload.done()
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    rows = [("nobody uploads", quiet), (f"another uploads{'' if still else ' (and was done early)'}", busy)]
    lines = ["| searches while | p50 ms | p99 ms | slowest ms |", "| --- | --: | --: | --: |"]
    for what, times in rows:
        times = sorted(times)
        p99 = times[int(0.99 * len(times))]
        lines.append(f"| {what} | {statistics.median(times):.1f} | {p99:.1f} | {times[-1]:.1f} |")
    return "\n".join(lines)


async def _search_for(collections: Collections, number: int) -> list[float]:
    times = []
    for _ in range(number):
        started = time.perf_counter()
        await collections.search("bench", ["ingest"], " ".join(_words(random.Random(), 5)))
        times.append(1000 * (time.perf_counter() - started))
        await asyncio.sleep(0.05)
    return times


def _fill(store: object, size: int, fingerprint: str, dimension: int) -> None:
    rng, numbers = random.Random(size), np.random.default_rng(size)
    for place in range(size // CHUNKS_A_DOCUMENT):
        chunks = [Chunk(" ".join(_words(rng, WORDS_A_CHUNK)), 1, 1, "") for _ in range(CHUNKS_A_DOCUMENT)]
        vectors = numbers.standard_normal((CHUNKS_A_DOCUMENT, dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        document = Document(f"doc_{place}", str(place), str(place), 1, "", None, len(chunks), 0.0, "")
        store.put(document, fingerprint, chunks, [row.tobytes() for row in vectors.astype(np.float16)])  # type: ignore[attr-defined]


def _words(rng: random.Random, number: int) -> list[str]:
    """As words are in a language: few of them make most of a text."""
    return [f"word{min(VOCABULARY, int(rng.paretovariate(0.5)))}" for _ in range(number)]


def _memory_mib() -> float:
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
