"""Run a command as an ordinary user, though this Python may lie where only root can look.

    python -m tests.tools.python_coder.as_user COMMAND...

In mounts of our own, each closed folder above what the command needs is covered by an empty one that holds nothing but
that. Root only.
"""

import os
import sys
from pathlib import Path

from tools.sandbox import linux

UID = 64321


def main(command: list[str]) -> None:
    linux.unshare(linux.CLONE_NEWNS)
    linux.make_mounts_private()
    needed = {Path(path).absolute() for path in (sys.prefix, sys.base_prefix, Path.cwd())}
    copies = {path: linux.copy_mount(str(path)) for path in needed if (_closed_ancestor(path))}
    for closed in {_closed_ancestor(path) for path in copies}:
        linux.mount("tmpfs", str(closed), "tmpfs", 0, "mode=0755")
    for path, fd in sorted(copies.items()):
        path.mkdir(parents=True, exist_ok=True)
        linux.attach_mount(fd, str(path))
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.chdir(Path.cwd())
    os.execvpe(command[0], command, os.environ | {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"})


def _closed_ancestor(path: Path) -> Path | None:
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


if __name__ == "__main__":
    main(sys.argv[1:])
