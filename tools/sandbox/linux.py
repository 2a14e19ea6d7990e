"""The few kernel calls that isolation needs and that Python does not offer, through libc.

Every function raises `OSError` as `os` does. Linux alone; x86-64 and arm64.
"""

import contextlib
import ctypes
import os
import platform

MACHINE = platform.machine()

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 4, 24, 28
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
SECBIT_NOROOT_AND_NO_FIXUP_LOCKED = 0b1111

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE, _AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x8000, 0x100
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(MACHINE, -1)
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(number: int, *args: int | bytes | ctypes.Array[ctypes.c_char] | None, what: str = "syscall") -> int:
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _check(_libc.syscall(ctypes.c_long(number), *words), what)


def prctl(option: int, arg: int = 0, arg3: int = 0) -> None:
    words = [ctypes.c_ulong(word) for word in (arg, arg3, 0, 0)]
    _check(_libc.prctl(option, *words), f"prctl {option}")


def set_seccomp_filter(program: bytes) -> None:
    """Install a BPF program for this thread and all that it starts."""
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    handle = Program(len(program) // 8, ctypes.addressof(code))
    pr_set_seccomp, mode_filter = 22, 2
    words = (ctypes.c_ulong(mode_filter), ctypes.byref(handle), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _check(_libc.prctl(pr_set_seccomp, *words), "seccomp")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)
    _check(_libc.mount(*words), f"mount {kind} on {target}")


def make_mounts_private() -> None:
    mount("none", "/", "none", MS_REC | MS_PRIVATE)


def copy_mount(path: str, *, follow: bool = True) -> int:
    """A detached copy of what is mounted at `path`, as a descriptor that outlives a change of the root."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE | (0 if follow else _AT_SYMLINK_NOFOLLOW)
    return syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags, what=f"open_tree {path}")


def set_mount_attributes(fd: int, attributes: int, *, recursive: bool = True) -> None:
    """Add `MOUNT_ATTR_*` to the mount behind a descriptor, and to those below it."""
    request = attributes.to_bytes(8, "little") + bytes(24)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall(_SYS_MOUNT_SETATTR, fd, b"", flags, request, len(request), what="mount_setattr")


def attach_mount(fd: int, target: str) -> None:
    args = (fd, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    syscall(_SYS_MOVE_MOUNT, *args, what=f"move_mount {target}")


def change_root(path: str) -> None:
    """Make `path`, a mount point, the root, and let go of the old one."""
    os.chdir(path)
    syscall(_SYS_PIVOT_ROOT, b".", b".", what="pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability, and every way to come by one."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one that this kernel knows, or not ours to drop: no_new_privs covers that case
    with contextlib.suppress(PermissionError):  # without a capability to begin with
        prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_AND_NO_FIXUP_LOCKED)
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    _check(_libc.capset(header, bytes(24)), "capset")
