"""A model behind the clients that does as it is asked, on the real wires of both backends.

It calls the first tool that it is offered, with arguments that fit and with the numbers and names of the question in
them; answers in the form that is asked for; and speaks when there is a result. What a test must know exactly it
scripts: `models.ollama.script(Reply(...))`.
"""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeModel, FakeOllama
from tests.support.llm_script import Reply, message_text
from tests.support.llm_server import FakeModelServer

OLLAMA_MODEL, TOOLLESS_MODEL, LLAMACPP_MODEL, PLAIN_MODEL = "qwen3:4b", "smollm2:135m", "tiny", "plain"
MODELS = (OLLAMA_MODEL, TOOLLESS_MODEL, LLAMACPP_MODEL, PLAIN_MODEL)


class _Obliging(FakeModelServer):
    def next_reply(self, messages: list[dict[str, Any]]) -> Reply:
        if self._script:
            return super().next_reply(messages)
        body = next((call.body for call in reversed(self.calls) if call.body.get("messages") is messages), {})
        question = _question_of(messages)
        wanted = _format_of(body)
        if wanted is not None:
            return Reply(text=json.dumps(_decide(wanted, messages, question)))
        if body.get("tools") and messages[-1]["role"] == "user":
            function = body["tools"][0]["function"]
            return Reply(tool_calls=((function["name"], fill(function["parameters"], question)),))
        return replace(self._always, text=None)


class ObligingOllama(_Obliging, FakeOllama):
    pass


class ObligingLlamaCpp(_Obliging, FakeLlamaCpp):
    """One whose model thinks, so that it is sent schemas: grammars it does not read."""

    def __init__(self, model: str, **fields: Any) -> None:
        super().__init__(model, **fields)
        self.template = "{% for message in messages %}…{% endfor %}<think>"


@dataclass(frozen=True)
class Models:
    ollama: FakeOllama
    llamacpp: FakeLlamaCpp
    plain: FakeLlamaCpp  # its template knows no tools

    def of(self, model: str) -> FakeModelServer:
        return {LLAMACPP_MODEL: self.llamacpp, PLAIN_MODEL: self.plain}.get(model, self.ollama)


@contextmanager
def running_models() -> Iterator[Models]:
    """All of them in a thread of their own, so that clients that block can be tested."""
    able = FakeModel(OLLAMA_MODEL, capabilities=("completion", "tools"))
    models = Models(
        ObligingOllama([able, FakeModel(TOOLLESS_MODEL, capabilities=("completion",))]),
        ObligingLlamaCpp(LLAMACPP_MODEL, vision=True),
        ObligingLlamaCpp(PLAIN_MODEL, supports_tools=False),
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    fakes = (models.ollama, models.llamacpp, models.plain)
    try:
        for fake in fakes:
            asyncio.run_coroutine_threadsafe(fake.start(), loop).result(30)
        yield models
    finally:
        for fake in fakes:
            asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def fill(schema: dict[str, Any], text: str, root: dict[str, Any] | None = None) -> Any:
    """What fits the schema, with the first number and the words of a text in it."""
    root = root or schema
    if "$ref" in schema:
        return fill(root["$defs"][schema["$ref"].rpartition("/")[2]], text, root)
    if "enum" in schema or "const" in schema:
        return schema["enum"][0] if "enum" in schema else schema["const"]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return fill(options[0], text, root)
    match schema.get("type", "object"):
        case "object":
            return {name: fill(part, text, root) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [fill(schema.get("items", {"type": "string"}), text, root)] * max(1, schema.get("minItems", 0))
        case "string":
            return text[: schema.get("maxLength", 200)]
        case "integer" | "number":
            found = re.search(r"-?\d+", text)
            return int(found[0]) if found else 1
        case kind:
            return {"boolean": True}.get(str(kind))


def _decide(schema: dict[str, Any], messages: list[dict[str, Any]], question: str) -> Any:
    """A step of ours is `{"tool": ...}`: with a result at hand it is to answer."""
    options = schema.get("anyOf", [schema])
    has_result = '<data from="' in message_text(messages[-1])
    if has_result and any(option.get("properties", {}).get("tool") == {"type": "null"} for option in options):
        return {"tool": None}
    if schema:
        return fill(schema, question)
    return dict.fromkeys(re.findall(r"'(\w+)'", question), question) or {"echo": question}


def _format_of(body: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of the answer, {} for any object, None for words."""
    given = body.get("format") or body.get("response_format")
    if not given:
        return None
    if given == "json" or given.get("type") == "json_object":
        return {}
    return given["json_schema"]["schema"] if given.get("type") == "json_schema" else given


def _question_of(messages: list[dict[str, Any]]) -> str:
    users = [message_text(message) for message in messages if message["role"] == "user"]
    return users[-1] if users else ""
