from tools.rag.fused import Fingerprint, fuse, join_chunks, merge, runs
from tools.rag.store import StoredChunk


def chunk(
    number: int, position: int, text: str, *, section: str = "", overlap: int = 0, document: int = 1
) -> StoredChunk:
    return StoredChunk(number, document, position, 1, 1, section, text, overlap)


def test_what_both_rankings_hold_comes_before_what_one_of_them_holds_higher() -> None:
    dense = [((0, 1), 0.9), ((0, 2), 0.8), ((0, 3), 0.7)]
    lexical = [((0, 4), 12.0), ((0, 2), 11.0), ((0, 3), 3.0)]
    hits = fuse(dense, lexical)
    assert [hit.key[1] for hit in hits] == [2, 3, 1, 4]
    assert all(0 < hit.score <= 1 for hit in hits)
    assert {hit.key[1]: hit.similarity for hit in hits} == {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.0}
    assert fuse(dense[:1], [((0, 1), 5.0)])[0].score == 1
    assert fuse([], []) == []


def test_rankings_of_several_collections_are_merged_by_score() -> None:
    assert merge({0: [(1, 0.9), (2, 0.1)], 1: [(1, 0.5)]}, 2) == [((0, 1), 0.9), ((1, 1), 0.5)]


def test_chunks_that_follow_each_other_are_joined_without_what_they_share() -> None:
    chunks = [chunk(7, 2, "three four"), chunk(5, 0, "one two"), chunk(6, 1, "two three", overlap=4)]
    (run,) = runs(chunks)
    assert join_chunks(run) == "one two\nthree\nthree four"
    assert len(runs([chunk(1, 0, "a"), chunk(2, 1, "b", section="other"), chunk(4, 3, "c", section="other")])) == 3
    assert len(runs([chunk(1, 0, "a"), chunk(2, 1, "b", document=2)])) == 2


def test_the_same_words_are_the_same_and_another_number_is_not() -> None:
    text = "The contract ends on 31 March, and may be renewed once by either of the two parties."
    assert Fingerprint(text).says_the_same_as(Fingerprint(text.upper() + "  "))
    assert not Fingerprint(text).says_the_same_as(Fingerprint(text.replace("31", "30")))
    assert not Fingerprint(text).says_the_same_as(Fingerprint("The contract ends on 31 March."))
