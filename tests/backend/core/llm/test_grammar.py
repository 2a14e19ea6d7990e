"""Which schemas become grammars of ours. What the engine makes of them is tried in `test_llamacpp_real_engine`."""

from typing import Any

import aiohttp
import pytest

from backend.core.llm.base import ResponseFormat
from backend.core.llm.grammar import write_grammar
from backend.core.llm.llamacpp import LlamaCpp
from backend.core.messages import Message
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.llm_calls import ask, events_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "integer", "minimum": 3},
        {"$ref": "#/$defs/part"},
        {"type": "object", "properties": {}, "required": ["missing"]},
        {"type": "mystery"},
        {"not": {}},
        "no schema",
    ],
)
def test_a_schema_that_asks_for_more_than_a_grammar_holds_to_is_left_to_the_engine(part: Any) -> None:
    assert write_grammar({"type": "array", "items": part}) is None


def test_a_schema_without_end_is_left_to_the_engine() -> None:
    endless: dict[str, Any] = {"type": "array"}
    endless["items"] = endless
    assert write_grammar(endless) is None


@pytest.mark.parametrize(("mark", "field"), [("", "grammar"), ("<think>", "response_format")])
async def test_a_model_that_may_think_first_is_not_forbidden_to(
    http: aiohttp.ClientSession, mark: str, field: str
) -> None:
    async with FakeLlamaCpp() as fake:
        fake.template += mark
        request = ask(Message("user", "Hi"), response_format=ResponseFormat(SCHEMA))
        await events_of(LlamaCpp(http, fake.url), request)
    assert {"grammar", "response_format"} & fake.chats[0].body.keys() == {field}
