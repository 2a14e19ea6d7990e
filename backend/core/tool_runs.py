"""One call of a tool, from its arguments to its result, whatever the tool does.

    run = Progress* ToolResult

What goes wrong in a tool is a result: it failed, it crashed, it was too slow. What goes wrong before the tool is asked
(it is off, too many wait) is an `ApiError`. One deadline spans the call: waiting for the tool to start, for a place,
and the work itself. A tool that does not stop when its time is over is left behind; it keeps its place until it ends,
so that `concurrency` stays true.

Progress is a courtesy: a tool never waits for its reader, and a reader that is too slow misses messages.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from backend.core.contracts import ToolContext, ToolFailure, ToolResult
from backend.core.errors import ApiError
from backend.core.inbox import Inbox
from backend.core.toolbox import LoadedTool

logger = logging.getLogger(__name__)

STOP_GRACE_S = 5.0  # for a tool to clean up after it was told to stop

Outcome = Literal["succeeded", "failed", "crashed", "timed_out", "refused", "cancelled"]


@dataclass(frozen=True, slots=True)
class Progress:
    message: str
    data: dict[str, Any]


class RunObserver(Protocol):
    """Is told of each call when it has ended. Runs on the event loop: it must be quick and not raise."""

    def run_finished(self, tool: str, outcome: Outcome, duration_s: float) -> None: ...


class ToolRuns:
    """Runs calls. One for the life of the process.

    Args:
        default_timeout_s: of a tool whose spec has none.
    """

    def __init__(self, *, default_timeout_s: float, observer: RunObserver) -> None:
        self._default_timeout_s = default_timeout_s
        self._observer = observer
        self._left_behind: set[asyncio.Task[ToolResult]] = set()  # referenced here, or they might be collected

    def timeout_s(self, tool: LoadedTool) -> float:
        return tool.spec.timeout_s or self._default_timeout_s

    async def run(
        self, tool: LoadedTool, args: Any, context: ToolContext
    ) -> AsyncGenerator[Progress | ToolResult, None]:
        """Yield the run. Closing the generator tells the tool to stop.

        Args:
            args: an instance of the tool's `spec.args`.

        Raises:
            Unavailable: the tool is off, or has no place for one more call.
            TooManyRequests: the user has too many calls waiting.
        """
        clock = asyncio.get_running_loop().time
        timeout_s = self.timeout_s(tool)
        until = clock() + timeout_s
        inbox: Inbox[Progress] = Inbox()

        async def tell(message: str, data: dict[str, Any]) -> None:
            inbox.put(Progress(message, data))

        context = dataclasses.replace(context, progress=tell)
        call = asyncio.create_task(self._call(tool, args, context, until))
        call.add_done_callback(inbox.close)
        try:
            while await inbox.has_more(until + STOP_GRACE_S):
                for progress in inbox.take():
                    yield progress
            if call.done():
                yield call.result()
            else:
                logger.error("The tool %s does not stop at its deadline.", tool.spec.name)
                yield _signed(_stopped(tool, timeout_s), tool, context, timeout_s)
        finally:
            if not call.done():
                self._left_behind.add(call)
                call.add_done_callback(self._left_behind.discard)
                if clock() < until:  # after that it has been told already, and is cleaning up
                    call.cancel()
                await asyncio.wait([call], timeout=max(0.0, min(STOP_GRACE_S, until + STOP_GRACE_S - clock())))

    async def close(self) -> None:
        """Give the tools that were left behind a last chance to end by themselves."""
        for call in self._left_behind:
            call.cancel()
        if self._left_behind:
            await asyncio.wait(self._left_behind, timeout=STOP_GRACE_S)

    async def _call(self, tool: LoadedTool, args: Any, context: ToolContext, until: float) -> ToolResult:
        """Raises: ApiError, where the tool was not asked at all."""
        started = time.perf_counter()
        outcome: Outcome = "cancelled"
        has_place = False
        try:
            async with asyncio.timeout_at(until):
                await tool.wait_until_usable()
                async with tool.queue.place(context.username):
                    has_place = True
                    result, outcome = await _work(tool, args, context)
        except TimeoutError:
            timeout_s = self.timeout_s(tool)
            outcome, result = "timed_out", _stopped(tool, timeout_s) if has_place else _not_reached(tool, timeout_s)
        except ApiError:
            outcome = "refused"
            raise
        finally:
            elapsed_s = time.perf_counter() - started
            self._observer.run_finished(tool.spec.name, outcome, elapsed_s)
        return _signed(result, tool, context, elapsed_s)


async def _work(tool: LoadedTool, args: Any, context: ToolContext) -> tuple[ToolResult, Outcome]:
    """Let the tool do its work; what it raises becomes a result."""
    try:
        result = await tool.tool.run(args, context)
        if not isinstance(result, ToolResult):
            raise TypeError(f"{type(result).__name__} is not a ToolResult")
    except ToolFailure as failure:
        return ToolResult(False, data=failure.data, error=failure.message), "failed"
    except ApiError as error:  # of what the tool works with: a model that is down, a disk that is full
        return ToolResult(False, error=error.message), "failed"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        return _crashed(tool, context), "crashed"  # nobody cancelled this call: the tool did so within
    except (Exception, SystemExit):  # a task that ends with SystemExit would end the process
        return _crashed(tool, context), "crashed"
    return result, "succeeded" if result.success else "failed"


def _crashed(tool: LoadedTool, context: ToolContext) -> ToolResult:
    logger.exception("The tool %s crashed.", tool.spec.name)
    error = (
        f"The tool {tool.spec.name} crashed: the fault is the tool's, not the call's. Do without it, or tell whoever "
        f"runs the server the request id {context.request_id}."
    )
    return ToolResult(False, error=error)


def _stopped(tool: LoadedTool, timeout_s: float) -> ToolResult:
    error = f"The tool {tool.spec.name} did not finish within {timeout_s:g} s and was stopped. Ask for less at once."
    return ToolResult(False, error=error)


def _not_reached(tool: LoadedTool, timeout_s: float) -> ToolResult:
    reason = "is still starting" if tool.is_starting else "is busy with other calls"
    error = f"The tool {tool.spec.name} {reason}; this call has waited for {timeout_s:g} s. Try again later."
    return ToolResult(False, error=error)


def _signed(result: ToolResult, tool: LoadedTool, context: ToolContext, elapsed_s: float) -> ToolResult:
    """The result with what is told of every call."""
    ours = {
        "tool": tool.spec.name,
        "duration_ms": round(elapsed_s * 1000, 1),
        "request_id": context.request_id,
        "session_id": context.session_id,
    }
    error = result.error or (None if result.success else "The tool failed and did not say why.")
    return dataclasses.replace(result, metadata={**result.metadata, **ours}, error=error)
