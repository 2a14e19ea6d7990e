"""The system call filter, as a BPF program made here: no library, and nothing allowed that is not listed.

The program: another architecture (or x32) ends the process; a call of `syscalls.py` is allowed, some of them only with
harmless arguments; a known call that is not listed fails with EPERM; an unknown one with ENOSYS, so that libc falls
back from it.
"""

import errno
import stat
import struct
from dataclasses import dataclass

from .linux import MACHINE, PR_SET_DUMPABLE
from .syscalls import AUDIT_ARCH, CLONE3, CONNECT, NEWEST_KNOWN, SOCKET, allowed_syscalls, desktop_syscalls

_LOAD, _JUMP_EQ, _JUMP_GT, _JUMP_GE, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16
_X32_BIT = 0x40000000
_U32 = 0xFFFFFFFF

_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone takes
_SET_ID_BITS = stat.S_ISUID | stat.S_ISGID
_AF_UNIX, _AF_INET, _SOCK_STREAM = 1, 2, 1
_SOCK_TYPE_MASK = 0xF
_TTY_INJECTIONS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_PR_SET_MM = 35
_SIGNAL_SENDERS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on one argument: its bits under `mask` must (or must not) be `value`."""

    argument: int
    value: int
    mask: int = _U32
    equal: bool = True


_RULES: dict[str, tuple[Rule, ...]] = {
    "clone": (Rule(0, 0, mask=_NAMESPACES),),
    "socketpair": (Rule(0, _AF_UNIX), Rule(1, _SOCK_STREAM, mask=_SOCK_TYPE_MASK)),  # connected for good: no address
    "ioctl": tuple(Rule(1, request, equal=False) for request in _TTY_INJECTIONS),
    "prctl": (Rule(0, PR_SET_DUMPABLE, equal=False), Rule(0, _PR_SET_MM, equal=False)),  # the watcher must see in
    "chmod": (Rule(1, 0, mask=_SET_ID_BITS),),
    "fchmod": (Rule(1, 0, mask=_SET_ID_BITS),),
    "fchmodat": (Rule(2, 0, mask=_SET_ID_BITS),),
    "creat": (Rule(1, 0, mask=_SET_ID_BITS),),
    "open": (Rule(2, 0, mask=_SET_ID_BITS),),
    "openat": (Rule(3, 0, mask=_SET_ID_BITS),),
    "mkdir": (Rule(1, 0, mask=_SET_ID_BITS),),
    "mkdirat": (Rule(2, 0, mask=_SET_ID_BITS),),
    "personality": (Rule(0, 0, mask=0x0FFFFFFF),),
}


def build_filter(
    *, signal_pid: int | None = None, connect: bool = False, desktop: bool = False, machine: str = MACHINE
) -> bytes:
    """The program for this machine.

    `signal_pid` is for a process without a pid namespace: it may then signal that one process alone.
    `connect` is for a process in a network of its own: it may connect TCP sockets of IPv4.
    `desktop` is for browsers and office programs in namespaces of their own: their processes talk over Unix sockets.

    Raises:
        ValueError: for a machine whose system calls are not known here.
    """
    allowed = allowed_syscalls(machine)
    if not allowed:
        raise ValueError(f"the system calls of {machine} are not known")
    rules = dict(_RULES)
    if signal_pid is not None:
        allowed.pop("pidfd_send_signal", None)
        rules |= {name: (Rule(0, signal_pid),) for name in _SIGNAL_SENDERS}
    if connect:
        allowed |= {"socket": SOCKET[machine], "connect": CONNECT[machine]}
        rules["socket"] = (Rule(0, _AF_INET), Rule(1, _SOCK_STREAM, mask=_SOCK_TYPE_MASK))
    if desktop:
        allowed |= desktop_syscalls(machine)
        rules |= {"socket": (Rule(0, _AF_UNIX),), "socketpair": (Rule(0, _AF_UNIX),)}
    checked = {allowed.pop(name): conditions for name, conditions in rules.items() if name in allowed}
    program = [
        _op(_LOAD, _OFFSET_ARCH),
        _op(_JUMP_EQ, AUDIT_ARCH[machine], 1, 0),
        _op(_RETURN, _KILL_PROCESS),
        _op(_LOAD, _OFFSET_NR),
        _op(_JUMP_GE, _X32_BIT, 0, 1),
        _op(_RETURN, _KILL_PROCESS),
    ]
    for number, conditions in checked.items():
        body = _check_arguments(conditions)
        program += [_op(_JUMP_EQ, number, 0, len(body)), *body]
    for low, high in _ranges(sorted(allowed.values())):
        program += [_op(_JUMP_GE, low, 0, 2), _op(_JUMP_GT, high, 1, 0), _op(_RETURN, _ALLOW)]
    program += [
        _op(_JUMP_EQ, CLONE3, 2, 0),  # its flags are out of a filter's sight: libc falls back to clone
        _op(_JUMP_GT, NEWEST_KNOWN, 1, 0),
        _op(_RETURN, _ERRNO | errno.EPERM),
        _op(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    return b"".join(program)


def _check_arguments(conditions: tuple[Rule, ...]) -> list[bytes]:
    body: list[bytes] = []
    for rule in conditions:
        body += [_op(_LOAD, _OFFSET_ARGS + 8 * rule.argument)]  # little endian: the low half comes first
        if rule.mask != _U32:
            body += [_op(_AND, rule.mask)]
        body += [_op(_JUMP_EQ, rule.value, *((1, 0) if rule.equal else (0, 1))), _op(_RETURN, _ERRNO | errno.EPERM)]
    return [*body, _op(_RETURN, _ALLOW)]


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
