"""This server against its peers, in one run: `python -m tests.benchmarks.gateway [--quick]`.

One fast fake llama.cpp server, and in front of it: nothing, the least Starlette pass-through, the LiteLLM proxy, and
this server with sign-in and session storage on, with and without its prompt log. Each gateway has one worker on one
core; the load generator and the upstream share another. All are measured in turn within each round, so that a noisy
minute hits all of them, and the medians of the rounds are reported. Trust ratios more than absolute figures.
"""

import argparse
import os
import platform
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import uvloop

from tests.benchmarks.gateway import disk, gateways, report, wire
from tests.benchmarks.gateway.load import Load, Sample, run
from tests.benchmarks.gateway.processes import LOAD_CORES, SCRATCH, SERVER_CORES, Processes, StartFailed

CHOICES = ("starlette", "litellm", "ours")
ROUNDS, SECONDS = 3, 1.5
QUICK_ROUNDS, QUICK_SECONDS = 1, 0.5
WARM_UP = (Load("warm-up", wire.REPLY, 16), Load("warm-up", wire.BURST, 4))


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through the with block, which ends the servers
    started, load_before = time.monotonic(), os.getloadavg()[0]
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if options.quick else (ROUNDS, SECONDS)
    seconds = options.seconds or seconds
    loads = tuple(load for load in report.LOADS if not options.quick or load is not report.SPREAD)
    with Processes(options.folder) as processes:
        disk_costs = disk.measure(processes.folder)
        _say(f"disk: {disk_costs}")
        contestants = list(_start(processes, options))
        os.sched_setaffinity(0, LOAD_CORES)
        samples = uvloop.run(_measure(contestants, loads, rounds, seconds))
    print(f"\n{rounds} x {seconds:g} s a load; {_cores()}; Python {platform.python_version()}; ", end="")
    print(f"LiteLLM {gateways.LITELLM_VERSION}; {time.monotonic() - started:.0f} s in all")
    print(f"disk: {disk_costs}")
    print(f"others kept {load_before:.1f} of {os.cpu_count()} cores busy in the minute before\n")
    print(report.table(samples, [contestant.name for contestant in contestants]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gateway", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round, under a minute")
    parser.add_argument("--only", default=",".join(CHOICES), help="which of %(default)s")
    parser.add_argument(
        "--seconds", type=float, help=f"of each load in each round ({SECONDS:g}; quick {QUICK_SECONDS:g})"
    )
    parser.add_argument("--peer-venv", type=Path, default=gateways.PEER_VENV, help="where LiteLLM is (%(default)s)")
    parser.add_argument("--folder", type=Path, default=SCRATCH, help="where data is kept during the run (%(default)s)")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(CHOICES):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; there are {', '.join(CHOICES)}")
    if options.seconds is not None and not 0 < options.seconds <= 60:
        parser.error("--seconds: give more than 0 and at most 60")
    return options


def _start(processes: Processes, options: argparse.Namespace) -> Iterator[gateways.Gateway]:
    direct = gateways.start_upstream(processes)
    yield direct
    upstream = f"http://127.0.0.1:{direct.target.port}"
    starts = {
        "starlette": lambda: gateways.start_starlette(processes, upstream),
        "litellm": lambda: gateways.start_litellm(processes, upstream, options.peer_venv),
        "ours": lambda: gateways.start_ours(processes, upstream, prompt_log=True),
        "ours, no log": lambda: gateways.start_ours(processes, upstream, prompt_log=False),
    }
    for name, start in starts.items():
        if name.partition(",")[0] not in options.only or (options.quick and name == "ours, no log"):
            continue
        _say(f"starting {name} ...")
        try:
            yield start()
        except StartFailed as error:
            _say(f"{name} does not take part: {error}")


async def _measure(
    contestants: list[gateways.Gateway], loads: tuple[Load, ...], rounds: int, seconds: float
) -> dict[tuple[str, Load], list[Sample]]:
    for contestant in contestants:
        for load in WARM_UP:
            await run(contestant.target, load, 0.3, contestant.server)
    samples: dict[tuple[str, Load], list[Sample]] = defaultdict(list)
    for number in range(1, rounds + 1):
        for load in loads:
            _say(f"round {number} of {rounds}: {load.name}")
            for contestant in contestants:
                sample = await run(contestant.target, load, seconds, contestant.server)
                samples[contestant.name, load].append(sample)
    return samples


def _cores() -> str:
    if SERVER_CORES == LOAD_CORES:
        return "ONE core for all, so no figure is a gateway's own"
    return f"gateway on core {SERVER_CORES[0]}, load and upstream on core {LOAD_CORES[0]}"


def _say(words: str) -> None:
    print(words, file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except StartFailed as error:
        sys.exit(f"the upstream does not start: {error}")
