"""How long code waits for its interpreter, beside the other ways to run it; and what a long day leaves behind.

    python -m tests.benchmarks.python_coder [--rounds 20] [--jupyter PYTHON]     the latency table
    python -m tests.benchmarks.python_coder --soak 10                            sixteen sessions for ten minutes

All ways take turns within each round, so that a busy moment of the machine hits them alike. `--jupyter` names a Python
that has ipykernel and jupyter_client; bubblewrap is measured where it is installed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.tools.python_coder.coder import Coder, started_coder

CODES = {
    "1 + 1": "1 + 1",
    "pandas": "import pandas as pd\npd.DataFrame({'a': range(1000), 'b': [1, 2] * 500}).groupby('b').a.sum()",
    "pandas and a plot": (
        "import matplotlib\nmatplotlib.use('Agg')\nimport pandas as pd, matplotlib.pyplot as plt\n"
        "pd.DataFrame({'a': range(100)}).plot()\nplt.savefig('plot.png')\nplt.close('all')"
    ),
}
SOAK_SESSIONS = 16
SOAK_CODES = (
    "n = globals().get('n', 0) + 1\nn",
    "import numpy as np\nfloat(np.random.rand(200, 200).sum())",
    "import pandas as pd\npd.DataFrame({'a': range(50)})",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nimport os\nfor f in os.listdir():\n    os.remove(f)",
    "import subprocess\nsubprocess.Popen(['sleep', '300'], start_new_session=True)",
    "print('x' * 50_000)\nimport os\nfor f in os.listdir():\n    os.remove(f)",
    "import threading, time\nthreading.Thread(target=time.sleep, args=(1,)).start()",
    "1 / 0",
    "x = bytearray(100 << 20)\ndel x",
    "import os\nos._exit(1)",
    "while True: pass",
)
_SILENT = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
Way = Callable[[str], Awaitable[float]]


class OwnWays:
    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self._sessions = 0

    async def first(self, code: str) -> float:
        self._sessions += 1
        return await self._time(code, f"first-{self._sessions}")

    async def later(self, code: str) -> float:
        await self._coder.run("0", "later")
        return await self._time(code, "later")

    async def _time(self, code: str, session: str) -> float:
        began = time.perf_counter()
        result = await self._coder.run(code, session)
        taken_ms = (time.perf_counter() - began) * 1000
        assert result.success, result
        return taken_ms


async def run_python(code: str, *prefix: str, folder: str) -> float:
    began = time.perf_counter()
    command = [*prefix, sys.executable, "-c", code]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, **_SILENT)
    assert await process.wait() == 0
    return (time.perf_counter() - began) * 1000


def bubblewrap(folder: str) -> tuple[str, ...]:
    """The walls that one would put around a fresh interpreter by hand."""
    system = [path for path in ("/usr", "/bin", "/lib", "/lib64", sys.prefix, sys.base_prefix) if Path(path).exists()]
    binds = [word for path in system for word in ("--ro-bind", path, path)]
    rest = ("--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")
    return ("bwrap", *binds, *rest, "--bind", folder, "/workspace", "--chdir", "/workspace")


class Jupyter:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, python: str, folder: str) -> "Jupyter":
        script = Path(__file__).with_name("jupyter_kernel.py")
        environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib"), "IPYTHONDIR": folder}
        pipes = _SILENT | {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        return cls(await asyncio.create_subprocess_exec(python, str(script), cwd=folder, env=environment, **pipes))

    async def first(self, code: str) -> float:
        return await self._ask(code, fresh=True)

    async def later(self, code: str) -> float:
        return await self._ask(code, fresh=False)

    async def close(self) -> None:
        self._process.stdin.close()
        await self._process.wait()

    async def _ask(self, code: str, *, fresh: bool) -> float:
        self._process.stdin.write(json.dumps({"fresh": fresh, "code": code}).encode() + b"\n")
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), 120))["ms"]


async def measure(rounds: int, jupyter_python: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = len(CODES) * (rounds + 1) + 1  # so that no first call has to end another session's interpreter
        started = started_coder(Path(folder, "data"), PYTHON_MAX_INTERPRETERS=room)
        async with started as coder, contextlib.AsyncExitStack() as stack:
            own = OwnWays(coder)
            ways: dict[str, Way] = {"python_coder, first call": own.first, "python_coder, later call": own.later}
            ways["fresh python -c"] = lambda code: run_python(code, folder=folder)
            if shutil.which("bwrap"):
                ways["bubblewrap + python -c"] = lambda code: run_python(code, *bubblewrap(folder), folder=folder)
            if jupyter_python:
                jupyter = await Jupyter.start(jupyter_python, folder)
                stack.push_async_callback(jupyter.close)
                ways |= {"Jupyter kernel, first call": jupyter.first, "Jupyter kernel, later call": jupyter.later}
            print(f"| median (p95) ms of {rounds} | {' | '.join(CODES)} |")
            print(f"|---|{'--:|' * len(CODES)}")
            taken: dict[tuple[str, str], list[float]] = {}
            for name, code in CODES.items():
                for number in range(rounds + 1):
                    for way, run in ways.items():
                        value = await run(code)
                        if number:  # the first round warms the disk's cache
                            taken.setdefault((way, name), []).append(value)
            for way in ways:
                cells = [_cell(taken[way, name]) for name in CODES]
                print(f"| {way} | {' | '.join(cells)} |")
            print(f"\n{coder.tool.status().details['layers']}")


def _cell(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.1f} ({ordered[int(len(ordered) * 0.95) - 1]:.1f})"


async def soak(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before = _count()
        async with started_coder(Path(folder), PYTHON_MAX_INTERPRETERS=12, PYTHON_IDLE_S=5) as coder:
            started = _count()
            end = time.monotonic() + minutes * 60
            calls = await asyncio.gather(*(_use(coder, f"soak-{n}", end) for n in range(SOAK_SESSIONS)))
            working = _count()
            await asyncio.sleep(12)  # all sessions have been idle for long
            resting = _count()
            memory = _memory_of_sessions(coder)
        after = _count()
        print(f"{sum(calls)} calls in {minutes:g} min by {SOAK_SESSIONS} sessions over 12 interpreters")
        for name, count in (("before", before), ("started", started), ("end of work", working)):
            print(f"{name:12} {count}")
        print(f"{'all idle':12} {resting} {memory}")
        print(f"{'closed':12} {after}")


async def _use(coder: Coder, session: str, end: float) -> int:
    calls = 0
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            call = asyncio.create_task(coder.run(random.choice(SOAK_CODES), session, timeout=0.5))
            if random.random() < 0.05:
                await asyncio.sleep(random.random() * 0.2)
                call.cancel()
            await call
        calls += 1
        await asyncio.sleep(random.random() * 0.3)
    return calls


def _count() -> dict[str, int]:
    """What could leak: of this process and below it, and of the machine."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    below = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= grown
    status = Path("/proc/self/status").read_text()
    return {
        "processes": len(below) - 1,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": int(status.partition("Threads:")[2].split()[0]),
        "rss_mib": int(status.partition("VmRSS:")[2].split()[0]) // 1024,
        "mounts": Path("/proc/self/mounts").read_text().count("\n"),
        "groups": len(list(Path("/sys/fs/cgroup").glob(f"**/python-coder-{os.getpid()}-*"))),
    }


