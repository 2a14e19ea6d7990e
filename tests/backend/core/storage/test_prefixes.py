import time

import pytest

from backend.core.messages import ImagePart, Message, TextPart, ToolCall
from backend.core.storage.prefixes import digest, extend

HELLO = (Message("user", "Hello"), Message("assistant", "Hi, what can I do?"))


def test_what_a_client_sends_next_has_the_digest_of_what_it_was_answered() -> None:
    seen = digest(HELLO)
    assert len(seen) == 32
    assert digest((*HELLO, Message("user", "Sing"))) == seen
    longer = (*HELLO, Message("user", "Sing"), Message("assistant", "La"))
    assert digest(longer) == extend(extend(seen, longer[2]), longer[3]) != seen


def test_without_an_answer_there_is_nothing_to_go_on_from() -> None:
    assert digest(()) == digest((Message("system", "Be kind"), Message("user", "Hello"))) == ""


@pytest.mark.parametrize(
    "echo",
    [
        "Hi, what can I do?\n\n",
        "<think>They greet me.</think>\n\nHi, what can I do?",
        '<details type="reasoning" done="true" duration="3">\n> Hm\n</details>\nHi, what can I do?',
        (TextPart("Hi, what can I do?"),),
    ],
)
def test_what_uis_change_on_the_way_does_not_count(echo: object) -> None:
    message = Message("assistant", echo)  # type: ignore[arg-type]
    assert digest((HELLO[0], message)) == digest(HELLO)
    dated = Message("system", "Today is Monday")
    assert digest((dated, HELLO[0], Message("assistant", ""), HELLO[1])) == digest(HELLO)
    assert digest((HELLO[0], Message("assistant", HELLO[1].content, reasoning="Hm", name="bot"))) == digest(HELLO)


@pytest.mark.parametrize(
    "other",
    [
        (Message("user", "Hello!"), HELLO[1]),
        (Message("user", "Hello"), Message("assistant", "Hi")),
        (Message("assistant", "Hello"), HELLO[1]),
        (HELLO[1], HELLO[0], HELLO[1]),
        (*HELLO, HELLO[1]),
        (Message("user", "<think>Hello</think>Hello"), HELLO[1]),
        (Message("user", (TextPart("Hello"), ImagePart("data:image/png;base64,AA"))), HELLO[1]),
        (HELLO[0], Message("assistant", HELLO[1].content, (ToolCall("1", "f", "{}"),))),
    ],
)
def test_what_was_really_said_counts(other: tuple[Message, ...]) -> None:
    assert digest(other) != digest(HELLO)


def test_tool_calls_count_by_name_and_arguments_and_not_by_how_their_json_is_spaced() -> None:
    def called(arguments: str, call_id: str = "call_1", name: str = "f") -> str:
        return digest((HELLO[0], Message("assistant", "", (ToolCall(call_id, name, arguments),))))

    assert called('{"b":1,"a":[2]}') == called('{ "a": [2],\n "b": 1 }', "call_2")
    assert len({called('{"a":1}'), called('{"a":2}'), called('{"a":1}', name="g"), called("{broken"), called("")}) == 5


def test_pictures_count_by_their_content() -> None:
    def shown(url: str) -> str:
        return digest((Message("user", (ImagePart(url),)), HELLO[1]))

    assert shown("data:image/png;base64,AA") == shown("data:image/png;base64,AA") != shown("data:image/png;base64,AB")


@pytest.mark.parametrize(
    "text", ["<think>" * 300_000, '<details type="reasoning"' * 100_000, "\ud800", "\x00", "<think>a"]
)
def test_no_text_is_too_strange_or_takes_long(text: str) -> None:
    began = time.process_time()
    assert digest((Message("user", text), Message("assistant", text))) != digest(HELLO)
    assert time.process_time() - began < 2
