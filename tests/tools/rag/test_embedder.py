import asyncio
import math
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from backend.core.errors import Unavailable
from tools.rag import embedder as embedder_module
from tools.rag.embedder import Embedder, ModelMissing

# What sentence-transformers says to "The quick brown fox jumps over the lazy dog.": the first eight numbers of 384.
FOX = "The quick brown fox jumps over the lazy dog."
FOX_BEGINS = [0.04393358, 0.05893443, 0.04817836, 0.0775481, 0.02674443, -0.03762956, -0.0026051, -0.05994309]
MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
async def embedder(tiny_model: Path) -> AsyncIterator[Embedder]:
    made = Embedder(str(tiny_model), threads=1)
    await made.start()
    yield made
    await made.close()


async def pid_of(embedder: Embedder) -> int:
    assert embedder._process
    return embedder._process._process.pid


async def test_the_default_model_gives_the_numbers_of_sentence_transformers() -> None:
    embedder = Embedder(MODEL, threads=2)
    await embedder.start()
    try:
        texts = ["", "short", FOX, "word " * 1000]
        result = await embedder.embed(texts, lane="bulk")
        alone = [(await embedder.embed([text])).vectors[0] for text in texts]
    finally:
        await embedder.close()
    assert (embedder.info.dimension, embedder.info.window) == (384, 256)
    assert result.vectors[2][:8] == pytest.approx(FOX_BEGINS, abs=1e-5)
    assert np.linalg.norm(result.vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(result.vectors - np.stack(alone)).max() < 1e-5  # neighbours in a batch change nothing
    assert (result.tokens, result.cut) == ([2, 3, 12, 256], [False, False, False, True])


async def test_a_process_that_is_killed_is_replaced_and_nobody_notices(embedder: Embedder) -> None:
    before = await embedder.embed(["a"])
    os.kill(await pid_of(embedder), signal.SIGKILL)
    after = await embedder.embed(["a"])
    assert (after.vectors == before.vectors).all()
    bulk = asyncio.create_task(embedder.embed(["word " * 50] * 640, lane="bulk"))
    await asyncio.sleep(0.05)
    os.kill(await pid_of(embedder), signal.SIGKILL)  # in the middle of a batch
    assert (await bulk).vectors.shape == (640, 32)


async def test_a_process_that_hangs_is_replaced(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedder_module.TIMEOUT_S, "query", 1.0)
    hung = await pid_of(embedder)
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(Unavailable):
        await embedder.embed(["a"])
    monkeypatch.undo()
    assert len((await embedder.embed(["a"])).vectors) == 1
    assert await pid_of(embedder) != hung


async def test_a_query_does_not_wait_for_bulk(embedder: Embedder) -> None:
    texts = [f"{number} " + "word " * 60 for number in range(4000)]
    started = time.monotonic()
    bulk = asyncio.create_task(embedder.embed(texts, lane="bulk"))
    await asyncio.sleep(0.05)
    for _ in range(3):
        await embedder.embed(["a query"])
        assert not bulk.done()
    await bulk
    assert time.monotonic() - started < 60


async def test_whoever_leaves_takes_nobody_along(embedder: Embedder) -> None:
    texts = ["word " * 60] * 2000
    leaving = [asyncio.create_task(embedder.embed(texts, lane="bulk")) for _ in range(5)]
    await asyncio.sleep(0.05)
    staying = asyncio.create_task(embedder.embed(["stays"], lane="bulk"))
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    async with asyncio.timeout(20):
        assert len((await staying).vectors) == 1


async def test_no_texts_make_no_vectors_and_any_text_makes_one(embedder: Embedder) -> None:
    assert (await embedder.embed([])).vectors.shape == (0, 32)
    strange = ["", " ", "\x00", "😀" * 10_000, "x" * 1_000_000, "\u200b" * 50]
    result = await embedder.embed(strange)
    assert np.isfinite(result.vectors).all()
    assert all(math.isclose(float(np.linalg.norm(vector)), 1, abs_tol=1e-5) for vector in result.vectors)


async def test_too_many_who_wait_are_sent_away(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedder_module.MAX_WAITING, "bulk", 2)
    waiting = [asyncio.create_task(embedder.embed(["word " * 60] * 64, lane="bulk")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="Too many"):
        await embedder.embed(["one more"], lane="bulk")
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "no model in the folder"),
        ('{"model_type": "mpnet", "hidden_act": "gelu"}', "sentence-transformers"),
        ('{"model_type": "bert", "hidden_act": "gelu", "hidden_size": 32}', "cannot be read"),
    ],
)
async def test_a_model_that_cannot_be_used_says_what_is_needed(
    tmp_path: Path, tiny_model: Path, config: str | None, says: str
) -> None:
    folder = tmp_path / "model"
    if config:
        folder.mkdir()
        (folder / "config.json").write_text(config)
        (folder / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
        (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    embedder = Embedder(str(folder))
    with pytest.raises(ModelMissing, match=says):
        await embedder.start()
    with pytest.raises(Unavailable):
        await embedder.embed(["a"])
    await embedder.close()
