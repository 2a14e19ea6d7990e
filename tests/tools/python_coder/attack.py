"""Attempts to get out of the sandbox, past its limits, or at its machinery: one property each.

`code` is what a hostile user sends, in the plainest form; `holds` says of the result that the attempt failed. Words in
`@` stand for what the test has laid out as prey: ports that listen, files that hold a secret, the server's process.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.core.contracts import ToolResult

SECRET = "swordfish-7c1e"
Check = Callable[[ToolResult], bool]


@dataclass(frozen=True)
class Attack:
    name: str
    code: str
    holds: Check
    timeout: float | None = None


def fails(*errors: str) -> Check:
    """The code ended with one of these errors."""
    return lambda result: not result.success and str(result.error).startswith(errors)


def gives(*values: Any) -> Check:
    """The last expression was one of these."""
    return lambda result: result.data["value"] in {repr(value) for value in values}


def stopped(*words: str) -> Check:
    """We ended the code, with a reason that holds one of these words."""
    return lambda result: not result.success and any(word in str(result.error) for word in words)


def survives(result: ToolResult) -> bool:
    """Whatever became of it: what matters is that the next call works, which is checked after every attack."""
    return True


denied = fails("PermissionError", "FileNotFoundError", "NotADirectoryError", "OSError: [Errno 30]")
no_call = gives((-1, errno.EPERM), (-1, errno.ENOSYS), (-1, errno.EACCES), (-1, errno.EINVAL))
SYSCALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    r = libc.syscall(*[a if isinstance(a, bytes) else ctypes.c_long(a) for a in args])
    return r, ctypes.get_errno()
"""


def forbidden_call(name: str, arguments: str, check: Check = no_call) -> Attack:
    return Attack(name, f"{SYSCALL}call({arguments})", check)
