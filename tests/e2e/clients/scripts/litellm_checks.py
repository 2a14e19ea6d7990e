"""What LiteLLM's library is tried with, in a process and an environment of its own: `litellm_checks.py MODEL...`

Prints a line of JSON for each check and model: its name, the model, and what went wrong, if anything.
"""

import asyncio
import json
import os
import sys
import traceback
from typing import Any

import litellm

litellm.telemetry = False
PLACE = {"api_base": os.environ["BASE_URL"], "api_key": os.environ["API_KEY"], "max_retries": 0, "timeout": 60}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
HELLO = [{"role": "user", "content": "Hello"}]
QUESTION = [{"role": "user", "content": "Paris, 3 days"}]
EXPECTED = {"city": "Paris, 3 days", "days": 3}


def ask(model: str, messages: list[Any], **fields: Any) -> Any:
    return litellm.completion(model=f"openai/{model}", messages=messages, **PLACE, **fields)


def check_chat(model: str) -> None:
    answer = ask(model, HELLO)
    assert answer.choices[0].message.content == "Echo: Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0


def check_async_chat(model: str) -> None:
    answer = asyncio.run(litellm.acompletion(model=f"openai/{model}", messages=HELLO, **PLACE))
    assert answer.choices[0].message.content == "Echo: Hello"


def check_stream(model: str) -> None:
    chunks = list(ask(model, HELLO, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Echo: Hello"
    assert chunks[-1].usage.completion_tokens > 0
    built = litellm.stream_chunk_builder(chunks)
    assert built.choices[0].message.content == "Echo: Hello"


def check_async_stream(model: str) -> None:
    async def read() -> str:
        stream = await litellm.acompletion(model=f"openai/{model}", messages=HELLO, stream=True, **PLACE)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(read()) == "Echo: Hello"


def check_tools(model: str) -> None:
    message = ask(model, QUESTION, tools=[WEATHER], tool_choice="auto").choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == EXPECTED
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    last = ask(model, [*QUESTION, message, result], tools=[WEATHER])
    assert last.choices[0].message.content.startswith("Echo:")


def check_tools_in_a_stream(model: str) -> None:
    built = litellm.stream_chunk_builder(list(ask(model, QUESTION, tools=[WEATHER], stream=True)))
    (call,) = built.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", EXPECTED)


def check_a_format(model: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "strict": True, "schema": PARAMETERS}}
    assert json.loads(ask(model, QUESTION, response_format=form).choices[0].message.content) == EXPECTED


def check_responses(model: str) -> None:
    answer = litellm.responses(model=f"openai/{model}", input="Hello", **PLACE)
    assert answer.output[-1].content[0].text == "Echo: Hello"


def check_embeddings(model: str) -> None:
    texts = ["a river", "a bridge"]
    answer = litellm.embedding(model="openai/text-embedding-3-small", input=texts, encoding_format="float", **PLACE)
    assert [len(entry["embedding"]) > 0 for entry in answer.data] == [True, True]


def check_errors(model: str) -> None:
    for place, kind in (({}, litellm.NotFoundError), ({"api_key": "sk-wrong"}, litellm.AuthenticationError)):
        try:
            litellm.completion(model="openai/no-such-model", messages=HELLO, **PLACE | place)
        except kind:
            continue
        raise AssertionError(f"{kind.__name__} was not raised")


def check_the_engine(model: str) -> None:
    assert ask(model, HELLO, max_tokens=8).choices[0].message.content
    chunks = list(ask(model, HELLO, max_tokens=8, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def main() -> None:
    names = sys.argv[1].split(",")
    for name in names:
        for model in sys.argv[2:]:
            problem = ""
            try:
                globals()[f"check_{name}"](model)
            except Exception:  # whatever it is, it is what the check found
                problem = traceback.format_exc()
            print(json.dumps([name, model, problem]), flush=True)


if __name__ == "__main__":
    main()
