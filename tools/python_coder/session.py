"""A session's interpreter: a fork of the prepared parent, shut in by `sandbox`, that serves one call after the other.

It shares its process with the user's code and so defends nothing but its own convenience: what the server relies on is
decided outside (what was written, how long it took, whether it lives). Standard output and error are pipes to the
server; descriptors that it needs itself are kept high, where code does not meet them by accident.
"""

import contextlib
import ctypes
import io
import os
import random
import signal
import sys
import threading
from typing import Any

from tools.sandbox import walls

from . import frames
from .notebook import Notebook

CONTROL_FD, STDOUT_FD, STDERR_FD = 1021, 1022, 1023  # above the limit on open files: user code cannot take these
_RECURSION_LIMIT = 1000


def prepare_descriptors(control: int, stdout: int, stderr: int) -> None:
    """Keep these three and nothing else that the parent had open."""
    for fd, high in ((control, CONTROL_FD), (stdout, STDOUT_FD), (stderr, STDERR_FD)):
        os.dup2(fd, high, inheritable=False)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(STDOUT_FD, 1)
    os.dup2(STDERR_FD, 2)
    os.closerange(3, CONTROL_FD)
    os.closerange(STDERR_FD + 1, STDERR_FD + 1024)


def live(plan: walls.Plan, session: str, address_space: int, processes: int) -> None:
    """Shut this process in and serve calls until the server hangs up. Does not return."""
    try:
        walls.confine(plan, session, address_space, processes)
        _start_afresh(walls.workspace_path(plan, session))
    except (OSError, ValueError) as error:
        _write(frames.pack(b"", b"failed", str(error).encode()))
        os._exit(1)
    _write(frames.pack(b"", b"ready", b""))
    _serve(Notebook(walls.workspace_path(plan, session)))
    os._exit(0)


def _start_afresh(workspace: str) -> None:
    """Undo what all forks of one parent would share."""
    random.seed()
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(int.from_bytes(os.urandom(4), "big"))
    sys.path.insert(0, workspace)
    sys.argv = [""]


def _serve(notebook: Notebook) -> None:
    own_pid, getpid = os.getpid(), os.getpid
    streams = [_open_stream(1), _open_stream(2)]
    flush_c = ctypes.CDLL(None).fflush
    while request := _read_frame():
        token, number, code = frames.unpack(request, 3)
        _tidy(streams)
        outcome = notebook.run(code.decode("utf-8", "surrogatepass"), int(number))
        if getpid() != own_pid:
            os._exit(0)  # a fork that the user's code made and forgot: the answer is not its to give
        sys.settrace(None)
        sys.setprofile(None)
        for stream in (sys.stdout, sys.stderr, *streams):
            with contextlib.suppress(Exception):  # the user's code may have closed or replaced any of them
                stream.flush()
        flush_c(None)
        texts = (part.encode("utf-8", "replace") for part in (outcome.value, outcome.error))
        _write(frames.pack(token, str(outcome.exit_code).encode(), *texts))


def _tidy(streams: list[io.TextIOWrapper]) -> None:
    """Give each call what it may expect, whatever the one before has done."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # what outlived its call was killed
            pass
    for number, high in ((1, STDOUT_FD), (2, STDERR_FD)):
        os.dup2(high, number)
    for at, number in enumerate((1, 2)):
        if streams[at].closed:
            streams[at] = _open_stream(number)
    sys.stdout, sys.stderr = streams
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION_LIMIT))
    signal.setitimer(signal.ITIMER_REAL, 0)
    threading.settrace(None)


def _open_stream(number: int) -> io.TextIOWrapper:
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _read_frame() -> bytes:
    header = _read(frames.HEADER)
    return _read(frames.frame_length(header)) if header else b""


def _read(count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(CONTROL_FD, count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(CONTROL_FD, view) :]
