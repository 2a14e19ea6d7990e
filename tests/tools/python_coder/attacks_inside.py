# ruff: noqa: E501 (a table: the attacker's code reads best in one line)
"""Attacks on what lies inside: the limits of a session, and the machinery that runs its code."""

from tests.tools.python_coder.attack import Attack, fails, stopped, survives

LIMITS = [
    Attack(
        "a fork bomb",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        stopped("longer", "processes"),
        1,
    ),
    Attack(
        "a fork bomb of daemons",
        "import os\nwhile True:\n    try:\n        if os.fork() == 0: os.setsid()\n    except OSError: pass",
        stopped("longer", "processes"),  # whichever of the two bounds strikes first
        1,
    ),
    Attack(
        "a thread bomb",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        fails("RuntimeError: can't start new thread"),
        10,
    ),
    Attack("memory", "b = bytearray(4 << 30)", fails("MemoryError")),
    Attack("memory bit by bit", "b = []\nwhile True: b.append(bytearray(1 << 20))", fails("MemoryError"), 15),
    Attack("memory by mmap", "import mmap\nmmap.mmap(-1, 4 << 30)", fails("OSError: [Errno 12]", "MemoryError")),
    Attack("memory by a big integer", "1 << (1 << 36)", fails("MemoryError", "OverflowError")),
    Attack("memory by a list", "[0] * (1 << 32)", fails("MemoryError")),
    Attack(
        "memory of many processes",
        "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n        b = bytearray(b'x') * (300 << 20)\n"
        "        time.sleep(60)\ntime.sleep(20)",
        stopped("memory"),
        15,
    ),
    Attack(
        "memory by shared files",
        "open('/dev/shm/big', 'wb').write(bytes(200 << 20))",
        fails("OSError: [Errno 28]", "OSError: [Errno 27]", "PermissionError", "FileNotFound"),
    ),
    Attack("a big file", "open('big', 'wb').write(bytes(100 << 20))", fails("OSError: [Errno 27]")),
    Attack("a sparse file", "open('big', 'wb').truncate(1 << 40)", fails("OSError: [Errno 27]")),
    Attack(
        "many big files",
        "import time\nfor n in range(8): open(f'big-{n}', 'wb').write(bytes(20 << 20))\ntime.sleep(5)",
        stopped("MiB"),
        15,
    ),
    Attack(
        "many small files",
        "import time\nfor n in range(12_000): open(f'small-{n}', 'w').close()\ntime.sleep(10)",
        stopped("files"),
        20,
    ),
    Attack(
        "folders without end",
        "import os, time\nfor n in range(2000):\n    os.mkdir('d'); os.chdir('d')\ntime.sleep(5)",
        stopped("nested"),
        15,
    ),
    Attack(
        "big files in a shut folder",
        "import os, time\nos.mkdir('shut')\nfor n in range(8): open(f'shut/big-{n}', 'wb').write(bytes(20 << 20))\n"
        "os.chmod('shut', 0)\ntime.sleep(5)",
        stopped("MiB"),
        15,
    ),
    Attack(
        "deleted files held open",
        "import os, time\nheld = []\nfor n in range(8):\n    held.append(open('x', 'wb')); held[-1].write(bytes(20 << 20));"
        " os.unlink('x')\ntime.sleep(5)",
        stopped("deleted"),
        15,
    ),
    Attack(
        "open files without end", "held = []\nwhile True: held.append(open('/dev/null'))", fails("OSError: [Errno 24]")
    ),
    Attack("endless output", "while True: print('x' * 1000)", stopped("too much"), 15),
    Attack(
        "output without an end of line", "import sys\nwhile True: sys.stdout.write('x' * 5000)", stopped("too much"), 15
    ),
    Attack("output of C code", "import os\nwhile True: os.write(2, b'x' * 100_000)", stopped("too much"), 15),
    Attack("time", "while True: pass", stopped("longer than 0.5 s"), 0.5),
    Attack(
        "time, and deaf to interrupts",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        stopped("longer than 0.5 s. The interpreter was replaced"),
        0.5,
    ),
    Attack(
        "time, and stubborn",
        "while True:\n    try:\n        x = 1\n        while x: x = 2\n    except KeyboardInterrupt: x = 3",
        stopped("longer than 0.5 s. The interpreter was replaced"),
        0.5,
    ),
    Attack(
        "time in C that hears no signal",
        "import ctypes, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nctypes.CDLL(None).sleep(60)",
        stopped("replaced"),
        0.5,
    ),
]

