"""The start script as a user runs it: a process of its own, its terminal a file, its settings in the environment.

Every copy has a DATA_DIR of its own; since it is handed down in the environment, it also tells which processes of this
machine belong to the copy.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
NOBODY = "http://127.0.0.1:9"
PASSWORD = "a password for the tests"
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Nothing of this machine but its programs; no backend to find; cheap passwords and a small engine."""
    defaults = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "DATA_DIR": str(data_dir),
        "MAIN_API_PORT": "0",
        "TOOLS_PORT": "0",
        "LLM_BACKEND": "auto",
        "OLLAMA_BASE_URL": NOBODY,
        "LLAMACPP_BASE_URL": NOBODY,
        "EMBEDDED_LLM_SLOTS": "2",
        "EMBEDDED_LLM_CONTEXT": "2048",
        "EMBEDDED_LLM_THREADS": "1",  # on a busy machine two threads wait for each other
        "BCRYPT_ROUNDS": "4",
    }
    return defaults | settings


def processes_of(data_dir: Path) -> dict[int, str]:
    """pid -> command line of every process that was started for this DATA_DIR and still runs."""
    mark = f"DATA_DIR={data_dir}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # ended meanwhile, or not ours to read
            continue
    return found


@dataclass(frozen=True)
class Copy:
    """One running copy of everything."""

    script: subprocess.Popen[bytes]
    data_dir: Path
    terminal: Path

    @property
    def output(self) -> str:
        return self.terminal.read_text()

    @property
    def main_url(self) -> str:
        return self._shown(r"^  main API +(\S+)")

    @property
    def tools_url(self) -> str:
        return self._shown(r"^  tools API +(\S+)")

    def _shown(self, pattern: str) -> str:
        found = re.search(pattern, self.output, re.MULTILINE)
        assert found, self.output
        return found[1]

    def pid(self, program: str) -> int:
        """The process that runs a program, such as `tools_server.py`."""
        mine = processes_of(self.data_dir).items()
        (pid,) = [pid for pid, command in mine if re.search(rf"python\S* (-m )?{re.escape(program)} ?$", command)]
        return pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.script.send_signal(number)
        return self.script.wait(timeout=STOP_TIMEOUT_S)

    def make_key(self, username: str, role: str = "user", **settings: str) -> str:
        """An API key of a new user."""
        create = [PYTHON, "create_user_direct.py"]
        env = environment(self.data_dir, **settings)
        account = [*create, "--username", username, "--role", role, "--password-stdin"]
        subprocess.run(account, cwd=ROOT, env=env, input=PASSWORD.encode(), check=True, capture_output=True, timeout=60)
        done = subprocess.run([*create, "--make-key", username], cwd=ROOT, env=env, capture_output=True, timeout=60)
        return done.stdout.decode().strip()


@contextmanager
def launch(data_dir: Path, *, script: Path = ROOT / "start_servers.sh", **settings: str) -> Iterator[Copy]:
    """Run the start script until it says that everything is up; afterwards see that nothing of it is left."""
    data_dir.mkdir(exist_ok=True)
    terminal = data_dir / "terminal.txt"
    with terminal.open("wb") as output:
        process = subprocess.Popen(
            ["bash", script],
            cwd=data_dir,
            env=environment(data_dir, **settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    copy = Copy(process, data_dir, terminal)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "Ctrl-C stops everything" not in copy.output:
            assert process.poll() is None, copy.output
            assert time.monotonic() < deadline, copy.output
            time.sleep(0.05)
        yield copy
        if process.poll() is None:
            copy.stop()
        assert processes_of(data_dir) == {}
    finally:
        for pid in processes_of(data_dir):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def refused_start(data_dir: Path, **settings: str) -> str:
    """What the start script says when it does not start; nothing of it is left running."""
    done = subprocess.run(
        ["bash", ROOT / "start_servers.sh"],
        env=environment(data_dir, **settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    assert done.returncode == 1, done.stdout
    assert processes_of(data_dir) == {}
    return done.stdout
