"""What the sandbox holds back on this machine, found out by trying; and what to do where it does not come about."""

import asyncio
import json
import os
import secrets
import shutil
import sys
from pathlib import Path

from tools.sandbox import landlock
from tools.sandbox.walls import Limits

from . import workspace
from .output import Output
from .pool import Pool
from .zygote_client import ZygoteFailed

TRIAL_TIMEOUT_S = 20.0
_ALWAYS = {"processes beyond the limit", "memory beyond the limit", "root"}
_NEEDED = {
    3: _ALWAYS,
    2: _ALWAYS | {"network", "other files", "writing elsewhere", "the server's environment", "signals", "new rights"},
}
_NEEDED[1] = _NEEDED[2] | {"seeing other processes"}

_SWITCHES = (  # name, the value that forbids namespaces to ordinary users, the one that allows them
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)

_TRIALS = """
import ctypes, json, os, socket, time
held_back = {{}}
def trial(name, attempt):
    try:
        held_back[name] = held_back.get(name, True) and not attempt()
    except (OSError, MemoryError):
        held_back.setdefault(name, True)
def connect():
    socket.create_connection(("127.0.0.1", {port}), timeout=2)
    return True
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", ("127.0.0.1", {port}))
    return True
def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return True
def fork():
    for _ in range({processes} + 16):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    return True
libc = ctypes.CDLL(None, use_errno=True)
trial("network", connect)
trial("network", datagram)
trial("other files", lambda: open({secret!r}).read())
trial("other files", lambda: open("/etc/shadow").read())
trial("other files", lambda: open("../{other}/secret").read())
for path in ({beside!r}, "/etc/trial", "/usr/trial", "../trial", "/trial"):
    trial("writing elsewhere", lambda: write(path))
trial("the server's environment", lambda: open("/proc/{server}/environ", "rb").read())
trial("signals", lambda: os.kill({server}, 0) is None)
trial("seeing other processes", lambda: os.getpid() != 1)
trial("new rights", lambda: libc.prctl(39, 0, 0, 0, 0) != 1 or libc.prctl(21, 0, 0, 0, 0) != 2)
trial("new rights", lambda: libc.unshare(0x10000000) == 0 or libc.ptrace(0, 0, 0, 0) == 0)
trial("root", lambda: os.getuid() == 0 or os.geteuid() == 0)
trial("memory beyond the limit", lambda: bytearray(({memory_mb} + 512) << 20))
trial("processes beyond the limit", fork)
print(json.dumps(held_back))
"""


async def examine(pool: Pool, scratch: Path, limits: Limits, uid: int) -> dict[str, bool]:
    """Try to get out of an interpreter of this pool, in every way that a tier must hold back.

    Raises:
        ZygoteFailed: no interpreter came up, or the trial did not end as it should.
    """
    mark = secrets.token_hex(8)
    folder, other = scratch / f"trial-{mark}", scratch / f"trial-{mark}-other"
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    try:
        identity = await asyncio.to_thread(workspace.prepare, folder, uid)
        await asyncio.to_thread(workspace.prepare, other, uid)
        await asyncio.to_thread((other / "secret").write_text, "secret")
        code = _TRIALS.format(
            port=listener.sockets[0].getsockname()[1],
            secret=str(other / "secret"),
            other=other.name,
            beside=str(scratch / f"trial-{mark}-file"),
            server=os.getpid(),
            processes=limits.processes,
            memory_mb=limits.memory_mb,
        )
        output = Output()
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with pool.lease(folder.name, identity, reset=False, wait_s=TRIAL_TIMEOUT_S) as lease:
            ending = await lease.interpreter.run(code, TRIAL_TIMEOUT_S, output, never)
    finally:
        listener.close()
        await pool.end(folder.name)
        for made in (folder, other):
            await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)
    if ending.exit_code or ending.died:
        reason = ending.error or ending.stopped or f"{ending.died}"
        raise ZygoteFailed(f"a trial run of code failed: {reason}")
    results: dict[str, bool] = json.loads(output.data["stdout"])
    return results


def find_open_ways(tier: int, trials: dict[str, bool]) -> list[str]:
    """What this tier promises to hold back and did not."""
    return sorted(name for name in _NEEDED[tier] if not trials.get(name))


def find_layers(tier: int, *, cgroups: bool) -> list[str]:
    layers = ["namespaces"] if tier == 1 else []
    layers += ["landlock"] if tier == 2 or (tier == 1 and landlock.find_version()) else []
    layers += ["seccomp"] if tier <= 2 else []
    return layers + ["rlimits"] + (["cgroups"] if cgroups else [])


def advise() -> str:
    """What would make a stronger tier possible here."""
    steps = [
        f"run `sysctl -w {name}={good}` as root"
        for name, bad, good in _SWITCHES
        if (path := Path("/proc/sys", *name.split("."))).exists() and path.read_text().strip() == bad
    ]
    if os.geteuid() == 0 and any(not folder.stat().st_mode & 0o001 for folder in Path(sys.base_prefix).parents):
        steps.append("install Python where every user may read it, or start the server as an ordinary user")
    if not landlock.find_version():
        steps.append("use Linux 5.13 or newer with Landlock switched on (kernel parameter lsm=landlock,...)")
    if not steps:
        steps.append("use Linux 5.12 or newer on x86-64 or arm64; in a container, --security-opt seccomp=unconfined")
    return f"To have stronger isolation: {'; or '.join(steps)}. Or raise SANDBOX_MIN_TIER, if you trust your users."