MACHINERY = [
    Attack("leaving with os._exit", "import os\nos._exit(7)", stopped("exit code 7")),
    Attack("a crash", "import ctypes\nctypes.string_at(0)", stopped("SIGSEGV")),
    Attack("abort", "import os\nos.abort()", stopped("killed by")),
    Attack("SIGKILL for all in sight", "import os, signal\nos.kill(-1, signal.SIGKILL)", survives),
    Attack("SIGKILL for our group", "import os, signal\nos.kill(0, signal.SIGKILL)", survives),
    Attack("SIGSTOP for ourselves", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", survives, 1),
    Attack("a signal to the parent", "import os\nos.kill(os.getppid() or @server@, 15)", survives),
    Attack("a signal to the server", "import os\nos.kill(@server@, 9)", fails("ProcessLookupError", "PermissionError")),
    Attack("a daemon", "import subprocess\nsubprocess.Popen(['sleep', '@nap@'], start_new_session=True)", survives),
    Attack(
        "a daemon of a daemon",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: os.execvp('sleep', ['sleep', '@nap@'])\n"
        "    os._exit(0)",
        survives,
    ),
    Attack("a fork that comes back", "import os\nos.fork() and None", lambda r: r.success and r.data["value"] is None),
    Attack("closing all descriptors", "import os\nos.closerange(0, 4096)", stopped("replaced")),
    Attack("closing stdout", "import os, sys\nsys.stdout.close()\nos.close(1)\nos.close(2)", survives),
    Attack(
        "a stdout that breaks",
        "import sys\nclass B:\n    def __getattr__(s, n): 1/0\nsys.stdout = sys.stderr = B()",
        survives,
    ),
    Attack("rubbish for the server", "import os\nos.write(1021, b'rubbish' * 100)", survives),
    Attack(
        "descriptors for the server",
        "import array, socket\nsocket.socket(fileno=1021).sendmsg([b'x' * 64], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1] * 60))])",
        survives,
    ),
    Attack("a frame too long", "import os\nos.write(1021, b'\\xff\\xff\\xff\\xff')", survives),
    Attack("a flood for the server", "import os\nwhile True: os.write(1021, bytes(65536))", stopped("replaced"), 5),
    Attack(
        "a reply without the token",
        "import os, time\nf = b''.join(len(p).to_bytes(4, 'big') + p for p in (b'x' * 32, b'0', b'FORGED', b''))\n"
        "os.write(1021, len(f).to_bytes(4, 'big') + f)\ntime.sleep(1)",
        lambda result: not result.success and result.data["value"] is None and "protocol" in str(result.error),
    ),
    Attack(
        "a reply on stdout",
        'import os\nos.write(1, b\'\\x00\\x00\\x00\\x10{"success": true, "value": "FORGED"}\\n\')\nraise ValueError',
        lambda result: not result.success and result.data["value"] is None,
    ),
    Attack(
        "breaking os",
        "import os\nfor n in ('read', 'write', 'dup2', 'waitpid', 'getpid'): setattr(os, n, None)",
        survives,
    ),
    Attack("breaking builtins", "import builtins\nbuiltins.str = builtins.len = builtins.open = None", survives),
    Attack("emptying sys.modules", "import sys\nsys.modules.clear()", survives),
    Attack("breaking traceback", "import traceback, linecache\ntraceback.TracebackException = None\n1/0", survives),
    Attack(
        "an error that cannot be told",
        "class E(Exception):\n    def __str__(self): raise SystemExit(0)\nraise E",
        lambda result: not result.success,
    ),
    Attack(
        "a value that cannot be shown",
        "class V:\n    def __repr__(self): raise KeyboardInterrupt\nV()",
        lambda r: not r.success,
    ),
    Attack(
        "finding the machinery with gc",
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Notebook': o.names.clear(); o.run = None",
        survives,
    ),
    Attack(
        "changing the machinery's frames",
        "import sys\nf = sys._getframe()\nwhile f: f.f_globals.clear() if f.f_globals is not globals() else None; f = f.f_back",
        survives,
    ),
    Attack("a tracer left behind", "import sys\ndef t(*a): raise ValueError\nsys.settrace(t)", survives),
    Attack("a profiler left behind", "import sys\ndef t(*a): raise ValueError\nsys.setprofile(t)", survives),
    Attack("an alarm left behind", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.05)", survives),
    Attack("atexit", "import atexit, time\natexit.register(time.sleep, 1000)", survives),
    Attack(
        "a pickle left behind",
        "import pickle, os\nclass P:\n    def __reduce__(self): return (os.system, ('touch /tmp/pickled',))\n"
        "pickle.dump(P(), open('state.pkl', 'wb'))",
        survives,
    ),
    Attack("a module in our way", "open('frames.py', 'w').write('1/0')\nopen('os.py', 'w').write('1/0')", survives),
    Attack("endless recursion", "def f(): f()\nf()", fails("RecursionError")),
    Attack(
        "endless recursion in C",
        "import sys\nsys.setrecursionlimit(10**8)\nx = ()\nfor _ in range(10**6): x = (x,)\nhash(x)",
        stopped("replaced", "Error"),
        15,
    ),
    Attack("a recursion limit left behind", "import sys\nsys.setrecursionlimit(60)", survives),
    Attack("null bytes", "x = 1\0", fails("SyntaxError", "ValueError")),
    Attack("code that is no text", "x = '\udc80\ud800'", survives),
    Attack(
        "output that is no text",
        "print('\\ud800')",
        lambda result: result.success and "\\ud800" in result.data["stdout"],
    ),
    Attack(
        "terminal escapes",
        "print('\\x1b]0;evil\\x07\\x1b[31mred\\x1b[0m\\x08\\x00')",
        lambda result: result.data["stdout"] == "red\n" and "\x1b" not in result.answer,
    ),
    Attack(
        "file names that are no text",
        "open(b'\\xff\\n.txt', 'w').write('x')",
        lambda result: result.data["files"][0]["url"].endswith("%FF%0A.txt"),
    ),
    Attack("hiding in bytecode", "import marshal\nexec(marshal.loads(b'c' + bytes(200)))", survives),
]

ATTACKS = LIMITS + MACHINERY
