"""The `python_coder` tool in its nanocoder mode: a coding agent works on a task in the session's folder.

    task -> node nanocoder (sandbox of tier 1, network of its own) -> gateway -> the servers' own models
         <- its report (JSON), the files that changed

Every task has a sandbox of its own, forked from a prepared parent, which nothing outlives. The mode needs tier 1: with
less, the one reachable address could not be the only one, and so the mode is off.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from backend.core.contracts import ToolContext, ToolFailure, ToolResult, ToolSpec, ToolStatus
from backend.core.prompts import load_prompt
from config import Settings
from tools.sandbox.cgroups import Bounds, ControlGroup, ControlGroups
from tools.sandbox.walls import Limits, Plan, default_uid

from . import nanocoder_probe, probes, workspace
from .args import NanocoderArgs
from .call import Stop, watch_disk
from .nanocoder_gateway import MODEL, Gateway
from .nanocoder_install import HOW_TO_INSTALL, Installation, NotInstalled, find_installation
from .nanocoder_program import Command, Program
from .nanocoder_report import Task, build_task_result
from .nanocoder_session import PORT
from .output import Output
from .results import File
from .zygote_client import HOME, Zygote, ZygoteFailed

log = logging.getLogger(__name__)

OVERHEAD_S = 30.0  # what a call may take beyond its task: a place, a sandbox, counting files
CONCURRENCY = 4
MAX_TURNS = 40
NODE_THREADS = 32  # of node itself, on top of what a session's code may run
GROUP_SLACK = 128 << 20
_CONFIG = "/tmp/nanocoder"  # noqa: S108 (in the sandbox: nobody else's)
_ROOT = Path(__file__).parents[2]
_PATHS = re.compile(r"/[^\s'\":,]+")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


class Nanocoder:
    def __init__(self, settings: Settings, *, package: Path | None = None) -> None:
        self.spec = ToolSpec(
            name="python_coder",
            description=load_prompt("tools/python_coder_task").text.strip(),
            args=NanocoderArgs,
            timeout_s=settings.NANOCODER_TIMEOUT + OVERHEAD_S,
            concurrency=CONCURRENCY,
        )
        self._timeout_s = settings.NANOCODER_TIMEOUT
        self._package = package
        here = Path.cwd()
        self._here = here
        self._scratch = here / settings.DATA_DIR / "scratch"
        self._uid = default_uid()
        limits = Limits(
            settings.PYTHON_MEMORY_MB, settings.PYTHON_MAX_PROCESSES + NODE_THREADS, settings.PYTHON_DISK_MB
        )
        hidden = tuple(str(path) for path in (_ROOT, self._scratch.parent, here / ".env"))
        self._plan = Plan(1, str(self._scratch), hidden, self._uid, limits, (), programs=True)
        self._groups = ControlGroups([])
        self._installation: Installation | None = None
        self._zygote: Zygote | None = None
        self._zygote_lock = asyncio.Lock()
        self._busy: set[str] = set()  # sessions with a task
        self._made = 0
        self._closed = False
        self._isolation: dict[str, Any] = {}
        self._status = ToolStatus(enabled=False, reason="It was not started.", how_to_enable="Start the tools API.")

    async def start(self) -> None:
        self._closed = False
        try:
            found = find_installation if self._package is None else lambda: find_installation(self._package or Path())
            self._installation = await asyncio.to_thread(found)
            self._groups = await asyncio.to_thread(ControlGroups.find)
            await asyncio.to_thread(self._groups.remove_stale)
            await asyncio.to_thread(self._prepare_scratch)
            held_back = await self._examine()
        except NotInstalled as error:
            self._status = ToolStatus(enabled=False, reason=str(error), how_to_enable=HOW_TO_INSTALL)
        except (OSError, ZygoteFailed) as error:
            reason = f"This machine cannot isolate tasks ({_PATHS.sub('…', str(error))})."
            self._status = ToolStatus(enabled=False, reason=reason, how_to_enable=await self._advise())
        else:
            self._isolation = {"tier": 1, "layers": probes.find_layers(1, cgroups=bool(self._groups))}
            versions = {"nanocoder": self._installation.version, "node": self._installation.node_version}
            self._status = ToolStatus(enabled=True, details=self._isolation | versions | {"held_back": held_back})
            return
        log.warning("python_coder is off: %s %s", self._status.reason, self._status.how_to_enable)
        await self._end_zygote()

    async def close(self) -> None:
        self._closed = True
        await self._end_zygote()
        self._status = ToolStatus(enabled=False, reason="It was stopped.", how_to_enable="Start the tools API.")

    def status(self) -> ToolStatus:
        return self._status

    async def run(self, args: NanocoderArgs, context: ToolContext) -> ToolResult:
        if not self._status.enabled:
            raise ToolFailure(f"python_coder is off. {self._status.reason} {self._status.how_to_enable}")
        folder = self._here / context.workspace
        if folder.parent != self._scratch or not _SAFE_NAME.fullmatch(folder.name):
            raise ToolFailure("The session has no folder that a task may use.")
        if folder.name in self._busy:
            raise ToolFailure("Another task of this session is still running. Wait for its end, then try again.")
        self._busy.add(folder.name)
        try:
            await asyncio.to_thread(workspace.prepare, folder, self._uid)
            return await self._run_task(args, folder, context)
        except ZygoteFailed as error:
            raise ToolFailure(f"The task could not be run: the sandbox does not start ({error}).") from error
        except OSError as error:
            raise ToolFailure(f"The task could not be run: the session's folder fails ({error.strerror}).") from error
        finally:
            self._busy.discard(folder.name)

    async def _run_task(self, args: NanocoderArgs, folder: Path, context: ToolContext) -> ToolResult:
        before = await asyncio.to_thread(workspace.list_files, folder, self._uid)
        limit_bytes = max(self._plan.limits.disk_mb << 20, before.bytes_used)
        stop, output = Stop(), Output()
        watch = asyncio.create_task(watch_disk(folder, self._uid, limit_bytes, stop))
        timeout_s = min(args.timeout or self._timeout_s, self._timeout_s)
        began = time.monotonic()
        try:
            async with contextlib.AsyncExitStack() as stack:
                program = await self._open_program(stack, folder.name)
                assert program.listener is not None
                gateway = Gateway(program.listener, context)
                stack.push_async_callback(gateway.close)
                stopped = await program.run(self._command(args.task), output, stop.reason, timeout_s)
                exited = program.exited.result()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        notices: list[str] = []
        after = await asyncio.to_thread(workspace.list_files, folder, self._uid)
        if excess := workspace.find_excess(after, limit_bytes):
            after = await asyncio.to_thread(workspace.trim, folder, self._uid, before, limit_bytes)
            notices.append(f"Files of this task were removed: {excess}.")
        return build_task_result(
            Task(
                session_id=context.session_id,
                stopped=stopped or exited.reason,
                exit_code=exited.status,
                stdout=bytes(output.data["stdout"]),
                stderr=bytes(output.data["stderr"]),
                model_failure=gateway.failure,
                model_calls=gateway.calls,
                files=tuple(File(name, after.files[name].size) for name in workspace.changed_files(before, after)),
                duration_s=time.monotonic() - began,
                isolation=self._isolation,
                notices=tuple(notices),
            )
        )

    async def _open_program(self, stack: contextlib.AsyncExitStack, session: str) -> Program:
        """A place in the sandbox, in a control group of its own where there are groups; both end with the stack."""
        self._made += 1
        group = self._groups.plan(self._made) if self._groups else None
        if group:
            stack.push_async_callback(asyncio.to_thread, group.remove)
        program = await Program.start(await self._find_zygote(), session)
        stack.push_async_callback(program.close)
        if group:
            await _finish(group, self._plan.limits, program.pid)
        return program

    def _command(self, task: str) -> Command:
        assert self._installation is not None
        text = task.replace("\0", " ")
        provider = {"name": "server", "baseUrl": f"http://127.0.0.1:{PORT}/v1", "apiKey": "none", "models": [MODEL]}
        config = {"providers": [provider | {"requestTimeout": -1}], "headless": {"maxTurns": MAX_TURNS}}
        options = ("--plain", "--trust-directory", "--provider", "server", "--model", MODEL, "--mode", "yolo")
        prompt = f" {text}" if text.startswith("-") else text  # never an option
        return self._node(
            (str(self._installation.script), *options, "run", prompt, "--json"),
            {f"{_CONFIG}/agents.config.json": json.dumps({"nanocoder": config})},
        )

    def _node(self, arguments: tuple[str, ...], files: dict[str, str]) -> Command:
        assert self._installation is not None
        node = self._installation.node
        heap_mb = max(64, self._plan.limits.memory_mb // 2)
        environment = {
            "PATH": f"{sys.prefix}/bin:{node.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",  # noqa: S108 (in the sandbox: nobody else's)
            "TMPDIR": "/tmp",  # noqa: S108
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "MPLBACKEND": "Agg",
            "NANOCODER_CONFIG_DIR": _CONFIG,
            "NODE_OPTIONS": f"--max-old-space-size={heap_mb}",
        }
        return Command((str(node), *arguments), environment, files)

    async def _examine(self) -> dict[str, bool]:
        """Try to get out of a sandbox as tasks have it.

        Raises:
            ZygoteFailed: a way out is open, or Node does not run in there.
        """
        trial = nanocoder_probe.Trial.make(self._scratch)
        try:
            await asyncio.to_thread(trial.lay_out, self._uid)
            async with trial.listening() as script, contextlib.AsyncExitStack() as stack:
                program = await self._open_program(stack, trial.folder.name)
                output, never = Output(), Stop()
                command = self._node(("-e", script), {})
                stopped = await program.run(command, output, never.reason, nanocoder_probe.TIMEOUT_S)
            return nanocoder_probe.judge(stopped, bytes(output.data["stdout"]), bytes(output.data["stderr"]))
        finally:
            for made in (trial.folder, trial.other):
                await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)

    async def _advise(self) -> str:
        return f"{await asyncio.to_thread(probes.advise)} Or set PYTHON_EXECUTOR_MODE=native."

    async def _find_zygote(self) -> Zygote:
        async with self._zygote_lock:
            if self._closed:
                raise ZygoteFailed("the server is stopping")
            if self._zygote is None or self._zygote.lost.is_set():
                if self._zygote is not None:
                    await self._zygote.close()
                self._zygote = await Zygote.start(self._plan)
            return self._zygote

    async def _end_zygote(self) -> None:
        async with self._zygote_lock:
            if self._zygote:
                await self._zygote.close()
            self._zygote = None

    def _prepare_scratch(self) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._scratch.chmod(0o711 if self._uid != os.geteuid() else 0o700)
        workspace.prepare(self._scratch / HOME, self._uid)


async def _finish(group: ControlGroup, limits: Limits, pid: int) -> None:
    """Make the group to its end, also when we are cancelled: what was made is to be removed."""
    bounds = Bounds(((limits.memory_mb + limits.tmp_mb) << 20) + GROUP_SLACK, limits.processes + 8)
    task = asyncio.create_task(asyncio.to_thread(group.make, bounds, pid))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
    except OSError as error:
        raise ZygoteFailed(f"no control group: {error.strerror}") from error
