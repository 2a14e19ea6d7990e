"""Whatever a model, a tool or a backend does: an answer or an honest sentence, in time, in a well-formed stream."""

import re
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.agent_scripts import SCRIPTS, Script
from tests.support.agents import ConstrainedModel, NativeModel, RunningAgents, running_agents
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.fake_ollama import FakeOllama

DEADLINE_S = 8.0
QUICK = {"AGENT_MAX_SECONDS": 5, "STREAM_IDLE_TIMEOUT_S": 0.5, "FIRST_TOKEN_TIMEOUT_S": 1, "BACKEND_RETRY_S": 0.2}
Running = dict[str, tuple[FakeOllama | FakeLlamaCpp, RunningAgents]]


class LlamaCppWithTools(ConstrainedModel):
    def __init__(self) -> None:
        super().__init__()
        self.supports_tools = True


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with NativeModel() as native, ConstrainedModel() as plain, LlamaCppWithTools() as llamacpp:
        folders = [tmp_path_factory.mktemp("data") for _ in range(3)]
        async with (
            running_agents(folders[0], native, **QUICK) as one,
            running_agents(folders[1], plain, **QUICK) as two,
            running_agents(folders[2], llamacpp, **QUICK) as three,
        ):
            yield {"native": (native, one), "constrained": (plain, two), "llamacpp": (llamacpp, three)}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name.replace(" ", "_"))
@pytest.mark.asyncio(loop_scope="module")
async def test_a_run_ends_with_an_answer_or_an_honest_sentence(servers: Running, script: Script) -> None:
    fake, server = servers[script.wire]
    fake.calls.clear()
    fake._script.clear()
    fake.choose = script.choose  # type: ignore[union-attr]
    fake.script(*script.replies)
    fake.always(script.then)
    server.toy.journal.clear()
    started = time.monotonic()
    stream = await server.stream(script.question, agent_type=script.agent)
    elapsed_s = time.monotonic() - started
    stream.check()
    assert elapsed_s < DEADLINE_S
    assert re.search(script.ends, stream.text), (stream.text, stream.reasoning)
    assert len(fake.chats) <= script.calls, stream.reasoning
    if script.ran is not None:
        ran = [line.removeprefix("ran ") for line in server.toy.journal if line.startswith("ran ")]
        assert sorted(ran) == sorted(script.ran)
    kept = (await server.alice.get(f"/api/chat/history/{stream.response.headers['x-session-id']}")).json()["messages"]
    assert kept[-1]["content"] == stream.text
    assert "<tool_call>" not in stream.text
