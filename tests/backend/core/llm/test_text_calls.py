"""Calls and promises in what models write."""

import pytest

from backend.agents.gate import Gate
from backend.agents.guards import goes_in_circles
from backend.core.llm.base import ToolDefinition
from backend.core.llm.text_calls import find_calls, is_cut_call, is_promise
from backend.core.llm.toolset import Toolset

SCHEMA = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["query"],
}
TOOLS = Toolset([ToolDefinition("websearch", "", SCHEMA)])


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "websearch", "arguments": {"query": "x"}}',
        '{"tool": "websearch", "args": {"query": "x"}}',
        '{"action": "websearch", "action_input": {"query": "x"}}',
        '{"type": "function", "function": {"name": "websearch", "arguments": "{\\"query\\": \\"x\\"}"}}',
        '{"function": "websearch", "parameters": {"query": "x"}}',
        'I will.\n```json\n{"name": "functions.websearch", "arguments": {"query": "x"}}\n```\nDone.',
        '<tool_call>{"name": "websearch", "arguments": {"query": "x"}}',
        "<function=websearch><parameter=query>x</parameter></function>",
        '<|python_tag|>{"name": "websearch", "parameters": {"query": "x"}}',
        "Thought: t\nAction: websearch\nAction Input: x\nObservation: made up",
        'Action: `websearch`\nAction Input: ```json\n{"query": "x"}\n```',
        "**Action:** websearch\n**Action Input:** x",
    ],
)
def test_a_call_written_as_text_is_understood(text: str) -> None:
    (call,) = find_calls(text, TOOLS)
    name = TOOLS.find(call.name)
    assert name == "websearch"
    assert TOOLS.read_arguments(name, call.arguments) == {"query": "x"}


@pytest.mark.parametrize(
    "text",
    [
        "The name is websearch.",
        '{"name": "Ada", "arguments": {"for": "it"}}',
        '{"name": "websearch", "stars": 5, "language": "Go"}',
        "Use `websearch(query)` for it.",
        "{" * 5_000,
        '[{"a": 1}, {"b": 2}]',
        "Final Answer: 42",
        "Action: answer",
    ],
)
def test_an_answer_is_no_call(text: str) -> None:
    assert find_calls(text, TOOLS) == []


def test_a_call_that_was_cut_is_known_as_one() -> None:
    assert is_cut_call('```json\n{"name": "websearch", "arguments": {"que', TOOLS)
    assert not is_cut_call('{"name": "Ada", "arg', TOOLS)


@pytest.mark.parametrize(
    "text",
    ["Let me search for that.", "Sure! I'll check the weather now.", "Ich werde danach suchen.", "확인해 보겠습니다."],
)
def test_a_promise_is_known(text: str) -> None:
    assert is_promise(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is 42.",
        "Let me know if you need more.",
        "Shall I search for that?",
        "I looked it up: it is 42.",
        "Let me search. " * 40,
    ],
)
def test_what_only_looks_like_a_promise_is_an_answer(text: str) -> None:
    assert not is_promise(text)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "The answer to it is 42, as far as anybody can tell today.",
            "The answer to it is 42, as far as anybody can tell today.",
        ),
        (
            "  \n\n" + "The answer to it is 42, as far as anybody can tell.",
            "The answer to it is 42, as far as anybody can tell.",
        ),
        ('{"name": "websearch", "arguments": {"query": "x"}}', ""),
        ("Let me search for that.", ""),
        (
            "The weather there is a matter of some interest to many.\n<tool_call>{}",
            "The weather there is a matter of some interest to many.\n",
        ),
        (
            "A list of all that is known about it so far:\n- one\n- two [3]\n",
            "A list of all that is known about it so far:\n- one\n- two [3]\n",
        ),
    ],
)
def test_the_gate_shows_answers_and_holds_calls_and_promises(text: str, shown: str, size: int) -> None:
    gate = Gate(watchful=True)
    passed = "".join(gate.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert passed.rstrip() == shown.rstrip()
    assert passed + gate.open() == text.lstrip()


def test_circles_are_seen_and_lists_are_not() -> None:
    assert goes_in_circles("and so on, " * 100)
    assert goes_in_circles("x" * 600)
    assert not goes_in_circles("\n".join(f"{number}. item number {number}" for number in range(200)))
    assert not goes_in_circles("and so on, " * 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"query": "x"}', {"query": "x"}),
        ({"arguments": {"query": "x"}}, {"query": "x"}),
        ({"query": "x", "count": "3"}, {"query": "x", "count": 3}),
        ({"query": 5}, {"query": "5"}),
        ('{"query": "a\nb"}', {"query": "a\nb"}),
        ('{"query": "\\ud83d"}', {"query": "\ufffd"}),
        ("plain words", {"query": "plain words"}),
    ],
)
def test_arguments_with_one_reading_are_put_right(given: object, expected: dict) -> None:
    assert TOOLS.read_arguments("websearch", given) == expected


@pytest.mark.parametrize(
    "given", ["{", "[1]", {}, {"count": 3}, {"query": ["x"]}, None, 3, {"query": "x", "count": "many"}]
)
def test_other_arguments_are_refused_in_a_sentence(given: object) -> None:
    with pytest.raises(ValueError, match="the arguments of websearch"):
        TOOLS.read_arguments("websearch", given)
