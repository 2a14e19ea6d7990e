from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.errors import AnswerInterrupted
from backend.core.events import BackendEvent, Completed, ReasoningDelta, TextDelta, ToolCallDelta
from backend.core.llm.base import LLMRequest, ResponseFormat, Sampling
from backend.core.llm.continuation import COINCIDENCE, Seam, Sent, ask_to_continue
from backend.core.messages import Message, ToolCall
from tests.support.scripted import ask, text_of

words = st.text(alphabet="ab \n", min_size=1, max_size=40)  # few letters: repetitions and chance matches abound
DONE = Completed("stop")


def sent_of(*texts: str, reasoned: bool = False, called: bool = False) -> Sent:
    return Sent(list(texts), reasoned, called)


def join(sent: str, pieces: list[str], *, continues: bool, end: BackendEvent = DONE) -> list[BackendEvent]:
    seam = Seam(sent_of(sent), continues=continues)
    stream = [*map(TextDelta, pieces), end]
    return [event for arrived in stream for event in seam.join(arrived)]


@st.composite
def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(text=words, data=st.data())
def test_an_answer_begun_anew_loses_exactly_its_overlap_wherever_it_was_cut(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(text)))
    pieces = data.draw(pieces_of(text))
    for continues in (False, True):
        assert text[:cut] + text_of(join(text[:cut], pieces, continues=continues)) == text


def test_the_overlap_is_dropped_at_every_position_and_for_every_size_of_delta() -> None:
    text = "Die Antwort ist 42 – naïve, 💥 and\n\nmore."
    for cut in range(1, len(text) + 1):
        for size in (1, 2, 3, 7, 100):
            pieces = [text[start : start + size] for start in range(0, len(text), size)]
            assert text[:cut] + text_of(join(text[:cut], pieces, continues=False)) == text


@given(sent=words, fresh=words, data=st.data())
def test_a_fresh_answer_is_joined_only_if_it_repeats_all_of_what_was_sent(
    sent: str, fresh: str, data: st.DataObject
) -> None:
    pieces = data.draw(pieces_of(fresh))
    if fresh.startswith(sent):
        assert sent + text_of(join(sent, pieces, continues=False)) == fresh
    else:
        with pytest.raises(AnswerInterrupted):
            join(sent, pieces, continues=False)


@given(sent=words, rest=words, data=st.data())
def test_new_text_is_passed_on_whole_but_for_what_repeats_the_answer(sent: str, rest: str, data: st.DataObject) -> None:
    """For a backend that continues, whatever it says: nothing is altered, and nothing said a second time."""
    pieces = data.draw(pieces_of(rest))
    repeated = next(at for at in range(len(rest), -1, -1) if sent.startswith(rest[:at]))
    space = sent[len(sent.rstrip()) :]
    try:
        joined = text_of(join(sent, pieces, continues=True))
    except AnswerInterrupted:
        assert repeated >= COINCIDENCE  # a part of the answer was repeated: cannot be told
        return
    if rest.startswith(sent):
        assert joined == rest[len(sent) :]
    else:
        assert repeated < COINCIDENCE
        assert rest.endswith(joined)
        assert space.startswith(rest[: len(rest) - len(joined)])  # only space that was there already


def test_what_repeats_a_longer_part_and_then_differs_is_refused() -> None:
    with pytest.raises(AnswerInterrupted):
        join("The capital of France is Paris.", ["The capital ", "of Spain"], continues=True)


def test_a_few_characters_alike_by_chance_are_no_repetition() -> None:
    assert text_of(join("The cat sat. ", ["The", " dog ran."], continues=True)) == "The dog ran."


def test_an_answer_that_ends_within_the_overlap_is_refused() -> None:
    for continues in (False, True):
        with pytest.raises(AnswerInterrupted):
            join("The capital of France is Paris.", ["The capital"], continues=continues)


def test_an_answer_that_was_complete_already_just_ends() -> None:
    assert join("All of it.", [], continues=True) == [DONE]
    assert join("All of it.", ["All ", "of it."], continues=False) == [DONE]


def test_space_at_the_seam_is_not_doubled() -> None:
    assert text_of(join("One.\n\n", ["\n", "\nTwo."], continues=True)) == "Two."
    assert text_of(join("One.\n", ["\n\nTwo."], continues=True)) == "\nTwo."
    assert text_of(join("One. ", ["Two. "], continues=True)) == "Two. "


def test_reasoning_is_not_repeated() -> None:
    seam = Seam(sent_of(reasoned=True), continues=False)
    assert list(seam.join(ReasoningDelta("Let me think"))) == []
    assert list(seam.join(TextDelta("42"))) == [TextDelta("42")]


def test_whole_deltas_keep_their_logprobs_and_parts_lose_them() -> None:
    seam = Seam(sent_of("Hello wor"), continues=False)
    whole = TextDelta(" again", [{"token": " again"}])
    assert list(seam.join(TextDelta("Hello", [{"token": "Hello"}]))) == []
    assert list(seam.join(TextDelta(" world", [{"token": " world"}]))) == [TextDelta("ld")]
    assert list(seam.join(whole)) == [whole]


def test_a_tool_call_may_follow_the_joined_text_but_not_a_part_of_the_overlap() -> None:
    call = ToolCallDelta(0, "{}", "call_1", "add")
    assert join("Let me see.", ["Let me see."], continues=False, end=call) == [call]
    with pytest.raises(AnswerInterrupted):
        join("Let me see.", ["Let me"], continues=False, end=call)


def test_the_next_backend_is_given_the_partial_answer_and_the_rest_of_the_tokens() -> None:
    request = replace(ask("Count."), sampling=Sampling(temperature=0.1, max_tokens=10, seed=3))
    asked = ask_to_continue(request, sent_of("One,", " two,", " "))
    assert asked.messages == (*request.messages, Message("assistant", "One, two,"))
    assert asked.sampling == replace(request.sampling, max_tokens=7)


def test_at_least_one_token_is_asked_for() -> None:
    request = replace(ask(), sampling=Sampling(max_tokens=1))
    assert ask_to_continue(request, sent_of("a", "b")).sampling.max_tokens == 1


def test_an_answer_that_the_client_began_itself_is_continued_in_one_message() -> None:
    request = LLMRequest("m", (Message("user", "Count."), Message("assistant", "One,")))
    assert ask_to_continue(request, sent_of(" two")).messages[-1] == Message("assistant", "One, two")


def test_a_tool_call_of_an_earlier_round_is_not_continued() -> None:
    called = Message("assistant", "", (ToolCall("call_1", "add", "{}"),))
    request = LLMRequest("m", (Message("user", "Add."), called))
    assert ask_to_continue(request, sent_of("The sum")).messages == (*request.messages, Message("assistant", "The sum"))


def test_nothing_but_space_is_no_answer_to_continue() -> None:
    assert ask_to_continue(ask(), sent_of("\n\n")) == ask()


@pytest.mark.parametrize(
    ("sent", "response_format", "expected"),
    [
        (sent_of("text"), None, True),
        (sent_of(reasoned=True), None, True),
        (sent_of(reasoned=True), ResponseFormat(), True),  # the document has not begun
        (sent_of('{"a'), ResponseFormat(), False),
        (sent_of(called=True), None, False),
        (sent_of("text", called=True), None, False),
    ],
)
def test_half_a_document_and_half_a_tool_call_cannot_go_on(
    sent: Sent, response_format: ResponseFormat | None, expected: bool
) -> None:
    assert sent.can_go_on(replace(ask(), response_format=response_format)) is expected
