"""`python -m tests.benchmarks.rag`: see the README beside this folder."""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from backend.core.documents.reading import DocumentReaders
from config import Settings
from tests.benchmarks.rag.quality import measure_quality, read_manuals, read_test_set
from tests.benchmarks.rag.speed import SIZES, measure_ingest, measure_search, measure_together
from tools.rag.collections import Collections
from tools.rag.embedder import Embedder


async def measure(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        work = Path(place)
        settings = Settings(DATA_DIR=work / "data", RAG_INDEX_TYPE=given.index, RAG_EMBEDDING_MODEL=given.model)
        embedder = Embedder(settings.RAG_EMBEDDING_MODEL)
        await embedder.start()
        collections = Collections(settings, embedder, DocumentReaders())
        await collections.start()
        try:
            for name in ("ingest", "quality", "manuals", *(f"size-{size}" for size in given.sizes)):
                await collections.create("bench", name)
            if given.test_set and not given.no_quality:
                print(await measure_quality(read_test_set(given.test_set), collections, work), flush=True)
            if given.manuals:
                print(await measure_quality(read_manuals(given.manuals), collections, work, "manuals"), flush=True)
            if given.test_set and given.texts:
                texts = [json.loads(line)["text"] for line in (given.test_set / "corpus.jsonl").open()][: given.texts]
                print(await measure_ingest(collections, texts, work, given.peer_venv), flush=True)
                print(await measure_together(collections, texts, work), flush=True)
            print("| chunks | query p50 ms | p99 ms | open ms | delete a document ms | memory MiB |")
            print("| --: | --: | --: | --: | --: | --: |")
            for size in given.sizes:
                print(await measure_search(collections, size, work), flush=True)
        finally:
            await collections.close()
            await embedder.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="How well and how fast documents are found.")
    parser.add_argument("test_set", type=Path, nargs="?", help="a folder in the layout of BEIR, for quality and ingest")
    parser.add_argument("--manuals", type=Path, help="a folder with *.rst.txt, for quality on headings as queries")
    parser.add_argument("--peer-venv", type=Path, help="a virtual environment with sentence-transformers, to compare")
    parser.add_argument("--texts", type=int, default=400, help="documents of the test set for the ingest rate")
    parser.add_argument("--no-quality", action="store_true", help="leave the slowest part out")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--index", default="Flat", choices=["Flat", "HNSW", "IVF"])
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--folder", help="where to work; default: the system's temporary folder")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
