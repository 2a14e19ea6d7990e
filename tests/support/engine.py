"""The real llama.cpp engine with the small demonstration model, in a process of its own."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 60.0


@contextmanager
def running_engine(data_dir: Path, *, context: int = 1024, slots: int = 2) -> Iterator[str]:
    """Start the engine on a free port, yield its address, kill it.

    It has one thread: two that wait for each other are far slower than one where others want the cores as well. And it
    has a process group of its own, or who ends this process by a signal to its group would seem to see the engine die.
    """
    settings = {"EMBEDDED_LLM_CONTEXT": str(context), "EMBEDDED_LLM_SLOTS": str(slots), "EMBEDDED_LLM_PORT": "0"}
    settings["EMBEDDED_LLM_THREADS"] = "1"
    command = [sys.executable, "-m", "backend.core.llm.embedded"]
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), **settings}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            started, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
            url = process.stdout.readline().strip() if started else ""
            assert url.startswith("http"), "the engine did not start"
            yield url
        finally:
            process.kill()
