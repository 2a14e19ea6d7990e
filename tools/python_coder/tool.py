"""The `python_coder` tool: runs code of a session in its own warm interpreter, and tells what came of it.

The call itself is a task of its own: a caller who goes away interrupts the code but never leaves an interpreter in
the middle of something.
"""

import asyncio
import logging
import os
import re
import time
from pathlib import Path

from backend.core.contracts import Tool, ToolContext, ToolFailure, ToolResult, ToolSpec, ToolStatus
from backend.core.prompts import load_prompt
from config import Settings
from tools.sandbox.cgroups import ControlGroups
from tools.sandbox.walls import Limits, Plan, default_uid

from . import probes, workspace
from .args import PythonCoderArgs
from .call import House, Stop, run_call
from .nanocoder import Nanocoder
from .pool import Pool, PoolBusy
from .zygote_client import HOME, ZygoteFailed

log = logging.getLogger(__name__)

OVERHEAD_S = 15.0  # what a call may take beyond its code: a new interpreter, the interrupt's grace, counting files
CLOSE_TIMEOUT_S = 10.0
WARM_LIBRARIES = ("numpy", "pandas", "matplotlib.pyplot", "PIL.Image", "asyncio", "json", "csv", "decimal")
_ROOT = Path(__file__).parents[2]
_PATHS = re.compile(r"/[^\s'\":,]+")  # have no place in what everybody may read
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


def make_python_coder(settings: Settings) -> Tool:
    """The tool in the mode that is set."""
    return Nanocoder(settings) if settings.PYTHON_EXECUTOR_MODE == "nanocoder" else PythonCoder(settings)


class PythonCoder:
    def __init__(self, settings: Settings, *, first_tier: int = 1, libraries: tuple[str, ...] = WARM_LIBRARIES) -> None:
        self.spec = ToolSpec(
            name="python_coder",
            description=load_prompt("tools/python_coder").text.strip(),
            args=PythonCoderArgs,
            timeout_s=settings.DEFAULT_TOOL_TIMEOUT + OVERHEAD_S,
            concurrency=settings.PYTHON_MAX_INTERPRETERS,
        )
        self._settings = settings
        self._tiers = range(first_tier, settings.SANDBOX_MIN_TIER + 1)
        self._here = Path.cwd()
        self._scratch = self._here / settings.DATA_DIR / "scratch"
        self._hidden = tuple(str(path) for path in (_ROOT, self._scratch.parent, self._here / ".env"))
        self._limits = Limits(
            memory_mb=settings.PYTHON_MEMORY_MB,
            processes=settings.PYTHON_MAX_PROCESSES,
            disk_mb=settings.PYTHON_DISK_MB,
        )
        self._libraries = libraries
        self._uid = default_uid()
        self._pool: Pool | None = None
        self._house = House(self._limits, self._uid, {})
        self._status = ToolStatus(enabled=False, reason="It was not started.", how_to_enable="Start the tools API.")
        self._calls: set[asyncio.Task[ToolResult]] = set()

    async def start(self) -> None:
        groups = await asyncio.to_thread(ControlGroups.find)
        failures: list[str] = []
        for tier in self._tiers:
            plan = Plan(tier, str(self._scratch), self._hidden, self._uid, self._limits, self._libraries)
            pool = Pool(plan, groups, self._settings.PYTHON_MAX_INTERPRETERS, self._settings.PYTHON_IDLE_S)
            try:
                await asyncio.to_thread(self._prepare_scratch)
                loaded = await pool.start()
                trials = await probes.examine(pool, self._scratch, self._limits, self._uid)
                if open_ways := probes.find_open_ways(tier, trials):
                    raise ZygoteFailed(f"not held back in a trial: {', '.join(open_ways)}")
            except (OSError, ZygoteFailed, PoolBusy) as error:
                log.info("python_coder: tier %d is out of reach: %s", tier, error)
                failures.append(_PATHS.sub("…", f"tier {tier}: {error}"))
                await pool.close()
                continue
            isolation = {"tier": tier, "layers": probes.find_layers(tier, cgroups=bool(groups))}
            self._pool, self._house = pool, House(self._limits, self._uid, isolation)
            details = isolation | {"libraries": loaded, "held_back": trials, "not_reached": failures}
            self._status = ToolStatus(enabled=True, details=details)
            return
        self._status = ToolStatus(
            enabled=False,
            reason=f"This machine cannot isolate code as SANDBOX_MIN_TIER={self._settings.SANDBOX_MIN_TIER} demands "
            f"({'; '.join(failures)}).",
            how_to_enable=await asyncio.to_thread(probes.advise),
        )
        log.warning("python_coder is off: %s %s", self._status.reason, self._status.how_to_enable)

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=CLOSE_TIMEOUT_S)
        if self._pool:
            await self._pool.close()
        self._pool = None
        self._status = ToolStatus(enabled=False, reason="It was stopped.", how_to_enable="Start the tools API.")

    def status(self) -> ToolStatus:
        return self._status

    async def run(self, args: PythonCoderArgs, context: ToolContext) -> ToolResult:
        if self._pool is None:
            raise ToolFailure(f"python_coder is off. {self._status.reason} {self._status.how_to_enable}")
        stop = Stop()
        call = asyncio.create_task(self._call(self._pool, args, context, stop))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if not stop.begun:
                call.cancel()
            stop.ask("the caller went away")
            raise

    def _forget(self, call: asyncio.Task[ToolResult]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) and not isinstance(error, ToolFailure):
            log.error("python_coder: a call failed", exc_info=error)

    async def _call(self, pool: Pool, args: PythonCoderArgs, context: ToolContext, stop: Stop) -> ToolResult:
        folder = self._here / context.workspace
        if folder.parent != self._scratch or not _SAFE_NAME.fullmatch(folder.name):
            raise ToolFailure("The session has no folder that code may use.")
        longest_s = self._settings.DEFAULT_TOOL_TIMEOUT
        deadline = time.monotonic() + longest_s
        try:
            identity = await asyncio.to_thread(workspace.prepare, folder, self._uid)
            async with pool.lease(folder.name, identity, reset=args.reset, wait_s=longest_s) as lease:
                left_s = max(1.0, deadline - time.monotonic())
                timeout_s = min(args.timeout or longest_s, longest_s, left_s)
                return await run_call(lease, args.code, timeout_s, folder, context, self._house, stop)
        except PoolBusy as error:
            raise ToolFailure(f"The code could not be run: {error}. Try again in a while.") from error
        except ZygoteFailed as error:
            raise ToolFailure(f"The code could not be run: the sandbox does not start ({error}).") from error
        except OSError as error:
            raise ToolFailure(f"The code could not be run: the session's folder fails ({error.strerror}).") from error

    def _prepare_scratch(self) -> None:
        """The folder of the sessions' folders: whoever code runs as may pass through it, and not look around."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._scratch.chmod(0o711 if self._uid != os.geteuid() else 0o700)
        workspace.prepare(self._scratch / HOME, self._uid)
