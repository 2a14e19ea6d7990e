"""Attempts to get out of a task's sandbox, made by Node at the start of the tool: each must fail."""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from . import workspace
from .zygote_client import ZygoteFailed

TIMEOUT_S = 30.0
_NEEDED = ("network", "other files", "writing elsewhere", "the server's environment", "signals", "new rights", "root")

_SCRIPT = """
const fs = require('fs'), net = require('net'), dgram = require('dgram');
const held = {};
const note = (name, open) => { held[name] = (held[name] ?? true) && !open; };
const trial = (name, attempt) => { let open = true; try { attempt(); } catch { open = false; } note(name, open); };
const write = (path) => { fs.writeFileSync(path, 'x'); fs.unlinkSync(path); };
trial('other files', () => fs.readFileSync(SECRET));
trial('other files', () => fs.readFileSync('../' + OTHER + '/secret'));
trial('other files', () => fs.readFileSync('/etc/shadow'));
for (const path of [BESIDE, '/etc/trial', '/usr/trial', '../trial', '/trial', process.execPath + '.trial'])
  trial('writing elsewhere', () => write(path));
trial('the server\\'s environment', () => fs.readFileSync('/proc/' + SERVER + '/environ'));
trial('signals', () => process.kill(SERVER, 0));
const status = fs.readFileSync('/proc/self/status', 'utf8');
const bound = [/NoNewPrivs:\\s*1/, /Seccomp:\\s*2/, /CapEff:\\s*0+\\n/];
note('new rights', !bound.every((line) => line.test(status)));
note('root', process.getuid() === 0);
write('trial');
const tcp = (host, port) => new Promise((done) => {
  const socket = net.connect({host, port, timeout: 2000});
  socket.on('connect', () => done(true)).on('error', () => done(false)).on('timeout', () => done(false));
});
const udp = () => new Promise((done) => {
  try {
    const socket = dgram.createSocket('udp4');
    socket.on('error', () => done(false));
    socket.send('x', SERVER_PORT, '127.0.0.1', (error) => done(!error));
  } catch { done(false); }
});
(async () => {
  note('network', await tcp('127.0.0.1', SERVER_PORT));
  note('network', await tcp('::1', SERVER_PORT));
  note('network', await tcp('192.0.2.1', 80));
  note('network', await udp());
  console.log(JSON.stringify(held));
  process.exit(0);
})();
"""


@dataclass(frozen=True, slots=True)
class Trial:
    folder: Path
    other: Path

    @classmethod
    def make(cls, scratch: Path) -> "Trial":
        mark = secrets.token_hex(8)
        return cls(scratch / f"trial-{mark}", scratch / f"trial-{mark}-other")

    def lay_out(self, uid: int) -> None:
        """Blocks: makes the folders."""
        for folder in (self.folder, self.other):
            workspace.prepare(folder, uid)
        (self.other / "secret").write_text("secret")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """The script, while somebody listens on the port that it tries."""
        listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        values = {
            "SECRET": str(self.other / "secret"),
            "OTHER": self.other.name,
            "BESIDE": f"{self.folder}-file",
            "SERVER": os.getpid(),
            "SERVER_PORT": listener.sockets[0].getsockname()[1],
        }
        try:
            yield f"const {', '.join(f'{name} = {json.dumps(value)}' for name, value in values.items())};{_SCRIPT}"
        finally:
            listener.close()


def judge(stopped: str, stdout: bytes, stderr: bytes) -> dict[str, bool]:
    """What was held back.

    Raises:
        ZygoteFailed: not everything, or the trial broke off.
    """
    try:
        held_back: dict[str, bool] = json.loads(stdout)
    except ValueError:
        said = stderr.decode(errors="replace").strip()[-300:]
        raise ZygoteFailed(f"Node does not run in the sandbox: {stopped or said or 'it said nothing'}") from None
    if open_ways := [name for name in _NEEDED if not held_back.get(name)]:
        raise ZygoteFailed(f"not held back in a trial: {', '.join(open_ways)}")
    return held_back
