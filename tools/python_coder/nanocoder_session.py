"""A session that runs one program in place of an interpreter, with a network of its own that holds one address.

A fork of the prepared parent, process 1 of its namespaces. It opens the address, shuts itself in, hands the listening
socket to the server, and then runs what it is told to:

    here -> "ready" with the listening socket, or the reason why not
    server -> one frame: JSON {argv, env, files}

`files` are written below /tmp, which nobody else sees. When the program ends this process does, and the kernel ends all
that the program left behind. Descriptors are as in `session`.
"""

import fcntl
import json
import os
import socket
import struct
from pathlib import Path

from tools.sandbox import walls

from . import frames
from .session import CONTROL_FD

PORT = 18090  # of the task's own loopback: nobody shares it
READY = b"ready"
_BACKLOG = 16
_NO_BOUND = 1 << 46  # V8 reserves far more addresses than it uses: memory is bounded by the watch and by groups
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def live(plan: walls.Plan, session: str, processes: int) -> None:
    """Shut this process in, run the program and end as it does. Does not return."""
    control = socket.socket(fileno=CONTROL_FD)
    try:
        listener = _open_listener()
        walls.confine(plan, session, _NO_BOUND, processes, connect_port=PORT)
    except (OSError, ValueError) as error:
        control.sendall(str(error).encode())
        os._exit(1)
    socket.send_fds(control, [READY], [listener.fileno()])
    listener.close()
    with control.makefile("rb") as stream:
        body = stream.read(frames.frame_length(stream.read(frames.HEADER)))
    control.close()
    if not body:
        os._exit(1)
    request = json.loads(body)
    for path, text in request["files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    program = os.fork()
    if program == 0:
        os.setsid()
        os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 (a shell is not wanted)
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _open_listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    fcntl.ioctl(listener, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    listener.bind(("127.0.0.1", PORT))
    listener.listen(_BACKLOG)
    return listener
