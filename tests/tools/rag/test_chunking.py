"""Documents as chunks, counted with the tokenizer of all-MiniLM-L6-v2."""

from itertools import pairwise
from pathlib import Path

import pytest

from backend.core.documents.document import Block
from tools.rag.chunking import Chunk, Chunker
from tools.rag.tokens import TokenCounter

SIZE = 60


@pytest.fixture(scope="module")
def counter(tiny_model: Path) -> TokenCounter:
    return TokenCounter(tiny_model / "tokenizer.json")


def cut(counter: TokenCounter, *blocks: Block, size: int = SIZE) -> list[Chunk]:
    chunker = Chunker(counter, size)
    return [*chunker.feed(blocks), *chunker.finish()]


def words(number: int, *, start: int = 0) -> str:
    return " ".join(f"gull{place}" for place in range(start, start + number))


def test_no_chunk_reaches_over_a_heading(counter: TokenCounter) -> None:
    chunks = cut(
        counter,
        Block("heading", "Sea", level=1),
        Block("paragraph", "Waves."),
        Block("heading", "Fish", level=2),
        Block("paragraph", "Cod."),
        Block("heading", "Land", level=1),
        Block("paragraph", "Hills."),
    )
    assert [(chunk.section, chunk.text) for chunk in chunks] == [
        ("Sea", "Waves."),
        ("Sea > Fish", "Cod."),
        ("Land", "Hills."),
    ]


def test_a_heading_with_nothing_below_it_is_text(counter: TokenCounter) -> None:
    chunks = cut(
        counter, Block("heading", "Title", 1, 1), Block("heading", "Next", 2, 1), Block("heading", "Sub", 2, 2)
    )
    assert [(chunk.text, chunk.page) for chunk in chunks] == [("Title", 1), ("Sub", 2)]


def test_blocks_are_put_together_until_the_next_one_does_not_fit(counter: TokenCounter) -> None:
    text = "A cat sat on the mat and looked at the wide blue sea."
    chunks = cut(counter, *(Block("paragraph", text, page) for page in range(1, 10)))
    assert all(counter.count([chunk.embedded])[0] <= SIZE for chunk in chunks)
    assert [(chunk.page, chunk.last_page) for chunk in chunks[:2]] == [(1, 4), (5, 8)]


def test_a_long_paragraph_is_cut_between_sentences_and_goes_on_with_the_last_of_them(counter: TokenCounter) -> None:
    sentences = [f"Ship {number} left." for number in range(60)]
    chunks = cut(counter, Block("paragraph", " ".join(sentences)))
    assert len(chunks) > 2
    assert all(chunk.text.endswith("left.") for chunk in chunks)
    for before, behind in pairwise(chunks):
        assert behind.overlap > 0
        assert before.text.endswith(behind.text[: behind.overlap].strip())
    assert " ".join(chunk.text[chunk.overlap :] for chunk in chunks).split() == " ".join(sentences).split()


def test_a_table_is_cut_between_rows_and_keeps_its_first_line(counter: TokenCounter) -> None:
    rows = [f"gull {number} | noon | {number * 3} fish" for number in range(40)]
    chunks = cut(counter, Block("table", "\n".join(["bird | time | meal", *rows])))
    assert len(chunks) > 2
    assert all(chunk.text.startswith("bird | time | meal\n") for chunk in chunks)
    assert [line for chunk in chunks for line in chunk.text.splitlines()[1:]] == rows


def test_code_keeps_its_indentation(counter: TokenCounter) -> None:
    lines = [f"    value_{number} = {number}" for number in range(40)]
    chunks = cut(counter, Block("code", "def f():\n" + "\n".join(lines)))
    assert len(chunks) > 1
    assert [line for chunk in chunks for line in chunk.text.splitlines()] == ["def f():", *lines]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 20_000,
        words(3000),
        "東京の天気は晴れです。" * 400,
        "天" * 5000,
        "a-b_c/d.e" * 2000,
        "\u200b" * 5000 + "end",
        "😀" * 3000,
        " ".join("ÄÖÜß"[number % 4] * 9 for number in range(2000)),
        "\n" * 1000 + "one line",
    ],
    ids=lambda text: repr(text[:8]),
)
@pytest.mark.parametrize("kind", ["paragraph", "table", "code", "row"])
def test_nothing_is_too_long_and_nothing_is_lost(counter: TokenCounter, text: str, kind: str) -> None:
    chunks = cut(counter, Block("heading", "A heading of some length", level=1), Block(kind, text))  # type: ignore[arg-type]
    assert max(counter.count([chunk.embedded])[0] for chunk in chunks) <= SIZE
    assert max(len(chunk.text) for chunk in chunks) <= SIZE * 64
    kept = "".join("".join(chunk.text[chunk.overlap :].split()) for chunk in chunks)
    assert kept == "".join(text.split())


def test_headings_take_a_small_part_of_a_chunk(counter: TokenCounter) -> None:
    long = words(40)
    (chunk,) = cut(
        counter,
        Block("heading", long, level=1),
        Block("heading", "Inner", level=2),
        Block("paragraph", "Text."),
    )
    assert (chunk.section, chunk.text) == ("Inner", "Text.")


def test_no_blocks_make_no_chunks(counter: TokenCounter) -> None:
    assert cut(counter) == []
    assert cut(counter, Block("paragraph", " \n ")) == []
