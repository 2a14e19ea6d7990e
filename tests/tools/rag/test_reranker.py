"""Re-ranking with a cross-encoder of random weights: what it says is arbitrary, and known exactly."""

import asyncio
import json
import math
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.core.errors import Unavailable
from config import Settings
from tests.support.tiny_bert import HEADS, HIDDEN, make_tiny_bert
from tests.tools.rag.conftest import collections_over, opened_embedder
from tools.rag import reranker as reranker_module
from tools.rag.collections import Collections
from tools.rag.reranker import Reranker
from tools.rag.tokens import load_tokenizer
from tools.rag.tool import Rag

Array = np.ndarray[Any, np.dtype[np.float64]]

WINDOW = 64
QUERY = "who feeds the gulls"
TEXTS = [
    "The lighthouse keeper feeds forty gulls at noon.",
    "Gulls nest on the northern cliff, where nobody feeds them.",
    "Whoever feeds the gulls pays a fine of ten crowns.",
    "The gulls were counted in spring.",
    "A gull. " * 100,
]


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "cross", seed=3, window=WINDOW, labels=1)


@pytest.fixture
async def reranker(cross_encoder: Path) -> AsyncIterator[Reranker]:
    made = Reranker(str(cross_encoder), threads=1)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def collections(tmp_path: Path, tiny_model: Path, reranker: Reranker) -> AsyncIterator[Collections]:
    async with (
        opened_embedder(tiny_model) as embedder,
        collections_over(embedder, tmp_path / "data", reranker) as opened,
    ):
        for number, text in enumerate(TEXTS[:4]):
            path = tmp_path / f"{number}.txt"
            path.write_text(text)
            await opened.add("alice", "default", path, path.name)
        yield opened


def read_weights(folder: Path) -> dict[str, Array]:
    data = (folder / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    return {
        name.removeprefix("bert."): np.frombuffer(
            data[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]], "<f4"
        )
        .reshape(entry["shape"])
        .astype(np.float64)
        for name, entry in json.loads(data[8:begin]).items()
    }


def plain_score(folder: Path, query: str, text: str) -> float:
    """The same network, step by step."""
    weights = read_weights(folder)

    def dense(name: str, state: Array) -> Array:
        return state @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, state: Array) -> Array:
        centred = state - state.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    tokenizer = load_tokenizer(folder / "tokenizer.json")
    tokenizer.enable_truncation(WINDOW)
    row = tokenizer.encode(query, text)
    assert set(row.type_ids) == {0, 1}
    state = weights["embeddings.word_embeddings.weight"][row.ids]
    state = state + weights["embeddings.position_embeddings.weight"][: len(row.ids)]
    state = norm("embeddings", state + weights["embeddings.token_type_embeddings.weight"][row.type_ids])
    layer = "encoder.layer.0"
    parts = [dense(f"{layer}.attention.self.{part}", state) for part in ("query", "key", "value")]
    asked, keys, values = (part.reshape(len(row.ids), HEADS, -1).transpose(1, 0, 2) for part in parts)
    weight = asked @ keys.transpose(0, 2, 1) / math.sqrt(HIDDEN / HEADS)
    weight = np.exp(weight - weight.max(-1, keepdims=True))
    seen = (weight / weight.sum(-1, keepdims=True) @ values).transpose(1, 0, 2).reshape(len(row.ids), HIDDEN)
    state = norm(f"{layer}.attention.output", dense(f"{layer}.attention.output.dense", seen) + state)
    inner = dense(f"{layer}.intermediate.dense", state)
    inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
    state = norm(f"{layer}.output", dense(f"{layer}.output.dense", inner) + state)
    logit = dense("classifier", np.tanh(dense("pooler.dense", state[0])))
    return float(1 / (1 + np.exp(-logit[0])))


async def until_ready(reranker: Reranker) -> None:
    async with asyncio.timeout(30):
        while not reranker.is_ready:
            await asyncio.sleep(0.05)


