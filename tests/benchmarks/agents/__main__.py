"""`python -m tests.benchmarks.agents`: see the README beside this folder."""

import argparse
import asyncio
from pathlib import Path

from tests.benchmarks.agents.misbehaving import PEERS, compare
from tests.benchmarks.agents.real_engine import AGENTS, measure


def main() -> None:
    parser = argparse.ArgumentParser(description="Agents on misbehaving models, and on the real engine.")
    parser.add_argument("--peers", default=",".join(PEERS), help="other agents to compare with; empty: none")
    parser.add_argument("--peer-venv", type=Path, default=Path.home() / ".cache/llm-api-server-bench/agents")
    parser.add_argument(
        "--real", type=int, metavar="RUNS", help="instead: so many runs of each agent on the real engine"
    )
    parser.add_argument("--agents", default=",".join(AGENTS), help="which of ours on the real engine")
    given = parser.parse_args()
    if given.real:
        asyncio.run(measure(given.real, given.agents.split(",")))
    else:
        print(asyncio.run(compare(given.peer_venv, [peer for peer in given.peers.split(",") if peer])))


if __name__ == "__main__":
    main()
