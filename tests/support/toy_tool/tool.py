"""A tool that does what tools do on good and on bad days, and remembers what happened to it."""

import asyncio
import sys
from typing import Any, cast

from backend.core.contracts import ToolContext, ToolFailure, ToolResult, ToolSpec, ToolStatus
from config import Settings

from .args import ToyArgs


class ToyTool:
    spec = ToolSpec(
        name="toy",
        description="Says what it is told to say, after a while.",
        args=ToyArgs,
        timeout_s=20,
        concurrency=2,
        queue=2,
    )

    def __init__(self, settings: Settings) -> None:
        self.journal: list[str] = []  # what happened, in order
        self.most_at_once = 0
        self._at_once = 0

    async def start(self) -> None:
        self.journal.append("started")

    async def close(self) -> None:
        self.journal.append("closed")

    def status(self) -> ToolStatus:
        return ToolStatus(True, details={"colour": "red"})

    async def run(self, args: ToyArgs, context: ToolContext) -> ToolResult:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.journal.append(f"ran {args.text}")
        try:
            return await self._act(args, context)
        except asyncio.CancelledError:
            self.journal.append(f"cancelled {args.text}")
            raise
        finally:
            self._at_once -= 1

    async def _act(self, args: ToyArgs, context: ToolContext) -> ToolResult:
        data: dict[str, Any] = {}
        metadata: dict[str, Any] = {"toy": True}
        match args.act:
            case "echo" | "sleep":
                await asyncio.sleep(args.seconds)
            case "resist":  # neither its deadline nor its caller's departure stops it, or keeps it quiet
                end = asyncio.get_running_loop().time() + args.seconds
                while asyncio.get_running_loop().time() < end:
                    try:
                        await context.progress("still here", {})
                        await asyncio.sleep(0)
                    except asyncio.CancelledError:
                        self.journal.append("resisted")
            case "report":
                for step in range(3):
                    await context.progress(f"step {step}", {"step": step})
                    await asyncio.sleep(args.seconds)
            case "flood":
                for step in range(100_000):
                    await context.progress("x" * 100, {"step": step})
            case "fail":
                raise ToolFailure("The toy is broken. Take another one.", {"parts": 2})
            case "crash":
                raise ValueError(f"secret detail at {context.workspace}")
            case "exit":
                sys.exit(3)
            case "rubbish":
                return cast(ToolResult, {"success": True})
            case "huge":
                data = {"text": "begin" + "x" * 6_000_000 + "end", "list": list(range(1_000_000))}
            case "odd":
                data = {"surrogate": "\ud800", "big": 2**80, "set": {1}, "nan": float("nan"), 3: b"bytes"}
            case "cite":
                data = {"sources": [{"number": 1, "title": "Bridges", "url": "https://bridges.example.org/forth"}]}
                metadata["usage"] = {"prompt_tokens": 1000, "completion_tokens": 100}
        data |= {
            "username": context.username,
            "workspace": context.workspace.name,
            "collection": context.rag_collection,
            "model": context.model,
        }
        return ToolResult(True, args.text, data, metadata)


class BrokenTool(ToyTool):
    """Cannot be started."""

    spec = ToolSpec("broken", "Does not start.", ToyArgs)

    async def start(self) -> None:
        raise RuntimeError("secret detail")


class DisabledTool(ToyTool):
    """Cannot be used on this machine."""

    spec = ToolSpec("disabled", "Is never on.", ToyArgs)

    def status(self) -> ToolStatus:
        return ToolStatus(False, "It has no key.", "Set TOY_KEY.")


class SlowTool(ToyTool):
    """Takes its time to start."""

    spec = ToolSpec("slow", "Starts slowly.", ToyArgs, timeout_s=0.5)
    start_s = 3.0

    async def start(self) -> None:
        await asyncio.sleep(self.start_s)
