"""Prompts and their callers fit together."""

import ast
import re
from pathlib import Path

import pytest

from backend.core.prompts import FOLDER, load_prompt

ROOT = FOLDER.parent
NAMES = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in (FOLDER / "agents").rglob("*.txt"))


def callers() -> list[tuple[str, set[str] | None]]:
    """Each `load_prompt("...")` of the source with the values that it is filled with; None where its text is taken."""
    found = []
    for path in (ROOT / "backend" / "agents").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call)):
                continue
            call = node.value
            if (
                isinstance(call.func, ast.Name)
                and call.func.id == "load_prompt"
                and isinstance(call.args[0], ast.Constant)
            ):
                found.append((call.args[0].value, node.attr, path))
    return [(name, kind) for name, kind, _ in found]  # type: ignore[misc]


def test_every_prompt_has_a_caller_and_every_caller_a_prompt() -> None:
    assert {name for name, _ in callers()} == set(NAMES)


def test_what_has_placeholders_is_filled_and_what_has_none_is_taken_as_text() -> None:
    for name, kind in callers():
        assert (kind == "fill") == bool(load_prompt(name).placeholders), name


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_short_and_hold_nothing_that_changes(name: str) -> None:
    text = load_prompt(name).text
    assert 0 < len(text) < 2_000
    assert not re.search(r"\b(date|today|clock)\b", text)


def test_a_missing_or_a_needless_value_is_an_error() -> None:
    prompt = load_prompt("agents/last_answer")
    assert prompt.fill(why="So it is.").startswith("So it is.")
    for values in ({}, {"why": "x", "more": "y"}):
        with pytest.raises(ValueError, match="last_answer"):
            prompt.fill(**values)


def test_a_missing_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="no prompt"):
        load_prompt("agents/nothing")


def test_a_value_may_hold_a_placeholder_sign() -> None:
    assert "$5" in load_prompt("agents/last_answer").fill(why="It costs $5.")
    assert isinstance(FOLDER, Path)
