"""The tools of this process, from the list in `tools_config.py` to their end.

Whatever is wrong with one tool, be it that it cannot be imported, made, started or closed, is that tool's own trouble:
it is off, with a reason, and the others serve.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NoReturn

from pydantic import BaseModel

from backend.core.contracts import Tool, ToolContext, ToolFailure, ToolSpec, ToolStatus
from backend.core.errors import ApiError, NotFound, Unavailable
from backend.core.tool_queue import ToolQueue
from config import Settings

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0  # a tool may load a model
CLOSE_TIMEOUT_S = 10.0

STARTING = ToolStatus(False, "It is still starting.", "Wait a moment: calls wait for it too.")
SEE_LOG = "Read the log of the tools API, mend what it tells, and start the tools API again."


class LoadedTool:
    """A tool with its places, and how it is."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.spec = tool.spec
        self.parameters = tool.spec.args.model_json_schema()  # made once: it costs more than a call
        self.queue = ToolQueue(tool.spec.name, places=tool.spec.concurrency, length=tool.spec.queue)
        self._starting: asyncio.Task[None] | None = None
        self._trouble: ToolStatus | None = None  # why it could not be started

    @property
    def is_starting(self) -> bool:
        return self._starting is None or not self._starting.done()

    @property
    def status(self) -> ToolStatus:
        if self.is_starting:
            return STARTING
        if self._trouble:
            return self._trouble
        try:
            return self.tool.status()
        except Exception:  # third-party code, so to speak: a tool's bug must not take /health down
            logger.exception("The tool %s cannot tell how it is.", self.spec.name)
            return ToolStatus(False, "It cannot tell how it is.", SEE_LOG)

    def start(self) -> None:
        """Begin to start, in the background."""
        self._starting = asyncio.create_task(self._start())

    async def wait_until_usable(self) -> None:
        """Return once the tool is started and on.

        Raises:
            Unavailable: it is off; says why, and how to switch it on.
        """
        if self._starting:
            await asyncio.wait([self._starting])
        self.check_not_off()

    def check_not_off(self) -> None:
        """Raises: Unavailable, as above. A tool that is still starting passes."""
        status = self.status
        if not status.enabled and not self.is_starting:
            words = f"The tool {self.spec.name} is switched off here. {status.reason} {status.how_to_enable}"
            raise Unavailable(words.strip(), code="tool_disabled")

    async def close(self) -> None:
        if self._starting is None:
            return
        self._starting.cancel()
        await asyncio.wait([self._starting], timeout=CLOSE_TIMEOUT_S)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.tool.close()
        except Exception:  # the others are still to be closed
            logger.exception("The tool %s could not be closed.", self.spec.name)

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self.tool.start()
        except (ToolFailure, ApiError) as error:
            self._trouble = ToolStatus(False, error.message, SEE_LOG)
        except (Exception, SystemExit):  # a task that ends with SystemExit would end the process
            logger.exception("The tool %s could not be started.", self.spec.name)
            self._trouble = ToolStatus(False, "It could not be started.", SEE_LOG)


class Toolbox:
    """All tools, in the order of the list."""

    def __init__(self, tools: Mapping[str, str], settings: Settings) -> None:
        self._tools = {name: _load(name, place, settings) for name, place in tools.items()}

    def __iter__(self) -> Iterator[LoadedTool]:
        return iter(self._tools.values())

    def find(self, name: str) -> LoadedTool:
        """Raises: NotFound, which lists the tools that there are."""
        if tool := self._tools.get(name):
            return tool
        names = ", ".join(self._tools) or "none"
        raise NotFound(f"There is no tool of that name. The tools are: {names}.", code="tool_not_found")

    def start(self) -> None:
        """Begin to start all tools, each on its own, in the background."""
        for tool in self:
            tool.start()

    async def close(self) -> None:
        for tool in reversed(self._tools.values()):
            await tool.close()


def _load(name: str, place: str, settings: Settings) -> LoadedTool:
    module, _, attribute = place.partition(":")
    try:
        tool = LoadedTool(getattr(import_module(module), attribute)(settings))
        if tool.spec.name != name:
            raise ValueError(f"tools_config.py calls it {name}, and its spec {tool.spec.name}")
    except ModuleNotFoundError as error:
        logger.exception("The tool %s could not be loaded.", name)
        packages = "Install what is missing: pip install -r requirements.txt"
        status = ToolStatus(False, f"The Python module {error.name} is not installed.", packages)
        return LoadedTool(_MissingTool(name, status))
    except Exception:  # whatever a tool's module does when it is imported
        logger.exception("The tool %s could not be loaded.", name)
        return LoadedTool(_MissingTool(name, ToolStatus(False, "It could not be loaded.", SEE_LOG)))
    return tool


class _NoArgs(BaseModel):
    pass


class _MissingTool:
    """Stands where a tool could not be made, so that everybody is told why."""

    def __init__(self, name: str, status: ToolStatus) -> None:
        self.spec = ToolSpec(name, "This tool could not be loaded.", _NoArgs)
        self._status = status

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    def status(self) -> ToolStatus:
        return self._status

    async def run(self, args: Any, context: ToolContext) -> NoReturn:
        raise ToolFailure(self._status.reason)
