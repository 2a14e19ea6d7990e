"""Our agents on the real llama.cpp engine with the small demonstration model: do they end well, and what do they cost?

The small model is no judge of tools; what counts here is that nothing crashes, hangs or is malformed, how many model
calls a step costs, and how much of each prompt the engine had already read.
"""

import json
import tempfile
import time
from collections import Counter, defaultdict
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
AGENTS = ("react", "plan_execute", "auto")
MAX_TOKENS = 60


async def measure(runs: int, agents: tuple[str, ...] = AGENTS) -> None:
    """Print a row for each agent as soon as it has done its runs."""
    print(
        "| agent | runs | ended well | answers of the model's own | model calls a run | calls a step | malformed steps "
        "| cached from the 2nd call on | seconds a run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        sep="\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder), context=4096) as url:
        changes = {"LLM_BACKEND": "llamacpp", "LLAMACPP_BASE_URL": url, "AGENT_MAX_SECONDS": 120}
        async with running_agents(Path(folder), tools=TOYS, **changes) as server:
            server.alice.timeout = 180
            for agent in agents:
                print(await _measure_agent(server, agent, runs), flush=True)


async def _measure_agent(server: RunningAgents, agent: str, runs: int) -> str:
    tally: Counter[str] = Counter()
    seconds = 0.0
    log = server.data_dir / "logs" / "prompts.log"
    seen = len(log.read_text().splitlines()) if log.exists() else 0
    for run in range(runs):
        started = time.monotonic()
        try:
            stream = await server.stream(QUESTIONS[run % len(QUESTIONS)], agent_type=agent, max_tokens=MAX_TOKENS)
            stream.check()
            tally["well"] += bool(stream.text.strip())
            tally["own"] += "could not" not in stream.text
            tally["malformed"] += stream.reasoning.count("the model is asked again")
        except Exception as error:  # counted, and the others are still to be measured
            tally[type(error).__name__] += 1
        seconds += time.monotonic() - started
    calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in log.read_text().splitlines()[seen:]:
        entry = json.loads(line)
        calls[_conversation(entry)].append(entry)
    told = [entry for entries in calls.values() for entry in entries]
    later = [entry["tokens"] for entries in calls.values() for entry in entries[1:] if entry["tokens"]]
    prompt, cached = sum(one["prompt"] for one in later), sum(one["cached"] for one in later)
    steps = sum(1 for entry in told if entry["response_format"])
    decisions = sum(1 for entry in told if entry["response_format"] and entry["outcome"] == "completed")
    return (
        f"| {agent} | {runs} | {tally['well']} | {tally['own']} | {len(told) / runs:.1f} "
        f"| {steps / max(1, decisions):.2f} | {tally['malformed']} "
        f"| {cached / max(1, prompt):.0%} of {prompt} | {seconds / runs:.1f} |"
    )


def _conversation(entry: dict[str, Any]) -> str:
    """Calls whose prompts begin alike: a run, or one step of a plan."""
    return f"{entry['request_id']} {json.dumps(entry['messages'][:2])}"
