"""One call, once it has its interpreter: run the code, watch the disk meanwhile, find out what changed."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.core.contracts import ToolContext, ToolResult
from tools.sandbox.walls import Limits

from . import workspace
from .interpreter_client import Ending
from .output import MAX_SHOWN, STREAMS, Output, clean, shorten
from .pool import Lease
from .results import Call, File, build_result

DISK_LOOK_S = 0.5


class Stop:
    """Why a call is to end before its time, once somebody wants it to."""

    def __init__(self) -> None:
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.begun = False  # from then on the code is interrupted, not the task that waits for it

    def ask(self, reason: str) -> None:
        if not self.reason.done():
            self.reason.set_result(reason)


@dataclass(frozen=True, slots=True)
class House:
    """What holds for every call."""

    limits: Limits
    uid: int
    isolation: dict[str, Any]


async def run_call(
    lease: Lease, code: str, timeout_s: float, folder: Path, context: ToolContext, house: House, stop: Stop
) -> ToolResult:
    """Run code in a leased interpreter. Nothing of it runs on when this returns."""
    stop.begun = True
    before = await asyncio.to_thread(workspace.list_files, folder, house.uid)
    limit_bytes = max(house.limits.disk_mb << 20, before.bytes_used)
    output = Output()
    watch = asyncio.create_task(watch_disk(folder, house.uid, limit_bytes, stop))
    show = asyncio.create_task(output.show(context.progress))
    began = time.monotonic()
    try:
        ending = await lease.interpreter.run(code, timeout_s, output, stop.reason)
    finally:
        watch.cancel()
        show.cancel()
        await asyncio.gather(watch, show, return_exceptions=True)  # a listener that failed has no say in the result
    duration_s = time.monotonic() - began

    notices: list[str] = []
    if lease.notice:
        notices.append(f"The interpreter is new ({lease.notice}): variables of earlier calls are gone, files are not.")
    settling = asyncio.to_thread(_settle, folder, house.uid, before, limit_bytes, output, ending, notices)
    texts, after = await settling
    group = lease.group
    return build_result(
        Call(
            session_id=context.session_id,
            ending=ending,
            texts=texts,
            files=tuple(File(name, after.files[name].size) for name in workspace.changed_files(before, after)),
            duration_s=duration_s,
            isolation=house.isolation,
            notices=tuple(notices),
            out_of_memory=bool(ending.died and group and await asyncio.to_thread(group.ran_out_of_memory)),
        )
    )


async def watch_disk(folder: Path, uid: int, limit_bytes: int, stop: Stop) -> None:
    """Ask for the stop once the folder holds too much. Runs until it is cancelled."""
    while True:
        await asyncio.sleep(DISK_LOOK_S)
        with contextlib.suppress(OSError):  # seen again when the call is over
            listing = await asyncio.to_thread(workspace.list_files, folder, uid)
            if excess := workspace.find_excess(listing, limit_bytes):
                stop.ask(excess)


def _settle(
    folder: Path,
    uid: int,
    before: workspace.Listing,
    limit_bytes: int,
    output: Output,
    ending: Ending,
    notices: list[str],
) -> tuple[dict[str, str], workspace.Listing]:
    """Bring the folder within its bounds, and keep whole what the result shortens. Blocks."""
    after = workspace.list_files(folder, uid)
    if excess := workspace.find_excess(after, limit_bytes):
        after = workspace.trim(folder, uid, before, limit_bytes)
        notices.append(f"Files of this call were removed: {excess}.")
    raw = {name: bytes(output.data[name]) for name in STREAMS} | {"value": ending.value.encode("utf-8", "replace")}
    texts: dict[str, str] = {}
    stored = False
    for name, data in raw.items():
        text = clean(data.decode("utf-8", "replace"))
        whole = ""
        if len(text) > MAX_SHOWN:
            whole = workspace.save_text(folder, uid, name, data)
            stored = True
        texts[name] = shorten(text, MAX_SHOWN, whole)
    return texts, workspace.list_files(folder, uid) if stored else after
