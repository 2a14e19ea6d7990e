"""The words of a collection, for BM25: a cache of the store on the disk, by tantivy.

Words are folded (case, accents) and stemmed; scripts that write no spaces are taken two characters at a time. A chunk
is found by its own text, its section, and its document's title and name. `mark.json` beside the index tells how far it
has followed the store and how large its files are: an index without it, or that does not fit it, is made anew. One
process at a time writes, the others wait. What is removed is only marked at first, and its words stay in the files
until the index is made anew (`is_clean`, `renew`). Blocks.
"""

import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tantivy
from tantivy import Filter, Occur, Query, Tokenizer

from backend.core.errors import StorageFailed, Unavailable
from backend.utils.atomic_files import write_atomically

from .dense import Scored
from .store import Changes, Mark, Store

FORMAT = 1  # goes up when the words are cut in another way
WEIGHTS = {"text": 1.0, "section": 0.5, "title": 0.5}
MAX_TERMS = 64  # of a query: the first different ones
MAX_WORD = 40  # characters; longer ones are no words
WRITER_BYTES = 30_000_000
LOCK_WAIT_S = 10.0
MARK_FILE = "mark.json"
_SEGMENT = re.compile(r"[0-9a-f]{32}")  # what the names of a segment's files begin with

# Words that questions are made of, and that say nothing about what is asked for.
_WORD = re.compile(r"\w+")
_QUESTION_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be been but by can do does for from had has have how i in into is it me no not of on or "
        "please such tell than that the their then there these they this to us was we were what when where which who "
        "whose why will with you your"
    )
)
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

Text = tuple[int, int, str, str, str]  # chunk, document, title, section, text