def _memory_of_sessions(coder: Coder) -> dict[str, int]:
    """What is left of the prepared parent: its own memory in MiB."""
    guard = coder.tool._pool.zygote_pid
    children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    rollup = Path(f"/proc/{children[0]}/smaps_rollup").read_text()
    return {"parent_pss_mib": int(rollup.partition("\nPss:")[2].split()[0]) // 1024}


async def weigh(sessions: int) -> None:
    """The memory that a session costs: private to its interpreter after a little work with pandas."""
    with tempfile.TemporaryDirectory() as folder:
        async with started_coder(Path(folder), PYTHON_MAX_INTERPRETERS=sessions) as coder:
            for way, code in (("after 1 + 1", "1 + 1"), ("after pandas and a plot", CODES["pandas and a plot"])):
                for number in range(sessions):
                    await coder.run(code, f"s{number}")
                guard = coder.tool._pool.zygote_pid
                zygote = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()[0]
                pids = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
                private = []
                for pid in pids:
                    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                    kinds = ("\nPrivate_Dirty:", "\nPrivate_Clean:")
                    private.append(sum(int(text.partition(kind)[2].split()[0]) for kind in kinds) / 1024)
                rss = int(Path(f"/proc/{zygote}/status").read_text().partition("VmRSS:")[2].split()[0]) // 1024
                print(f"{way}: {statistics.median(private):.1f} MiB private a session; the parent has {rss} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jupyter", metavar="PYTHON", help="a Python with ipykernel and jupyter_client")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    options = parser.parse_args()
    if options.soak:
        asyncio.run(soak(options.soak))
    else:
        asyncio.run(measure(options.rounds, options.jupyter))
        asyncio.run(weigh(8))


if __name__ == "__main__":
    main()
