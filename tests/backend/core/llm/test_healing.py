"""Words that an answer was cut in."""

import pytest

from backend.core.errors import ApiError
from backend.core.events import BackendEvent, TextDelta
from backend.core.llm.base import LLMRequest, ResponseFormat
from backend.core.llm.healing import Healing, find_healing
from backend.core.llm.llamacpp_wire import ChatDecoder, chat_body
from backend.core.llm.wire import WireError
from backend.core.messages import Message
from tests.support.llm_calls import WEATHER, ask, text_of

QUESTION = Message("user", "Go on")


@pytest.mark.parametrize(
    ("begun", "healing"),
    [
        ("The capital of Fra", Healing("The capital of", " Fra")),
        ("see http://exam", Healing("see", " http://exam")),
        ("line\nnext", Healing("line\n", "next")),
        ("Fra", Healing("", "Fra")),
        ("the größ", Healing("the", " größ")),
        ("a  b", Healing("a ", " b")),
        ("Done.", None),
        ("of ", None),
        ("of\n", None),
        ("", None),
        ("word" * 40, None),  # longer than a word: no space in sight
    ],
)
def test_the_cut_word_is_found_with_the_space_before_it(begun: str, healing: Healing | None) -> None:
    assert find_healing(ask(QUESTION, Message("assistant", begun))) == healing


@pytest.mark.parametrize(
    "request_",
    [
        ask(Message("user", "Fra")),
        ask(QUESTION, Message("assistant", "Fra"), tools=(WEATHER,)),
        ask(QUESTION, Message("assistant", "Fra"), response_format=ResponseFormat()),
    ],
)
def test_there_is_nothing_to_heal_without_an_answer_or_with_another_grammar(request_: LLMRequest) -> None:
    assert find_healing(request_) is None


@pytest.mark.parametrize(
    ("piece", "literal"),
    [
        (' "hel', r" \"hel"),
        (r" C:\Us", r" C:\\Us"),
        (" größ", " größ"),
        (" [a-z]*{b}", " [a-z]*{b}"),
        ("\x01a\u200b", r"\U00000001a\U0000200B"),
    ],
)
def test_the_grammar_takes_any_piece_literally(piece: str, literal: str) -> None:
    assert Healing("", piece).grammar == f'root ::= "{literal}" [^\\x00]*'


def test_the_model_gets_the_text_before_the_word() -> None:
    request = ask(QUESTION, Message("assistant", "The capital of Fra"))
    body = chat_body(request, find_healing(request))
    assert body["messages"][-1] == {"role": "assistant", "content": "The capital of"}
    assert body["grammar"].startswith('root ::= " Fra"')


def test_where_nothing_is_before_the_word_the_answer_begins_with_it() -> None:
    request = ask(QUESTION, Message("assistant", "Fra"))
    assert [message["role"] for message in chat_body(request, find_healing(request))["messages"]] == ["user"]


def healed(deltas: list[str], piece: str = " Fra") -> list[BackendEvent]:
    decoder = ChatDecoder(ask(), Healing("The capital of", piece))
    events: list[BackendEvent] = []
    for delta in deltas:
        events += decoder.feed(b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % delta.encode())
    return events


@pytest.mark.parametrize(
    "deltas", [[" France", " is"], [" ", "F", "ra", "nce is"], [" Fra", "nce", " is"], [" Fr", "ance is"]]
)
def test_the_piece_is_taken_off_whatever_tokens_it_comes_in(deltas: list[str]) -> None:
    events = healed(deltas)
    assert text_of(events) == "nce is"
    assert all(isinstance(event, TextDelta) and event.text for event in events)


def test_an_answer_that_ignores_the_grammar_is_a_failure() -> None:
    with pytest.raises((WireError, ApiError)):
        healed([" Italy"])
