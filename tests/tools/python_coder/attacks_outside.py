# ruff: noqa: E501 (a table: the attacker's code reads best in one line)
"""Attacks on what lies outside: the network, files of others, places to write to, rights and kernel calls."""

from pathlib import Path

from tests.tools.python_coder.attack import SYSCALL, Attack, denied, fails, forbidden_call, gives, stopped

NETWORK = [
    Attack("the tools API over loopback", "import socket\nsocket.create_connection(('127.0.0.1', @port@), 2)", denied),
    Attack(
        "HTTP to the main API",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:@port@/health', timeout=2)",
        fails("urllib.error.URLError"),
    ),
    Attack(
        "UDP",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @port@))",
        denied,
    ),
    Attack("DNS", "import socket\nsocket.getaddrinfo('example.org', 80)", fails("socket.gaierror")),
    Attack("IPv6", "import socket\nsocket.socket(socket.AF_INET6).connect(('::1', @port@))", denied),
    Attack("a Unix socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('@unix@')", denied),
    Attack("an abstract Unix socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0@abstract@')", denied),
    Attack("a raw socket", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", denied),
    Attack("a packet socket", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)", denied),
    Attack("a netlink socket", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)", denied),
    Attack("a vsock socket", "import socket\nsocket.socket(40, socket.SOCK_STREAM)", denied),
    Attack("an unconnected pair", "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)", denied),
    Attack(
        "a server of one's own",
        "import socket\na, b = socket.socketpair()\na.listen()",
        fails("PermissionError"),
    ),
    Attack(
        "the shell's own sockets",
        "import subprocess\nsubprocess.run(['bash', '-c', 'echo x > /dev/tcp/127.0.0.1/@port@']).returncode == 0",
        gives(False),
    ),
]

READING = [
    Attack("/etc/shadow", "open('/etc/shadow').read()", denied),
    Attack("/etc/shadow through /proc", "open('/proc/self/root/etc/shadow').read()", denied),
    Attack("/etc/shadow by climbing", "open('../' * 20 + 'etc/shadow').read()", denied),
    Attack("the server's settings", "open('@root@/config.py').read()", denied),
    Attack(
        "the server's code",
        "import sys\nsys.path.insert(0, '@root@')\nimport backend",
        fails("ModuleNotFound", "Permission"),
    ),
    Attack(".env", "open('@data@/.env').read()", denied),
    Attack("the token secret", "open('@data@/jwt_secret').read()", denied),
    Attack("the database", "import sqlite3\nsqlite3.connect('@data@/app.db').execute('select 1')", fails("sqlite3.")),
    Attack("another session by its path", "open('@scratch@/neighbour/diary.txt').read()", denied),
    Attack("another session from ours", "open('../neighbour/diary.txt').read()", denied),
    Attack("another session inside", "open('/scratch/neighbour/diary.txt').read()", denied),
    Attack(
        "which sessions there are", "import os\n'neighbour' in os.listdir('..')", lambda r: r.data["value"] != "True"
    ),
    Attack("the server's environment", "open('/proc/@server@/environ').read()", denied),
    Attack(
        "every environment in sight",
        "import glob\nfound = b''\nfor path in glob.glob('/proc/*/environ'):\n    try:\n        found += open(path,"
        " 'rb').read()\n    except OSError: pass\nb'swordfish' in found",
        gives(False),
    ),
    Attack("our own environment", "import os\n'swordfish' in str(os.environ)", gives(False)),
    Attack("the server's memory", "open('/proc/@server@/mem', 'rb').read(1)", denied),
    Attack("the server's files", "import os\nos.listdir('/proc/@server@/fd')", denied),
    Attack(
        "inherited descriptors",
        "import os\nfound = []\nfor fd in range(3, 1021):\n    try: os.fstat(fd); found.append(fd)\n    except OSError:"
        " pass\nfound",
        gives([]),
    ),
    Attack("the disk itself", "import os\nos.open('/dev/vda', os.O_RDONLY)", denied),
    Attack("physical memory", "open('/dev/mem', 'rb')", denied),
    Attack("the kernel's log", "open('/dev/kmsg')", denied),
    Attack("kernel memory", "open('/proc/kcore', 'rb')", denied),
    Attack(
        "the parent's leftovers in memory",
        "import gc\nword = ''.join(('sword', 'fish'))\nany(word in repr(o) for o in gc.get_objects() if isinstance(o, (dict, list))"
        " and o is not globals())",
        gives(False),
        timeout=15,
    ),
]