class LexicalIndex:
    """An index in a folder of its own, and how far it has followed the store.

    Raises (from everything):
        StorageFailed: the disk is full or broken.
        Unavailable: another process writes for longer than `LOCK_WAIT_S`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock_file = folder.with_name(f"{folder.name}.lock")  # held by who writes
        self._analyzer = _make_analyzer()
        self._schema = _make_schema()
        self.mark = Mark()
        with locked(self._lock_file):
            self._open()

    def follow(self, store: Store) -> Mark:
        """Apply what has changed in the store since `mark`; returns how far it is now."""
        with locked(self._lock_file), _translated():
            if self._read_mark() != self.mark or self._folder.stat().st_ino != self._place:
                self._open()  # another process has written, or broke off in the middle
            changes = store.changes_since(self.mark)
            if changes.mark.generation != self.mark.generation:
                (self._folder / MARK_FILE).unlink(missing_ok=True)  # until all is done
                self._write(changes, store.texts(changes))
                self.mark = changes.mark
                write_atomically(self._folder / MARK_FILE, json.dumps(self._describe()).encode())
            return self.mark

    def search(self, query: str, limit: int, documents: Sequence[int] | None = None) -> list[Scored]:
        terms = self._terms(query)
        if not terms or not self._searcher.num_docs:
            return []
        wanted = Query.boolean_query([(Occur.Should, self._anywhere(term)) for term in terms])
        if documents is not None:
            among = Query.const_score_query(Query.term_set_query(self._schema, "document", documents), 0.0)
            wanted = Query.boolean_query([(Occur.Must, wanted), (Occur.Must, among)])
        with _translated():
            hits = self._searcher.search(wanted, limit, count=False).hits
            chunks = self._searcher.fast_field_values("chunk", [address for _, address in hits])
        return [(int(chunk), score) for chunk, (score, _) in zip(chunks, hits, strict=True) if chunk is not None]

    def is_clean(self) -> bool:
        """Whether its files hold words of its chunks alone."""
        try:
            segments = json.loads((self._folder / "meta.json").read_text())["segments"]
            live = {segment["segment_id"].replace("-", "") for segment in segments}
            files = {found[0] for path in self._folder.iterdir() if (found := _SEGMENT.match(path.name))}
        except OSError:  # it is being put in place
            return False
        return files <= live and not any(segment["deletes"] for segment in segments)

    def renew(self, store: Store) -> None:
        """Make it anew beside itself and put that in its place. Until then searches find, and others write, as before.

        It has followed the store to where that was at the beginning.
        """
        with locked(self._folder.with_name(f"{self._folder.name}.renewal.lock")):
            if self.is_clean():  # another process has done it
                return
            draft = self._folder.with_name(f"{self._folder.name}.new")
            LexicalIndex.remove(draft)
            LexicalIndex(draft).follow(store)
            with locked(self._lock_file), _translated():
                shutil.rmtree(self._folder)
                draft.rename(self._folder)
                self._open()

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget the index of a folder: the next one that is opened there is empty."""
        with _translated():
            shutil.rmtree(folder, ignore_errors=True)

    def _terms(self, query: str) -> list[str]:
        words = dict.fromkeys(_WORD.findall(query.casefold()))
        telling = [word for word in words if word not in _QUESTION_WORDS] or list(words)
        return list(dict.fromkeys(self._analyzer.analyze(_space(" ".join(telling)))))[:MAX_TERMS]

    def _anywhere(self, term: str) -> Query:
        return Query.boolean_query(
            [
                (Occur.Should, Query.boost_query(Query.term_query(self._schema, field, term, "freq"), weight))
                for field, weight in WEIGHTS.items()
            ]
        )

    def _between(self, first: int, last: int) -> Query:
        return Query.range_query(self._schema, "chunk", tantivy.FieldType.Integer, first, last)

    def _write(self, changes: Changes, texts: Iterable[Text]) -> None:
        writer = self._index.writer(WRITER_BYTES, 1)
        try:
            if changes.from_scratch:
                writer.delete_all_documents()
            for first, last in changes.removed:
                writer.delete_documents_by_query(self._between(first, last))
            for chunk, document, title, section, text in texts:
                parts = {"title": title, "section": section, "text": text}
                spaced = {field: [_space(part)] for field, part in parts.items()}
                writer.add_document(tantivy.Document(chunk=chunk, document=document, **spaced))
            writer.commit()
        finally:
            writer.wait_merging_threads()
        self._index.reload()
        self._searcher = self._index.searcher()

    def _open(self) -> None:
        mark = self._read_mark()
        if mark is not None:
            try:
                self._load()
            except BaseException as error:
                if not _is_tantivys(error):
                    raise
                mark = None
        if mark is None:
            with _translated():
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder.mkdir(exist_ok=True)
                self._load()
        self.mark = mark or Mark()

    def _load(self) -> None:
        self._index = tantivy.Index(self._schema, str(self._folder))
        self._index.register_tokenizer("words", self._analyzer)
        self._index.reload()
        self._searcher = self._index.searcher()
        self._place = self._folder.stat().st_ino

    def _read_mark(self) -> Mark | None:
        try:
            kept = json.loads((self._folder / MARK_FILE).read_text())
            if kept["format"] == FORMAT and kept["files"] == self._sizes():
                return Mark(kept["generation"], kept["last_chunk"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _describe(self) -> dict[str, Any]:
        place = {"generation": self.mark.generation, "last_chunk": self.mark.last_chunk}
        return {"format": FORMAT, "files": self._sizes()} | place

    def _sizes(self) -> dict[str, int]:
        return {
            path.name: path.stat().st_size
            for path in self._folder.iterdir()
            if path.name != MARK_FILE and not path.name.endswith((".lock", ".tmp"))
        }


def _make_analyzer() -> tantivy.TextAnalyzer:
    builder = tantivy.TextAnalyzerBuilder(Tokenizer.simple())
    for step in (Filter.remove_long(MAX_WORD), Filter.lowercase(), Filter.ascii_fold(), Filter.stemmer("english")):
        builder = builder.filter(step)
    return builder.build()


def _make_schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder().add_integer_field("chunk", indexed=True, fast=True)
    builder = builder.add_integer_field("document", indexed=True)
    for field in WEIGHTS:
        builder = builder.add_text_field(field, tokenizer_name="words", index_option="freq")
    return builder.build()


def _space(text: str) -> str:
    """Words of two characters where the script has no spaces between words."""
    return _UNSPACED.sub(lambda found: f" {_pairs(found.group())} ", text)


def _pairs(run: str) -> str:
    return run if len(run) < 3 else " ".join(run[place : place + 2] for place in range(len(run) - 1))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one at a time, among all processes. A process that dies lets go of it.

    Raises:
        Unavailable: another has it for longer than `LOCK_WAIT_S`.
        StorageFailed
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    with _translated(), path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable("The collection is busy. Try again shortly.", retry_after_s=5) from None
                time.sleep(0.02)
        yield


@contextmanager
def _translated() -> Iterator[None]:
    """What tantivy raises, panics included, as ours."""
    try:
        yield
    except OSError as error:
        raise StorageFailed("The server's disk is full or cannot be written. Tell whoever runs it.") from error
    except BaseException as error:
        if not _is_tantivys(error):
            raise
        raise StorageFailed("The collection's word index failed. Try again; it is made anew.") from error


def _is_tantivys(error: Any) -> bool:
    return isinstance(error, ValueError | RuntimeError) or type(error).__name__ == "PanicException"