async def test_scores_are_those_of_the_network_also_where_a_pair_is_cut(
    reranker: Reranker, cross_encoder: Path
) -> None:
    expected = [plain_score(cross_encoder, QUERY, text) for text in TEXTS]
    assert max(expected) - min(expected) > 0.01  # of random weights, but not all the same
    assert await reranker.score(QUERY, TEXTS) == pytest.approx(expected, abs=1e-4)
    for text, score in zip(TEXTS, expected, strict=True):
        assert await reranker.score(QUERY, [text]) == pytest.approx([score], abs=1e-4)
    assert all(0 <= score <= 1 for score in await reranker.score("x " * 20_000, ["", "\x00", "😀" * 10_000]))


async def test_passages_come_in_the_order_of_their_scores(collections: Collections, cross_encoder: Path) -> None:
    expected = sorted(((plain_score(cross_encoder, QUERY, text), text) for text in TEXTS[:4]), reverse=True)
    passages = await collections.search("alice", ["default"], QUERY, limit=3)
    assert [passage.text for passage in passages] == [text for _, text in expected[:3]]
    assert [passage.score for passage in passages] == pytest.approx([score for score, _ in expected[:3]], abs=1e-3)


async def test_a_search_outlives_a_reranker_that_is_killed_or_hangs_and_gets_it_back(
    collections: Collections, reranker: Reranker, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def search() -> list[str]:
        return [passage.text for passage in await collections.search("alice", ["default"], QUERY)]

    ranked = await search()
    async with opened_embedder(tiny_model) as embedder, collections_over(embedder, tmp_path / "data") as plain:
        fused = [passage.text for passage in await plain.search("alice", ["default"], QUERY)]
    assert ranked != fused

    assert reranker._process
    reranker._process.kill()
    while reranker.is_ready:
        await asyncio.sleep(0.01)
    assert await search() == fused
    await until_ready(reranker)
    assert await search() == ranked

    monkeypatch.setattr(reranker_module, "SCORE_WITHIN_S", 0.3)
    monkeypatch.setattr(reranker_module, "REST_S", 0.5)
    os.kill(reranker._process._process.pid, signal.SIGSTOP)
    assert await search() == fused
    monkeypatch.undo()
    await asyncio.sleep(0.6)
    assert await search() in (fused, ranked)  # and has another one started
    await until_ready(reranker)
    assert await search() == ranked


@pytest.mark.parametrize(
    ("labels", "kind", "says"),
    [(0, "bert", "no cross-encoder"), (2, "bert", "no cross-encoder"), (1, "roberta", "of the kind roberta")],
)
async def test_a_model_that_cannot_rerank_says_so_in_the_status_and_search_goes_on(
    tmp_path: Path, tiny_model: Path, labels: int, kind: str, says: str
) -> None:
    folder = make_tiny_bert(tmp_path / "other", labels=labels)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    settings = Settings(DATA_DIR=tmp_path / "data", RAG_EMBEDDING_MODEL=str(tiny_model), RAG_RERANK_MODEL=str(folder))
    rag = await asyncio.to_thread(Rag, settings)
    await rag.start()
    try:
        status = rag.status()
        assert status.enabled
        assert status.details["rerank_model"] == "other"
        assert "RAG_RERANK_MODEL" in status.details["reranking"]
        assert says in status.details["reranking"]
        path = tmp_path / "a.txt"
        path.write_text(TEXTS[0])
        await rag.collections.add("alice", "default", path, "a.txt")
        assert [one.text for one in await rag.collections.search("alice", [], QUERY)] == [TEXTS[0]]
    finally:
        await rag.close()


async def test_a_model_that_is_ready_is_in_the_status(tmp_path: Path, tiny_model: Path, cross_encoder: Path) -> None:
    settings = Settings(
        DATA_DIR=tmp_path / "data", RAG_EMBEDDING_MODEL=str(tiny_model), RAG_RERANK_MODEL=str(cross_encoder)
    )
    rag = await asyncio.to_thread(Rag, settings)
    await rag.start()
    try:
        assert rag.status().details["reranking"] == "ready"
    finally:
        await rag.close()


async def test_a_missing_model_is_not_looked_for_at_every_search(tmp_path: Path) -> None:
    reranker = Reranker(str(tmp_path / "none"))
    await reranker.start()
    assert "no model in the folder" in reranker.missing
    with pytest.raises(Unavailable, match="RAG_RERANK_MODEL"):
        await reranker.score(QUERY, TEXTS)
    await reranker.close()
