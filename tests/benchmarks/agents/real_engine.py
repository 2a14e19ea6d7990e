"""Our agents on the real llama.cpp engine with the small demonstration model: do they end well, and what do they cost?

The small model is no judge of tools; what counts here is that nothing crashes, hangs or is malformed, how many model
calls a step costs, and how much of each prompt the engine had already read.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.agents import TOYS, RunningAgents, running_agents
from tests.support.engine import running_engine

QUESTIONS = (
    "What is 17 * 23?",
    "Name three rivers of Europe.",
    "Ask the toy to say hello, and tell me what it said.",
    "Which is larger, 3/7 or 4/9?",
    "Write one sentence about rain.",
    "Let the toy say a and then b, and put both together.",
    "안녕하세요, 오늘 기분이 어때요?",
)
AGENTS = ("chat", "react", "plan_execute", "auto")
MAX_TOKENS = 32
AT_ONCE = 2
DEADLINE_S = 180.0


async def measure(runs: int, agents: Sequence[str] = AGENTS) -> None:
    """Print a row for each agent as soon as it has done its runs."""
    print(
        "| agent | runs | ended well | answers of the model's own | model calls a run | calls a step | malformed steps "
        "| cached in the 2nd step and later | in the answer of a plan | seconds a run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        sep="\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder), context=4096, slots=4) as url:
        changes = {"LLM_BACKEND": "llamacpp", "LLAMACPP_BASE_URL": url, "AGENT_MAX_SECONDS": 120, "PLAN_MAX_STEPS": 3}
        async with running_agents(Path(folder), tools=TOYS, **changes) as server:
            server.alice.timeout = DEADLINE_S
            for agent in agents:
                print(await _measure_agent(server, agent, runs), flush=True)


async def _measure_agent(server: RunningAgents, agent: str, runs: int) -> str:
    tally: Counter[str] = Counter()
    log = server.data_dir / "logs" / "prompts.log"
    seen = len(_lines(log))
    questions = iter([QUESTIONS[run % len(QUESTIONS)] for run in range(runs)])
    seconds = sum(await asyncio.gather(*(_ask(server, agent, questions, tally) for _ in range(AT_ONCE))))
    await asyncio.sleep(1)  # the log is written behind the answers
    calls = [json.loads(line) for line in _lines(log)[seen:]]
    steps = [call for call in calls if call["response_format"]]
    done = [call for call in steps if call["outcome"] == "completed"]
    others = {name: count for name, count in tally.items() if name not in {"well", "own", "malformed"}}
    return (
        f"| {agent} | {runs} | {tally['well']}{f' {others}' if others else ''} | {tally['own']} "
        f"| {len(calls) / runs:.1f} | {len(steps) / len(done) if done else 1:.2f} | {tally['malformed']} "
        f"| {_cached_share(_later(calls))} | {_cached_share(filter(_is_synthesis, calls))} | {seconds / runs:.1f} |"
    )


async def _ask(server: RunningAgents, agent: str, questions: Iterator[str], tally: Counter[str]) -> float:
    """Ask until there are no more questions; the seconds that it took."""
    started = time.monotonic()
    for question in questions:
        try:
            stream = await server.stream(question, agent_type=agent, max_tokens=MAX_TOKENS)
            stream.check()
            tally["well"] += bool(stream.text.strip())
            tally["own"] += "could not" not in stream.text
            tally["malformed"] += stream.reasoning.count("the model is asked again")
        except Exception as error:  # counted, and the others are still to be measured
            tally[type(error).__name__] += 1
            print(f"{agent}, {question!r}: {error!r:.500}", file=sys.stderr)
    return time.monotonic() - started


def _later(calls: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The calls of a run, or of one step of a plan, but the first. A plan's answer stands on what other runs wrote."""
    begun = set()
    for call in calls:
        conversation = f"{call['request_id']} {json.dumps(call['messages'][:2])}"
        if conversation in begun and not _is_synthesis(call):
            yield call
        begun.add(conversation)


def _is_synthesis(call: dict[str, Any]) -> bool:
    return str(call["messages"][-1]["content"]).startswith("The plan has been carried out")


def _cached_share(calls: Iterable[dict[str, Any]]) -> str:
    told = [call["tokens"] for call in calls if call["tokens"]]
    prompt = sum(tokens["prompt"] for tokens in told)
    return f"{sum(tokens['cached'] for tokens in told) / prompt:.0%} of {prompt}" if prompt else "-"


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []
