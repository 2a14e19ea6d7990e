"""pydantic-ai's agents: tools that they run, typed results, streams."""

import asyncio
from importlib.metadata import version
from typing import Any

import httpx
import httpx2
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelResponse, ThinkingPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.model import LLAMACPP_MODEL, OLLAMA_MODEL, Models
from tests.support.llm_script import Fault, Reply

CLIENT = Client(
    "pydantic-ai", version("pydantic-ai-slim"), "agents with tools, typed results in all modes, streams, thoughts"
)


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
def chat(server: httpx.Client, token: str, model: str) -> OpenAIChatModel:
    return connect(server, token, model)


def connect(server: httpx.Client, token: str, model: str) -> OpenAIChatModel:
    provider = OpenAIProvider(
        base_url=f"{server.base_url}/v1", api_key=token, http_client=httpx2.AsyncClient(timeout=60)
    )
    return OpenAIChatModel(model, provider=provider)


async def test_an_agent_answers(chat: OpenAIChatModel) -> None:
    result = await Agent(chat, instructions="Be kind.").run("Hello")
    assert result.output == "Echo: Hello"
    assert result.usage.output_tokens > 0


async def test_an_agent_streams(chat: OpenAIChatModel) -> None:
    async with Agent(chat).run_stream("Count from 1 to 20") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == ", ".join(map(str, range(1, 21)))


async def test_an_agent_runs_its_tools(chat: OpenAIChatModel) -> None:
    agent, asked = Agent(chat), []

    @agent.tool_plain
    def weather(city: str, days: int) -> str:
        """Tells the weather of a city."""
        asked.append((city, days))
        return "sunny"

    result = await agent.run("Paris, 3 days")
    assert asked == [("Paris, 3 days", 3)]
    assert result.output.startswith("Echo:")


@pytest.mark.parametrize("mode", [ToolOutput, NativeOutput])
async def test_a_result_is_typed(chat: OpenAIChatModel, mode: Any) -> None:
    agent: Agent[None, City] = Agent(chat, output_type=mode(City))
    assert (await agent.run("Paris, 3")).output == City(name="Paris, 3", people=3)


async def test_a_result_is_typed_where_the_prompt_alone_says_so(chat: OpenAIChatModel, models: Models) -> None:
    models.of(chat.model_name).script(Reply(text='{"name": "Paris", "people": 3}'))
    agent: Agent[None, City] = Agent(chat, output_type=PromptedOutput(City))
    assert (await agent.run("Paris, 3")).output == City(name="Paris", people=3)


async def test_a_typed_result_streams(chat: OpenAIChatModel) -> None:
    async with Agent(chat, output_type=City).run_stream("Paris, 3") as result:
        assert await result.get_output() == City(name="Paris, 3", people=3)


async def test_thoughts_are_parts_of_their_own(server: httpx.Client, token: str, models: Models) -> None:
    for model in (OLLAMA_MODEL, LLAMACPP_MODEL):
        models.of(model).script(Reply(text="42", thinking="Hm."))
        result = await Agent(connect(server, token, model)).run("Six times seven?")
        (response,) = [message for message in result.all_messages() if isinstance(message, ModelResponse)]
        assert [part.content for part in response.parts if isinstance(part, ThinkingPart)] == ["Hm."]


async def test_a_break_in_the_middle_is_an_error(server: httpx.Client, token: str, models: Models) -> None:
    models.llamacpp.script(Reply(text="one two three", fault=Fault.CUT, after=2))
    async with asyncio.timeout(30):
        with pytest.raises(ModelAPIError):
            async with Agent(connect(server, token, LLAMACPP_MODEL)).run_stream("Hello") as result:
                await result.get_output()
