"""From a query to passages, over one or several collections.

The words are looked up and the query is embedded; each collection says what its two indexes find, and one ranking
is made of it all (`find`). A re-ranker may order it anew (`Candidates.ordered_by`). The best chunks become passages
(`present`): chunks that follow each other are joined, and what another document says in nearly the same words is only
named. Blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.core.documents.records import Collection, Document, Passage

from .embedder import Vectors
from .fused import Fingerprint, Hit, Key, fuse, join_chunks, merge, runs
from .shelf import Matches, OpenCollection
from .store import StoredChunk

DEPTH = 100  # of each ranking
MAX_QUERY = 20_000  # characters; the model reads a few thousand of them at most
LOOKED_AT_TIMES = 4  # as many chunks as passages are asked for are looked at: some are joined, some are the same
MAX_AROUND = 5
RERANKED = 30  # chunks at most that a re-ranker reads

Sources = Sequence[tuple[Collection, OpenCollection]]


@dataclass(frozen=True, slots=True)
class Query:
    text: str
    vector: Vectors
    limit: int
    matches: Matches | None = None
    around: int = 0
    at_least: int = 0  # so many chunks are looked at, however few passages are asked for


@dataclass(slots=True)
class _Found:
    """A passage on its way: chunks that follow each other, and the best hit among them."""

    place: int  # of its collection
    chunks: list[StoredChunk]
    best: Hit
    also_in: list[str]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What was found, best first."""

    hits: list[Hit]
    chunks: dict[Key, StoredChunk]
    documents: list[dict[int, Document]]  # of each collection

    def best_texts(self) -> list[str]:
        return [self.chunks[hit.key].text for hit in self.hits[:RERANKED]]

    def ordered_by(self, scores: Sequence[float]) -> "Candidates":
        """The same, ordered by scores for the best texts. What nobody scored stays behind them, in its order."""
        best = [replace(hit, score=score) for hit, score in zip(self.hits, scores, strict=False)]
        lowest = min(scores, default=1.0)
        rest = [replace(hit, score=hit.score * lowest) for hit in self.hits[len(best) :]]
        return replace(self, hits=[*sorted(best, key=lambda hit: -hit.score), *rest])


def find(collections: Sources, query: Query) -> Candidates:
    found = [opened.search(query.text, query.vector, DEPTH, query.matches) for _, opened in collections]
    dense = merge({place: one.dense for place, one in enumerate(found)}, DEPTH)
    lexical = merge({place: one.lexical for place, one in enumerate(found)}, DEPTH)
    hits = fuse(dense, lexical)[: max(query.limit * LOOKED_AT_TIMES, query.at_least)]
    chunks = {
        (place, number): chunk
        for place, (_, opened) in enumerate(collections)
        for number, chunk in opened.store.chunks([hit.key[1] for hit in hits if hit.key[0] == place]).items()
    }
    documents = [
        opened.store.documents_by_number({chunk.document for (own, _), chunk in chunks.items() if own == place})
        for place, (_, opened) in enumerate(collections)
    ]
    # A document may be deleted while we look.
    hits = [hit for hit in hits if hit.key in chunks and chunks[hit.key].document in documents[hit.key[0]]]
    return Candidates(hits, chunks, documents)


def present(collections: Sources, query: Query, candidates: Candidates) -> list[Passage]:
    passages = _join(_fold(candidates, query.limit))
    for place, (_, opened) in enumerate(collections):
        missing = [one for one in passages if one.place == place and not one.best.similarity]
        known = opened.similarity([one.best.key[1] for one in missing], query.vector)
        for one in missing:
            one.best = replace(one.best, similarity=known.get(one.best.key[1], 0.0))
    return [
        _passage(one, collections[one.place], candidates.documents[one.place][one.chunks[0].document], query.around)
        for one in passages
    ]


def _fold(candidates: Candidates, limit: int) -> list[_Found]:
    """The best hits, each with the names of the documents that say the same."""
    found: list[tuple[Fingerprint, _Found]] = []
    for hit in candidates.hits:
        chunk = candidates.chunks[hit.key]
        name = candidates.documents[hit.key[0]][chunk.document].name
        own = Fingerprint(chunk.text)
        same = next((one for other, one in found if own.says_the_same_as(other)), None)
        if same is None:
            if len(found) < limit:
                found.append((own, _Found(hit.key[0], [chunk], hit, [])))
        elif name not in same.also_in and (same.place, same.chunks[0].document) != (hit.key[0], chunk.document):
            same.also_in.append(name)
    return [one for _, one in found]


def _join(passages: list[_Found]) -> list[_Found]:
    """The same, with those that follow each other made one, in the place of the better one."""
    joined: list[_Found] = []
    for place in {one.place for one in passages}:
        own = {one.chunks[0].id: one for one in passages if one.place == place}
        for run in runs(one.chunks[0] for one in own.values()):
            members = [own[chunk.id] for chunk in run]
            best = max(members, key=lambda one: one.best.score)
            also_in = dict.fromkeys(name for one in members for name in one.also_in)
            joined.append(_Found(place, run, best.best, list(also_in)))
    return sorted(joined, key=lambda one: (-one.best.score, -one.best.similarity, one.best.key))


def _passage(found: _Found, source: tuple[Collection, OpenCollection], document: Document, around: int) -> Passage:
    collection, opened = source
    first, last = found.chunks[0], found.chunks[-1]
    text = join_chunks(found.chunks)
    context = text
    if around := min(around, MAX_AROUND):
        near = opened.store.chunks_around(first.document, first.position - around, last.position + around)
        context = join_chunks(near) or text
    return Passage(
        collection_id=collection.id,
        document_id=document.id,
        document=document.name,
        title=document.title,
        page=first.page,
        last_page=last.last_page,
        section=first.section,
        text=text,
        context=context,
        score=round(found.best.score, 4),
        similarity=round(found.best.similarity, 4),
        attributes=document.attributes,
        also_in=tuple(found.also_in),
    )
