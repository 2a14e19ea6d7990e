"""Started by `programs`: builds the walls around itself, runs one program inside, and ends as that does.

    stdin = JSON {plan, session, argv, env} ; stdout and stderr are the program's ; 125: the walls did not come about

Three processes stand around the program: this one, which the server waits for; the first of the machine's view, and
the first of the program's own namespaces. When one of them is killed, the kernel ends all that are further in.
"""

import json
import os
import signal
import sys

from . import linux, walls

NO_WALLS = 125
_NO_BOUND = 1 << 46  # browsers and V8 reserve far more addresses than they use: `programs` watches their memory


def main() -> None:
    """Does not return."""
    request = json.load(sys.stdin)
    os.umask(0o022)
    try:
        plan = _read_plan(request["plan"])
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        walls.open_namespaces()
        _fork(plan.uid)
        walls.build_world(plan)
        walls.become_nobody(plan.uid)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        walls.enter_session_namespaces()
        _fork(plan.uid)
        walls.confine(plan, request["session"], _NO_BOUND, 0)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 (whoever started us reads it)
        os._exit(NO_WALLS)
    program = os.fork()
    if program == 0:
        try:
            os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 (a shell is not wanted)
        finally:
            os._exit(127)
    while True:
        pid, status = os.wait()
        if pid == program:
            _end_as(status)


def _fork(uid: int) -> None:
    """Go on as the first process of the new namespaces; who we were only waits, with no more rights than we."""
    child = os.fork()
    if child:
        walls.become_nobody(uid)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_as(os.waitpid(child, 0)[1])
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_as(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _read_plan(fields: dict[str, object]) -> walls.Plan:
    limits = walls.Limits(**fields.pop("limits"))  # type: ignore[arg-type]
    return walls.Plan(limits=limits, **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})  # type: ignore[arg-type]
