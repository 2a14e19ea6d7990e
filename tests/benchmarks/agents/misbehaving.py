"""The misbehaving models of the tests, put before our ReAct agent and before other agents."""

import asyncio
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.core.llm.text_calls import is_promise
from tests.support.agent_scripts import ANSWER, SCRIPTS, Script
from tests.support.agents import CHAT, Choice, RunningAgents, running_agents
from tests.support.fake_llamacpp import FakeLlamaCpp
from tests.support.llm_script import Reply, count_tokens

DEADLINE_S = 15.0
START_S = 60.0
PEERS = ("langchain", "smolagents", "pydantic_ai")
PACKAGES = {"langchain": "langchain langchain-openai", "smolagents": "smolagents[openai]"} | {
    "pydantic_ai": "pydantic-ai-slim[openai]"
}
KEY = "none"
QUICK: dict[str, Any] = {
    "LLAMACPP_API_KEY": KEY,
    "AGENT_MAX_SECONDS": 8,
    "STREAM_IDLE_TIMEOUT_S": 3,
    "FIRST_TOKEN_TIMEOUT_S": 3,
    "BACKEND_RETRY_S": 0.2,
}
RAW_CALL = re.compile(r'<tool_call>|<function|\[TOOL_CALLS\]|^\s*Action:|"name": "toy"', re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    finished: bool
    how: str  # "", or what went wrong
    calls: int
    prompt_tokens: int
    cached_tokens: int  # of them that begin the prompt before them in the same way


class Model(FakeLlamaCpp):
    """Speaks the scripts. Who has a tool for the final answer gets the answer by it."""

    choose: Choice | None = None

    def next_reply(self, messages: list[dict[str, Any]]) -> Reply:
        reply = self.choose(messages) if self.choose else super().next_reply(messages)
        tools = {tool["function"]["name"] for tool in self.chats[-1].body.get("tools") or ()}
        if reply.text == ANSWER and reply.fault is None and "final_answer" in tools:
            return replace(reply, text=None, tool_calls=(("final_answer", {"answer": ANSWER}),))
        return reply

    def begin(self, script: Script) -> None:
        self.calls.clear()
        self._script.clear()
        self.choose = script.choose
        self.script(*script.replies)
        self.always(script.then)

    def judge(self, script: Script, text: str, error: str, ran: Sequence[str]) -> Outcome:
        how = error
        if not how and not text.strip(" \n\t\u200b"):
            how = "empty"
        if not how and (RAW_CALL.search(text) or is_promise(text)):
            how = "no answer"
        if (
            not how
            and script.ran
            and not {name.encode("utf-8", "replace") for name in script.ran}
            <= {name.encode("utf-8", "replace") for name in ran}
        ):
            how = "tool not run"
        prompts = [(chat.body.get("tools"), chat.body["messages"]) for chat in self.chats]
        cached = sum(_shared(before, after) for before, after in itertools.pairwise(prompts))
        tokens = sum(count_tokens(messages) for _, messages in prompts)
        return Outcome(not how, how, len(prompts), tokens, cached)


def _shared(before: tuple[Any, list[dict[str, Any]]], after: tuple[Any, list[dict[str, Any]]]) -> int:
    if before[0] != after[0]:
        return 0
    same = 0
    for one, other in zip(before[1], after[1], strict=False):
        if one != other:
            break
        same += 1
    return count_tokens(after[1][:same])


def scripts() -> list[Script]:
    """What every agent can be put through: models that call tools natively."""
    return [script for script in SCRIPTS if script.agent == "react" and script.wire != "constrained"]


async def run_ours(model: Model) -> Mapping[str, Outcome]:
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        async with running_agents(Path(folder), model, **QUICK) as server:
            for script in scripts():
                model.begin(script)
                server.toy.journal.clear()
                text, error = await _ask_ours(server, script)
                ran = [line.removeprefix("ran ") for line in server.toy.journal if line.startswith("ran ")]
                outcomes[script.name] = model.judge(script, text, error, ran)
    return outcomes


async def _ask_ours(server: RunningAgents, script: Script) -> tuple[str, str]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            body = {"messages": [{"role": "user", "content": script.question}], "agent_type": "react"}
            answer = await server.alice.post(CHAT, json=body)
    except TimeoutError:
        return "", "hangs"
    if answer.status_code != 200:
        return "", f"status {answer.status_code}"
    return answer.json()["choices"][0]["message"]["content"], ""


async def run_peer(model: Model, python: Path, name: str) -> Mapping[str, Outcome]:
    outcomes = {}
    process = None
    for script in scripts():
        if process is None:
            process = await _start(python, name, model.url)
        model.begin(script)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(script.question).encode() + b"\n")
        try:
            async with asyncio.timeout(DEADLINE_S):
                result = json.loads(await process.stdout.readline())
        except (TimeoutError, ValueError):
            process.kill()
            await process.wait()
            process, result = None, {"text": "", "error": "hangs", "ran": ()}
        outcomes[script.name] = model.judge(script, result["text"], result["error"], result["ran"])
    if process:
        process.kill()
        await process.wait()
    return outcomes


async def _start(python: Path, name: str, url: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        python,
        Path(__file__).with_name("peer.py"),
        name,
        f"{url}/v1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=2**24,
    )
    assert process.stdout is not None
    async with asyncio.timeout(START_S):
        if not await process.stdout.readline():
            raise RuntimeError(f"{name} does not start")
    return process


async def install(venv: Path, names: Sequence[str]) -> Path:
    """The environment of the other agents, made on first use, far from the project's own."""
    python = venv / "bin" / "python"
    if not python.exists():
        await _run(sys.executable, "-m", "venv", str(venv))
        packages = [package for name in names for package in PACKAGES[name].split()]
        await _run(str(python), "-m", "pip", "install", "-q", *packages)
    return python


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise RuntimeError(f"{command[0]} failed")


@asynccontextmanager
async def scripted_model() -> AsyncIterator[Model]:
    async with Model(n_ctx=200_000, api_key=KEY, vision=True) as model:
        yield model


def table(columns: Mapping[str, Mapping[str, Outcome]]) -> str:
    lines = [f"| script | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for script in scripts():
        outcomes = [column[script.name] for column in columns.values()]
        cells = [f"{'yes' if one.finished else f'**{one.how}**'}, {one.calls}" for one in outcomes]
        lines.append(f"| {script.name} | {' | '.join(cells)} |")
    sums = {name: list(column.values()) for name, column in columns.items()}
    for title, value in {
        "finished": lambda all_: f"{sum(one.finished for one in all_)} of {len(all_)}",
        "model calls": lambda all_: sum(one.calls for one in all_),
        "prompt tokens": lambda all_: sum(one.prompt_tokens for one in all_),
        "of them cached": lambda all_: (
            f"{sum(one.cached_tokens for one in all_) / max(1, sum(one.prompt_tokens for one in all_)):.0%}"
        ),
    }.items():
        lines.append(f"| **{title}** | {' | '.join(str(value(all_)) for all_ in sums.values())} |")
    return "\n".join(lines)


async def compare(venv: Path, peers: Sequence[str]) -> str:
    started = time.monotonic()
    columns: dict[str, Mapping[str, Outcome]] = {}
    async with scripted_model() as model:
        columns["ours"] = await run_ours(model)
        for name in peers:
            try:
                columns[name] = await run_peer(model, await install(venv, peers), name)
            except (RuntimeError, OSError, TimeoutError) as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
    return f"{table(columns)}\n\n{time.monotonic() - started:.0f} s"
