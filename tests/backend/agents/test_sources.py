"""What tools bring besides their words: sources, and the use they made of models."""

from typing import Any

from openai import AsyncOpenAI

from tests.support.agents import NativeModel, RunningAgents
from tests.support.llm_script import Reply

URL = "https://bridges.example.org/forth"
ANSWER = "It is 2.5 km long [1]."


def cite_then_answer(messages: list[dict[str, Any]]) -> Reply:
    if messages[-1]["role"] == "tool":
        return Reply(ANSWER)
    return Reply(tool_calls=[("toy", {"act": "cite", "text": "2.5 km [1]"})])


async def test_sources_come_as_annotations_and_are_kept_with_the_answer(
    server: RunningAgents, model: NativeModel
) -> None:
    model.choose = cite_then_answer
    place = {"start_index": ANSWER.index("[1]"), "end_index": ANSWER.index("[1]") + 3}
    expected = [{"type": "url_citation", "url_citation": {"url": URL, "title": "Bridges", **place}}]
    whole = await server.ask("How long is the bridge?")
    assert whole["choices"][0]["message"]["annotations"] == expected
    stream = await server.stream("How long is the bridge?")
    stream.check()
    assert [delta["annotations"] for delta in stream.deltas if "annotations" in delta] == [expected]
    assert stream.text == ANSWER
    history = (await server.alice.get(f"/api/chat/history/{whole['session_id']}")).json()["messages"]
    assert history[-1]["citations"] == [{"url": URL, "title": "Bridges", "start": 18, "end": 21}]
    trace = await server.alice.get(f"/api/chat/sessions/{whole['session_id']}/runs/{whole['run_id']}")
    assert [event["type"] for event in trace.json()["events"]][-2:] == ["answer_cited", "run_finished"]


async def test_the_openai_client_reads_the_annotations(server: RunningAgents, model: NativeModel) -> None:
    model.choose = cite_then_answer
    key = server.alice.headers["authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        answer = await client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "How long?"}]
        )
    (annotation,) = answer.choices[0].message.annotations or []
    assert annotation.url_citation.url == URL


async def test_the_models_that_a_tool_asked_are_in_the_usage(server: RunningAgents, model: NativeModel) -> None:
    model.choose = cite_then_answer
    usage = (await server.ask("How long is the bridge?"))["usage"]
    model.choose = lambda _: Reply(ANSWER)
    alone = (await server.ask("How long is the bridge?"))["usage"]
    assert usage["prompt_tokens"] >= 1000 + alone["prompt_tokens"]
    assert usage["completion_tokens"] >= 100 + alone["completion_tokens"]


async def test_a_tool_works_with_the_model_of_the_request(server: RunningAgents, model: NativeModel) -> None:
    model.choose = cite_then_answer
    answer = await server.ask("How long is the bridge?", model="react/smollm2:135m")
    trace = await server.alice.get(f"/api/chat/sessions/{answer['session_id']}/runs/{answer['run_id']}")
    (finished,) = (event for event in trace.json()["events"] if event["type"] == "tool_finished")
    assert finished["result"]["data"]["model"] == "smollm2:135m"