WRITING = [
    Attack("/etc/passwd", "open('/etc/passwd', 'a').write('x')", denied),
    Attack("the system", "open('/usr/bin/mine', 'w')", denied),
    Attack("the libraries", "import numpy\nopen(numpy.__file__, 'a')", denied),
    Attack("the folder above", "open('../mine', 'w')", denied),
    Attack("a device", "import os\nos.mknod('disk', 0o60666, os.makedev(8, 0))", denied),
    Attack("a pipe for a trap", "import os\nos.mkfifo('pipe')", denied),
    Attack("through a symlink", "import os\nos.symlink('@data@/app.db', 'db')\nopen('db', 'w').write('x')", denied),
    Attack(
        "through a symlinked folder",
        "import os\nos.symlink('@scratch@/neighbour', 'n')\nopen('n/diary.txt', 'w').write('x')",
        denied,
    ),
    Attack(
        "a hard link to a file outside", "import os\nos.link('/etc/passwd', 'p')", fails("OSError", "PermissionError")
    ),
    Attack(
        "a hard link to the secret",
        "import os\nos.link('@data@/jwt_secret', 'p')",
        fails("FileNotFoundError", "PermissionError", "OSError"),
    ),
    Attack(
        "moving the working folder", "import os\nos.rename(os.getcwd(), '/tmp/elsewhere')", fails("OSE", "Permission")
    ),
    Attack(
        "removing the working folder",
        "import os\nos.rmdir(os.getcwd())",
        fails("OSError", "PermissionError", "FileNotF"),
    ),
    Attack("a setuid file", "import os\nopen('f', 'w').close()\nos.chmod('f', 0o4755)", denied),
    Attack("a file born setuid", "import os\nos.open('f', os.O_CREAT | os.O_WRONLY, 0o6755)", denied),
    Attack(
        "a symlink as a result",
        "import os\nos.symlink('/etc/passwd', 'result.txt')\nos.symlink('@data@/app.db', 'db.txt')",
        lambda result: result.success and result.data["files"] == [],
    ),
    Attack("kernel settings", "open('/proc/sys/kernel/hostname', 'w').write('x')", denied),
    Attack("safety from the memory killer", "open('/proc/self/oom_score_adj', 'w').write('-1000')", denied),
    Attack(
        "shared memory of others",
        "open('/dev/shm/coder-mine', 'w').write('x')",
        lambda _: not Path("/dev/shm/coder-mine").exists(),
    ),
]

RIGHTS = [
    Attack("becoming root", "import os\nos.setuid(0)", denied),
    Attack("being root", "import os\n0 in (os.getuid(), os.geteuid(), os.getgid())", gives(False)),
    Attack(
        "a setuid program",
        "import subprocess\nsubprocess.run(['su', '-c', 'id'], stdin=subprocess.DEVNULL, capture_output=True)"
        ".returncode == 0",
        gives(False),
    ),
    Attack("capabilities back", f"{SYSCALL}libc.capset(b'\\x22\\x05\\x08\\x20' + bytes(4), b'\\xff' * 24)", gives(-1)),
    Attack(
        "capabilities held",
        "import ctypes\nheld = ctypes.create_string_buffer(24)\nctypes.CDLL(None).capget(b'\\x22\\x05\\x08\\x20'"
        " + bytes(4), held), held.raw.strip(b'\\0')",
        gives((0, b"")),
    ),
    Attack("hiding from the watcher", f"{SYSCALL}libc.prctl(4, 0, 0, 0, 0)", gives(-1)),
    Attack("a new user namespace", f"{SYSCALL}libc.unshare(0x10000000)", gives(-1)),
    Attack("a new mount namespace", f"{SYSCALL}libc.unshare(0x20000)", gives(-1)),
    Attack("another's namespace", f"{SYSCALL}libc.setns(os.open('.', os.O_RDONLY), 0)", gives(-1)),
    Attack("mounting", f"{SYSCALL}libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)", gives(-1)),
    Attack("a bind mount", f"{SYSCALL}libc.mount(b'/', b'/tmp', b'', 0x1000, None)", gives(-1)),
    Attack("unmounting the cover", f"{SYSCALL}libc.umount2(b'/scratch', 2)", gives(-1)),
    Attack("chroot", "import os\nos.chroot('/tmp')", denied),
    Attack(
        "more processes by asking", "import resource as r\nr.setrlimit(r.RLIMIT_NPROC, (10**6, 10**6))", fails("Value")
    ),
    Attack("better priority", "import os\nos.nice(-20)", denied),
    forbidden_call("clone into namespaces", "56, 0x10000000 | 17, 0, 0, 0, 0"),
    forbidden_call("clone3", "435, bytes(88), 88"),
    forbidden_call("ptrace", "101, 0, 0, 0, 0"),
    forbidden_call("another's memory", "310, @server@, 0, 0, 0, 0, 0"),
    forbidden_call("keyctl", "250, 0, -3, 0, 0"),
    forbidden_call("add_key", "248, b'user', b'k', b'v', 1, -3"),
    forbidden_call("request_key", "249, b'user', b'k', 0, -3"),
    forbidden_call("io_uring", "425, 8, bytes(120)"),
    forbidden_call("perf_event_open", "298, bytes(112), 0, -1, -1, 0"),
    forbidden_call("bpf", "321, 0, bytes(72), 72"),
    forbidden_call("userfaultfd", "323, 0"),
    forbidden_call("memfd_create", "319, b'm', 0"),
    forbidden_call("shmget", "29, 0, 4096, 0o1600"),
    forbidden_call("open_by_handle_at", "304, 3, bytes(128), 0"),
    forbidden_call("name_to_handle_at", "303, -100, b'/', bytes(128), bytes(8), 0"),
    forbidden_call("pidfd_getfd", "438, 3, 0, 0"),
    forbidden_call("kexec_load", "246, 0, 0, 0, 0"),
    forbidden_call("init_module", "175, b'', 0, b''"),
    forbidden_call("reboot", "169, 0, 0, 0, 0"),
    forbidden_call("swapon", "167, b'/x', 0"),
    forbidden_call("quotactl", "179, 0, b'/', 0, 0"),
    forbidden_call("settimeofday", "164, bytes(16), 0"),
    forbidden_call("sethostname", "170, b'x', 1"),
    forbidden_call("syslog", "103, 3, bytes(16), 16"),
    forbidden_call("personality", "135, 0x0040000"),
    forbidden_call("landlock undone", "444, 0, 0, 1"),
    forbidden_call("a call of the future", "9999, 0"),
    Attack("x32 calls", f"{SYSCALL}call(0x40000000 | 39)", stopped("SIGSYS", "replaced")),
    Attack(
        "32-bit calls",
        "import ctypes, mmap\npage = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
        stopped("SIGSYS", "replaced"),
    ),
]

ATTACKS = NETWORK + READING + WRITING + RIGHTS
