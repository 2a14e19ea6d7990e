"""One other agent, in a process and an environment of its own: a question a line in, a result a line out.

    python peer.py {langchain,smolagents,pydantic_ai} http://127.0.0.1:8080/v1

Each is set up as its documentation shows it, with streaming, one tool, at most ten steps, and a client that gives up
after three seconds of silence. It knows nothing of this project.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 3.0
STEPS = 10
RAN: list[str] = []


def toy(text: str, act: str = "echo", seconds: float = 0) -> str:
    """Says what it is told to say, after a while.

    Args:
        text: what it says
        act: what the toy is to do
        seconds: how long it takes
    """
    RAN.append(text)
    if act in {"fail", "crash"}:
        raise ValueError("The toy is broken. Take another one.")
    if act == "sleep":
        time.sleep(seconds)
    if act == "huge":
        return "begin" + "x" * 1_000_000 + "end"
    return "\ud800" if act == "odd" else text


def langchain(url: str) -> Callable[[str], Any]:
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="tiny", base_url=url, api_key="none", streaming=True, timeout=TIMEOUT_S)
    agent = create_agent(model, tools=[toy])
    ask = {"recursion_limit": 2 * STEPS + 1}
    return lambda question: agent.invoke({"messages": [("user", question)]}, ask)["messages"][-1].text


def smolagents(url: str) -> Callable[[str], Any]:
    from smolagents import OpenAIModel, ToolCallingAgent, tool

    model = OpenAIModel(
        model_id="tiny", api_base=url, api_key="none", client_kwargs={"timeout": TIMEOUT_S, "max_retries": 2}
    )
    agent = ToolCallingAgent(tools=[tool(toy)], model=model, max_steps=STEPS, stream_outputs=True, verbosity_level=0)
    return agent.run


def pydantic_ai(url: str) -> Callable[[str], Any]:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.usage import UsageLimits

    async def listen(context: Any, events: Any) -> None:
        async for _ in events:
            pass

    async def ask(question: str) -> Any:
        client = AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT_S)
        agent = Agent(OpenAIChatModel("tiny", provider=OpenAIProvider(openai_client=client)), tools=[toy])
        limits = UsageLimits(request_limit=STEPS + 1)
        return (await agent.run(question, event_stream_handler=listen, usage_limits=limits)).output

    return lambda question: asyncio.run(ask(question))


def main() -> None:
    name, url = sys.argv[1:]
    answer = {"langchain": langchain, "smolagents": smolagents, "pydantic_ai": pydantic_ai}[name](url)
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no result
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        RAN.clear()
        result: dict[str, Any] = {"text": "", "error": ""}
        try:
            result["text"] = str(answer(json.loads(line)))
        except Exception as error:  # whatever a peer raises is what its user would get
            result["error"] = type(error).__name__
        print(json.dumps(result | {"ran": RAN}), file=out, flush=True)


main()
