"""Reading a thought out of JSON that is still being written."""

import json
import random

import pytest

from backend.agents.thoughts import ThoughtReader
from backend.utils.clean_text import clean_text

THOUGHTS = (
    "I add 17 and 23.",
    'quotes " and \\ backslashes \\\\ and a last one \\',
    "line\nbreak\ttab \u0001 \u2028",
    "안녕하세요 😀 é 𝒳",
    "",
)
REST = ', "action": "toy", "input": { "thought": "another one" } }'


def read(pieces: list[str]) -> list[str]:
    reader = ThoughtReader()
    shown = [reader.feed(piece) for piece in pieces]
    assert "".join(shown) == reader.shown
    return shown


@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("begin", ['{ "thought": ', '{"thought":', '```json\n{\n  "thought" : '])
def test_a_thought_is_shown_wherever_the_text_is_cut(thought: str, ascii_only: bool, begin: str) -> None:
    text = begin + json.dumps(thought, ensure_ascii=ascii_only) + REST
    for at in range(len(text) + 1):
        assert "".join(read([text[:at], text[at:]])) == thought
    assert "".join(read(list(text))) == thought


def test_it_is_shown_while_it_grows() -> None:
    assert read(['{ "thou', 'ght": "I a', "dd \\", 'n 1", "action"']) == ["", "I a", "dd ", "\n 1"]


@pytest.mark.parametrize("broken", ["\\ud83d no", "\\ud83d\\ud83d", "\\q", "\\u12", "\\ud83d"])
def test_what_is_no_character_yet_or_never_is_not_shown(broken: str) -> None:
    text = f'{{ "thought": "before {broken}'
    for at in range(len(text)):
        shown = "".join(read([text[:at], text[at:]]))
        assert clean_text(shown) == shown
        assert "before ".startswith(shown)


@pytest.mark.parametrize("text", ["The answer is 391.", '{ "action": "toy" }', '{ "steps": [', "", "[" * 500])
def test_what_is_no_step_shows_nothing(text: str) -> None:
    assert not "".join(read(list(text)))


def test_random_cuts_of_a_long_thought() -> None:
    chance = random.Random(5)
    thought = "".join(chance.choice('ab "\\\n😀é/') for _ in range(400))
    text = json.dumps({"thought": thought})
    cuts = sorted(chance.sample(range(len(text)), 150))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(read(pieces)) == thought
