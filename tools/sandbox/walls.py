"""The walls: what the prepared parent sees of the machine, and how one of its forks gives up all but a folder.

Tier 1: a root of its own (system and Python read-only, nothing of the server), and for each session new user, mount,
pid, network, IPC, UTS and cgroup namespaces; Landlock, a system call filter and resource limits on top.
Tier 2: Landlock, filter and limits alone. Tier 3: limits alone. In all of them: no root, no capability, no way to more.

Where a kernel refuses a step of its tier, `OSError` or `ValueError` ends the attempt: no step is skipped in silence.
"""

import os
import resource
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from . import landlock, linux, seccomp

WORKSPACE = "/workspace"
_SCRATCH = Path("/scratch")
_TMP = "/tmp"  # noqa: S108 (a file system of its own in every session)
CACHE = "/var/cache"
_MIB = 1 << 20
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_PYTHON_PARTS = ("bin", "lib", "lib64", "share", "pyvenv.cfg")
_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "localtime", "timezone", "mime.types")
_DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom"))
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "shm": _TMP}
_QUIET = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_SESSION_NAMESPACES = (
    linux.CLONE_NEWUSER
    | linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may use."""

    memory_mb: int
    processes: int  # threads count too
    disk_mb: int
    tmp_mb: int = 64
    open_files: int = 256
    cpu_s: int = 3600  # of each process, over its life; the time of a call is bounded by its deadline


@dataclass(frozen=True, slots=True)
class Plan:
    """How the prepared parent is to set itself up."""

    tier: int
    scratch: str  # the folder that holds the sessions' folders
    hidden: tuple[str, ...]  # the servers' own folders: out of sight even where they lie below a system folder
    uid: int  # whom to become when we are root
    limits: Limits
    libraries: tuple[str, ...]  # modules that are loaded before any session begins
    programs: bool = False  # sessions run a program each (`nanocoder_session`) and no interpreter; tier 1 alone
    visible: tuple[str, ...] = ()  # further files and folders that can be read
    desktop: bool = False  # for browsers and office programs; tier 1 alone


def default_uid() -> int:
    """Whom sandboxed code runs as when the server is root: a number that no account has."""
    return 64999 if os.geteuid() == 0 else os.geteuid()


def open_namespaces() -> None:
    """Take the prepared parent out of the machine's mounts and process tree; the next fork is its first process."""
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWPID
    if os.geteuid() == 0:
        linux.unshare(flags)
    else:
        _unshare_as_ourselves(flags | linux.CLONE_NEWUSER)


def build_world(plan: Plan) -> None:
    """Replace the root: the system and Python read-only, the sessions' folders, and nothing else of this machine."""
    linux.make_mounts_private()
    visible = _visible_paths(plan)
    links = {path: path.readlink() for path in visible if path.is_symlink()}
    parts = {path: linux.copy_mount(str(path)) for path in visible if path not in links}
    for fd in parts.values():
        linux.set_mount_attributes(fd, linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV)
    devices = {path: linux.copy_mount(str(path)) for path in _DEVICES}
    scratch = linux.copy_mount(plan.scratch)
    linux.set_mount_attributes(scratch, linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV)

    root = Path("/tmp")  # noqa: S108 (a place that every system has; this hides it from ourselves alone)
    linux.mount("tmpfs", str(root), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=32m,nr_inodes=8192,mode=0755")
    for path, fd in (parts | devices | {_SCRATCH: scratch}).items():
        _attach(fd, _inside(root, path))
    for path, target in links.items():
        _inside(root, path).parent.mkdir(parents=True, exist_ok=True)
        _inside(root, path).symlink_to(target)
    for folder in (WORKSPACE, _TMP, "/proc", CACHE):
        _inside(root, Path(folder)).mkdir(parents=True, exist_ok=True)
    for name, device in _DEVICE_LINKS.items():
        (root / "dev" / name).symlink_to(device)
    uid, gid = (plan.uid, plan.uid) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    _write_etc(root / "etc", uid, gid)
    os.chown(_inside(root, Path(CACHE)), uid, gid)
    linux.mount("proc", f"{root}/proc", "proc", _QUIET)
    linux.change_root(str(root))


def become_nobody(uid: int) -> None:
    """Leave root, if we are it, and every capability."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # cleared by the change of uid; needed to write our own uid_map


def enter_session_namespaces() -> None:
    """Leave the parent's view; the next fork is process 1 of the session."""
    _unshare_as_ourselves(_SESSION_NAMESPACES)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")  # no namespace below this one


def confine(plan: Plan, session: str, address_space: int, processes: int, *, connect_port: int = 0) -> None:
    """Shut this process in: after this it can reach the session's folder and its own memory.

    `address_space` is what the parent has mapped already, `processes` what the uid runs already (0 in namespaces).
    `connect_port` may be connected to over TCP, in whatever network this process is in.
    """
    Path("/proc/self/oom_score_adj").write_text("1000")  # of all processes, these are to be killed first
    if plan.tier == 1:
        _mount_session(plan, session)
        readable = [Path("/")]
        writable = [Path(WORKSPACE), Path(_TMP), *_DEVICES]
        home = _TMP
    else:
        readable = _visible_paths(plan)
        writable = [Path(plan.scratch, session), *_DEVICES]
        home = f"{plan.scratch}/{session}/.tmp"
        Path(home).mkdir(mode=0o700, exist_ok=True)
    os.chdir(workspace_path(plan, session))
    os.environ.update(HOME=home, TMPDIR=home)
    os.nice(10)  # the servers go first
    linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    _limit(plan.limits, address_space, processes)
    if plan.tier == 2 or (plan.tier == 1 and landlock.find_version()):  # namespaces can do without it
        landlock.restrict(readable=readable, writable=writable, connect_port=connect_port, unix_sockets=plan.desktop)
    if plan.tier <= 2:
        signal_pid = os.getpid() if plan.tier == 2 else None
        linux.set_seccomp_filter(
            seccomp.build_filter(signal_pid=signal_pid, connect=bool(connect_port), desktop=plan.desktop)
        )


def workspace_path(plan: Plan, session: str) -> str:
    """Where the session's folder is for its own code."""
    return WORKSPACE if plan.tier == 1 else f"{plan.scratch}/{session}"


def _unshare_as_ourselves(flags: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(flags)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _visible_paths(plan: Plan) -> list[Path]:
    """The system, and what this Python consists of where that lies elsewhere; nothing of the servers."""
    hidden = [Path(path) for path in plan.hidden]
    paths = [path for name in _SYSTEM for path in _without(Path(name), hidden)]
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    parts = (Path(prefix, part) for prefix in sorted(prefixes) for part in _PYTHON_PARTS)
    paths += [path for path in parts if path.exists() and not any(path.is_relative_to(known) for known in paths)]
    paths += [path for name in _ETC if (path := Path("/etc", name)).exists()]
    more = (Path(path) for path in plan.visible)
    return paths + [path for path in more if path.exists() and not any(path.is_relative_to(known) for known in paths)]


def _without(path: Path, hidden: list[Path]) -> list[Path]:
    """`path`, or where something hidden lies below it, what lies beside that."""
    if path in hidden or not path.exists():
        return []
    if path.is_symlink() or not any(secret.is_relative_to(path) for secret in hidden):
        return [path]
    return [part for child in sorted(path.iterdir()) for part in _without(child, hidden)]


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _attach(fd: int, target: Path) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    linux.attach_mount(fd, str(target))
    os.close(fd)


def _write_etc(etc: Path, uid: int, gid: int) -> None:
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(f"coder:x:{uid}:{gid}:coder:/tmp:/bin/sh\n")
    (etc / "group").write_text(f"coder:x:{gid}:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")


def _mount_session(plan: Plan, session: str) -> None:
    linux.make_mounts_private()
    root = os.open("/", os.O_PATH)
    linux.set_mount_attributes(root, linux.MOUNT_ATTR_RDONLY, recursive=False)
    os.close(root)
    folder = linux.copy_mount(f"{_SCRATCH}/{session}", follow=False)
    linux.attach_mount(folder, WORKSPACE)
    os.close(folder)
    linux.mount("tmpfs", str(_SCRATCH), "tmpfs", _QUIET | linux.MS_RDONLY, "size=4k")  # the other sessions are gone
    # Where this Python is installed below /tmp, as in a checkout that somebody tries out, it is to stay in sight.
    python = {path: linux.copy_mount(str(path)) for path in _visible_paths(plan) if path.is_relative_to(_TMP)}
    options = f"size={plan.limits.tmp_mb}m,nr_inodes=4096,mode=0700"
    linux.mount("tmpfs", _TMP, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    for path, fd in python.items():
        _attach(fd, path)
    try:
        linux.mount("proc", "/proc", "proc", _QUIET | linux.MS_RDONLY, "subset=pid")
    except OSError:  # before Linux 5.8
        linux.mount("proc", "/proc", "proc", _QUIET | linux.MS_RDONLY)


def _limit(limits: Limits, address_space: int, processes: int) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, address_space + limits.memory_mb * _MIB),
        (resource.RLIMIT_FSIZE, limits.disk_mb * _MIB),
        (resource.RLIMIT_NPROC, processes + limits.processes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_STACK, 16 * _MIB),
        (resource.RLIMIT_CORE, 1),  # none: 0 would still feed a core_pattern that is a pipe
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
