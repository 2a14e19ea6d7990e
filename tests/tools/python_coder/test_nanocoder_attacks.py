"""What runs in a nanocoder task tries to get at anything but the model."""

import asyncio
import os
from pathlib import Path

from tests.support.scripted import ScriptedLLM
from tests.tools.python_coder.tasks import bash, context, installed, started, write
from tools.python_coder.args import NanocoderArgs
from tools.python_coder.nanocoder_install import find_installation

SECRET = "swordfish-51b0"

ATTACKS = {
    "TCP to a server of the machine": "s.create_connection(('127.0.0.1', PORT), 2)",
    "TCP over IPv6": "s.create_connection(('::1', PORT), 2)",
    "TCP to elsewhere": "s.create_connection(('192.0.2.1', 80), 2)",
    "UDP": "s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "DNS": "s.getaddrinfo('example.com', 80)",
    "a Unix socket": "s.socket(s.AF_UNIX).connect(UNIX)",
    "an abstract Unix socket": "s.socket(s.AF_UNIX)",
    "a raw socket": "s.socket(s.AF_INET, s.SOCK_RAW, 1)",
    "netlink": "s.socket(s.AF_NETLINK, s.SOCK_RAW, 0)",
    "listening": "s.socket().bind(('127.0.0.1', 4000))",
    "the database": "open(DATA + '/app.db').read()",
    "the secret": "open(DATA + '/jwt_secret').read()",
    "another session": "open(DATA + '/scratch/victim/notes').read()",
    "another session beside": "open('../victim/notes').read()",
    "the scratch folder": "open('/scratch/victim/notes').read()",
    "the server's settings": "open(ROOT + '/config.py').read()",
    "the server's environment": "open(f'/proc/{SERVER}/environ').read()",
    "process 1's memory": "open('/proc/1/mem', 'rb').read(1)",
    "passwords": "open('/etc/shadow').read()",
    "writing outside": "open('/outside', 'w')",
    "writing to Python": "open(os.__file__, 'a')",
    "writing to node": "open(NODE, 'a')",
    "a signal to the server": "os.kill(SERVER, 0)",
    "a namespace": "check(libc.unshare(0x10000000))",
    "ptrace": "check(libc.ptrace(0, 0, 0, 0))",
    "a mount": "check(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    "keys": "check(libc.syscall(250, 0, 0, 0, 0, 0))",
    "bpf": "check(libc.syscall(321, 0, 0, 0))",
    "io_uring": "check(libc.syscall(425, 1, 0))",
    "perf events": "check(libc.syscall(298, 0, 0, 0, 0, 0))",
    "root": "os.setuid(0)",
}
ROUTES = (
    "GET /health",
    "GET /v1/models",
    "GET /api/auth/me",
    "GET /metrics",
    "POST /api/tools/websearch",
    "POST /v1/x",
)


@installed
async def test_nothing_but_the_model_is_within_reach_of_what_runs_in_there(tmp_path):
    for name in ("app.db", "jwt_secret", "scratch/victim/notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SECRET)
    reached = []
    node = (await asyncio.to_thread(find_installation)).node

    def note(_reader, writer) -> None:
        reached.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(note, ["127.0.0.1", "::1"], 0)
    unix = await asyncio.start_unix_server(note, tmp_path / "scratch/victim/socket")
    values = {
        "PORT": server.sockets[0].getsockname()[1],
        "UNIX": str(tmp_path / "scratch/victim/socket"),
        "DATA": str(tmp_path),
        "ROOT": str(Path(__file__).parents[3]),
        "SERVER": os.getpid(),
        "NODE": str(node),
    }
    script = f"""
import ctypes, os, socket as s
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), "refused")
globals().update({values!r})
for name, attack in {ATTACKS!r}.items():
    try:
        exec(attack)
        print("GOT", name)
    except OSError:
        print("held", name)
from http.client import HTTPConnection
for route in {ROUTES!r}:
    method, path = route.split()
    gateway = HTTPConnection("127.0.0.1", 18090, timeout=5)
    gateway.request(method, path, "{{}}" if method == "POST" else None)
    status = gateway.getresponse().status
    print("held" if status == 404 else "GOT", route)
print("the", "end")
"""
    llm = ScriptedLLM([write("attack.py", script), bash("python3 attack.py; env"), "Done."])
    async with server, unix, started(tmp_path) as tool:
        result = await tool.run(NanocoderArgs(task="attack"), context(tmp_path, llm))

    shown = llm.requests[-1].messages[-1].text
    assert "the end" in shown, (result, shown)
    assert [line for line in shown.splitlines() if line.startswith("GOT")] == []
    assert shown.count("held ") == len(ATTACKS) + len(ROUTES)
    assert SECRET not in shown
    assert not any(word in shown for word in ("JWT", "TOKEN", "API_KEY"))
    assert reached == []
