"""Landlock: the kernel's own rule book for what a process may open, needing no privilege and no library.

What the kernel's version does not know is left out: `restrict` asks for the most that there is.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from . import linux

_SYS_CREATE, _SYS_ADD_RULE, _SYS_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_MAKE_CHAR, _MAKE_SOCKET, _MAKE_FIFO, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 10, 1 << 11
_FIRST_VERSION_RIGHTS = (1 << 13) - 1
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ_RIGHTS = _EXECUTE | _READ_FILE | _READ_DIR
_NEVER = _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCKET | _MAKE_FIFO
_NET_RIGHTS, _CONNECT = 0b11, 0b10  # bind and connect TCP
_RULE_PATH, _RULE_PORT = 1, 2
_SCOPES = 0b11  # abstract Unix sockets and signals stay among ourselves


def find_version() -> int:
    """Landlock's ABI version, 0 where there is none."""
    try:
        return linux.syscall(_SYS_CREATE, None, 0, 1, what="landlock")
    except OSError:
        return 0


def restrict(
    *, readable: Iterable[Path], writable: Iterable[Path], connect_port: int = 0, unix_sockets: bool = False
) -> None:
    """Leave this process, for good, with these paths and no network, but for one port to connect to, if it is given.

    Needs no_new_privs. Missing paths are skipped. `unix_sockets` may be made where it can write.

    Raises:
        OSError: Landlock is not there, or not switched on.
    """
    version = find_version()
    if version < 1:
        raise OSError("landlock is not available")
    rights = _FIRST_VERSION_RIGHTS
    rights |= _REFER if version >= 2 else 0
    rights |= _TRUNCATE if version >= 3 else 0
    rights |= _IOCTL_DEV if version >= 5 else 0
    ruleset = rights.to_bytes(8, "little")
    ruleset += _NET_RIGHTS.to_bytes(8, "little") if version >= 4 else b""
    ruleset += _SCOPES.to_bytes(8, "little") if version >= 6 else b""
    never = _NEVER & ~_MAKE_SOCKET if unix_sockets else _NEVER
    fd = linux.syscall(_SYS_CREATE, ruleset, len(ruleset), 0, what="landlock_create_ruleset")
    try:
        for paths, granted in ((readable, _READ_RIGHTS), (writable, rights & ~never)):
            for path in paths:
                _grant(fd, path, granted & rights)
        if connect_port and version >= 4:
            rule = _CONNECT.to_bytes(8, "little") + connect_port.to_bytes(8, "little")
            linux.syscall(_SYS_ADD_RULE, fd, _RULE_PORT, rule, 0, what="landlock_add_rule port")
        linux.syscall(_SYS_RESTRICT, fd, 0, what="landlock_restrict_self")
    finally:
        os.close(fd)


def _grant(ruleset: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        rule = rights.to_bytes(8, "little") + fd.to_bytes(4, "little")
        linux.syscall(_SYS_ADD_RULE, ruleset, _RULE_PATH, rule, 0, what=f"landlock_add_rule {path}")
    finally:
        os.close(fd)
