"""An agent of OpenAI's Agents SDK with a tool of the server and a function of its own; prints what came of it as JSON.

python openai_agents_run.py BASE_URL API_KEY
"""

import asyncio
import json
import sys

from agents import Agent, Runner, WebSearchTool, function_tool, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI

QUESTION = "Do I need an umbrella in Ghent?"
called: list[str] = []


@function_tool
def weather(city: str) -> str:
    """Tells the weather."""
    called.append(city)
    return f"It pours in {city}."


async def main(base_url: str, api_key: str) -> None:
    set_tracing_disabled(True)
    set_default_openai_client(AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0), use_for_tracing=False)
    agent = Agent(name="Guide", instructions="Be brief.", tools=[WebSearchTool(), weather], model="default")
    first = await Runner.run(agent, QUESTION)
    again = await Runner.run(agent, [*first.to_input_list(), {"role": "user", "content": "Sure?"}])
    streamed = Runner.run_streamed(agent, QUESTION)
    kinds = {event.data.type async for event in streamed.stream_events() if event.type == "raw_response_event"}
    told = {
        "answers": [first.final_output, again.final_output, streamed.final_output],
        "called": called,
        "items": [item.type for item in first.new_items],
        "kinds": sorted(kinds),
    }
    print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
