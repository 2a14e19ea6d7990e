"""Collections over a small model with random weights: words are found, and vectors are merely there."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.core.documents.reading import DocumentReaders
from config import Settings
from tests.support.tiny_bert import make_tiny_bert
from tools.rag.collections import Collections
from tools.rag.embedder import Embedder
from tools.rag.reranker import Reranker


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@asynccontextmanager
async def opened_embedder(model: Path) -> AsyncIterator[Embedder]:
    embedder = Embedder(str(model), threads=1)
    await embedder.start()
    try:
        yield embedder
    finally:
        await embedder.close()


@asynccontextmanager
async def collections_over(
    embedder: Embedder, data_dir: Path, reranker: Reranker | None = None, **settings: Any
) -> AsyncIterator[Collections]:
    collections = Collections(Settings(DATA_DIR=data_dir, **settings), embedder, DocumentReaders(), reranker)
    await collections.start()
    try:
        yield collections
    finally:
        await collections.close()


@asynccontextmanager
async def opened_collections(data_dir: Path, model: Path, **settings: Any) -> AsyncIterator[Collections]:
    async with opened_embedder(model) as embedder, collections_over(embedder, data_dir, **settings) as collections:
        yield collections


@pytest.fixture
async def collections(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Collections]:
    async with opened_collections(tmp_path / "data", tiny_model) as opened:
        yield opened


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Make a file of a name with a text, to be added."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write_file
