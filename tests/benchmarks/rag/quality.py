"""nDCG@10 and recall@10 of the dense, the word and the fused ranking, on a folder in the layout of BEIR.

    corpus.jsonl   _id, title, text       queries.jsonl   _id, text
    qrels.tsv, or qrels/test.tsv          query-id, corpus-id, score (with a line of headings)

Every document is a file that goes through the whole of `Collections.add`; its place in a ranking is that of
its best chunk.
"""

import asyncio
import csv
import json
import math
import re
import statistics
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.rag.collections import Collections
from tools.rag.fused import Key, fuse, merge

DEPTH = 10
MIN_SECTION = 300  # characters
TRIED = [(constant, weight) for constant in (5, 20, 60) for weight in (0.5, 1.0, 1.5)]  # beside those in use
_HEADING = re.compile(r"^([^\n]{4,80})\n[=\-~^*]{4,}\n", re.MULTILINE)
RETRIEVED = 100  # of each ranking, as a search does


@dataclass(frozen=True, slots=True)
class TestSet:
    corpus: dict[str, tuple[str, str]]  # id -> title, text
    queries: dict[str, str]
    judged: dict[str, dict[str, int]]  # query -> document -> how relevant it is

    __test__ = False


def read_test_set(folder: Path) -> TestSet:
    corpus = {row["_id"]: (row.get("title") or "", row["text"]) for row in _lines(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in _lines(folder / "queries.jsonl")}
    qrels = next(path for path in (folder / "qrels.tsv", folder / "qrels" / "test.tsv") if path.is_file())
    judged: dict[str, dict[str, int]] = {}
    with qrels.open(newline="") as file:
        for query, document, score in list(csv.reader(file, delimiter="\t"))[1:]:
            if int(score) > 0:
                judged.setdefault(query, {})[document] = int(score)
    return TestSet(corpus, queries, judged)


def ndcg(ranking: Sequence[str], judged: Mapping[str, int]) -> float:
    gains = [judged.get(document, 0) / math.log2(place + 2) for place, document in enumerate(ranking[:DEPTH])]
    best = sorted(judged.values(), reverse=True)[:DEPTH]
    return sum(gains) / sum(score / math.log2(place + 2) for place, score in enumerate(best))


def recall(ranking: Sequence[str], judged: Mapping[str, int]) -> float:
    return len(set(ranking[:DEPTH]) & set(judged)) / len(judged)


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def read_manuals(folder: Path, number: int = 600) -> TestSet:
    """Known items: sections of Sphinx sources (`*.rst.txt`), found by their headings, which are not in their texts."""
    corpus: dict[str, tuple[str, str]] = {}
    queries: dict[str, str] = {}
    for path in sorted(folder.rglob("*.rst.txt")):
        parts = _HEADING.split(path.read_text(encoding="utf-8"))
        for heading, text in zip(parts[1::2], parts[2::2], strict=True):
            if len(text) >= MIN_SECTION and len(heading.split()) > 1:
                key = f"s{len(corpus)}"
                corpus[key] = ("", text.replace(heading, ""))
                queries[key] = heading
    chosen = sorted(corpus, key=lambda key: zlib.crc32(corpus[key][1].encode()))[:number]  # the same ones each time
    told = Counter(queries[key] for key in chosen)
    return TestSet(
        {key: corpus[key] for key in chosen},
        {key: queries[key] for key in chosen if told[queries[key]] == 1},
        {key: {key: 1} for key in chosen},
    )


async def measure_quality(test_set: TestSet, collections: Collections, work: Path, name: str = "quality") -> str:
    """Tables of all queries and of two halves of them, with the constants of the fusion beside others."""
    for number, (title, text) in test_set.corpus.items():
        path = work / "document.md"
        body = text.removeprefix(title).strip() if text.startswith(title) else text
        await asyncio.to_thread(path.write_text, f"# {title}\n\n{body}\n" if title else body)
        if body.strip() or title:
            await collections.add("bench", name, path, f"{number}.md")
    opened = collections._open(await collections.get("bench", name))
    queries = [query for query in test_set.queries if query in test_set.judged]
    results: dict[str, dict[str, tuple[float, float]]] = {}
    for query in queries:
        vector = (await collections._embedder.embed([test_set.queries[query]], prompt="query")).vectors[0]
        found = await asyncio.to_thread(opened.search, test_set.queries[query], vector, RETRIEVED, None)
        dense, lexical = (merge({0: ranking}, RETRIEVED) for ranking in (found.dense, found.lexical))
        rankings = {"dense": [key[1] for key, _ in dense], "words (BM25)": [key[1] for key, _ in lexical]}
        rankings["fused"] = [hit.key[1] for hit in fuse(dense, lexical)]
        for constant, weight in TRIED:
            rankings[f"fused, constant {constant}, words {weight:g}"] = _fuse_with(dense, lexical, constant, weight)
        chunks = await asyncio.to_thread(
            opened.store.chunks, sorted({one for each in rankings.values() for one in each})
        )
        documents = await asyncio.to_thread(
            opened.store.documents_by_number, {chunk.document for chunk in chunks.values()}
        )
        for ranked_by, ranking in rankings.items():
            ids = list(dict.fromkeys(documents[chunks[one].document].name.removesuffix(".md") for one in ranking))
            judged = test_set.judged[query]
            results.setdefault(ranked_by, {})[query] = (ndcg(ids, judged), recall(ids, judged))
    halves = [[query for query in queries if zlib.crc32(query.encode()) % 2 == half] for half in (0, 1)]
    lines = [
        f"{name}: {len(test_set.corpus)} documents, {len(queries)} queries, in halves {[len(half) for half in halves]}",
        "| ranking | nDCG@10 | recall@10 | first half | second half |",
        "| --- | --: | --: | --: | --: |",
    ]
    for ranked_by, own in results.items():
        whole = [statistics.fmean(scores[place] for scores in own.values()) for place in (0, 1)]
        parts = [statistics.fmean(own[query][0] for query in half) for half in halves]
        lines.append(f"| {ranked_by} | " + " | ".join(f"{value:.3f}" for value in (*whole, *parts)) + " |")
    return "\n".join(lines)


def _fuse_with(
    dense: Sequence[tuple[Key, float]], lexical: Sequence[tuple[Key, float]], constant: int, weight: float
) -> list[int]:
    points: Counter[int] = Counter()
    for ranking, worth in ((dense, 1.0), (lexical, weight)):
        for rank, (key, _) in enumerate(ranking, 1):
            points[key[1]] += worth / (constant + rank)  # type: ignore[assignment]
    return [number for number, _ in points.most_common()]
