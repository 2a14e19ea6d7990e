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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.rag.collections import Collections
from tools.rag.fused import fuse, merge

DEPTH = 10
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


async def measure_quality(folder: Path, collections: Collections, work: Path) -> str:
    """A table; the documents stay in the collection `quality`."""
    test_set = read_test_set(folder)
    for number, (title, text) in test_set.corpus.items():
        path = work / "document.md"
        body = text.removeprefix(title).strip() if text.startswith(title) else text
        await asyncio.to_thread(path.write_text, f"# {title}\n\n{body}\n" if title else body)
        if body or title:
            await collections.add("bench", "quality", path, f"{number}.md")
    opened = collections._open(await collections.get("bench", "quality"))
    queries = [query for query in test_set.queries if query in test_set.judged]
    sums: dict[str, list[float]] = {}
    for query in queries:
        vector = (await collections._embedder.embed([test_set.queries[query]], prompt="query")).vectors[0]
        found = await asyncio.to_thread(opened.search, test_set.queries[query], vector, RETRIEVED, None)
        dense, lexical = (merge({0: ranking}, RETRIEVED) for ranking in (found.dense, found.lexical))
        rankings = {
            "dense": [key[1] for key, _ in dense],
            "words (BM25)": [key[1] for key, _ in lexical],
            "fused": [hit.key[1] for hit in fuse(dense, lexical)],
        }
        chunks = await asyncio.to_thread(
            opened.store.chunks, sorted({one for each in rankings.values() for one in each})
        )
        documents = await asyncio.to_thread(
            opened.store.documents_by_number, {chunk.document for chunk in chunks.values()}
        )
        for name, ranking in rankings.items():
            ids = dict.fromkeys(documents[chunks[one].document].name.removesuffix(".md") for one in ranking)
            own = sums.setdefault(name, [0.0, 0.0])
            own[0] += ndcg(list(ids), test_set.judged[query]) / len(queries)
            own[1] += recall(list(ids), test_set.judged[query]) / len(queries)
    lines = [
        f"{len(test_set.corpus)} documents, {len(queries)} queries",
        "| ranking | nDCG@10 | recall@10 |",
        "| --- | --: | --: |",
    ]
    return "\n".join(lines + [f"| {name} | {gain:.3f} | {share:.3f} |" for name, (gain, share) in sums.items()])
