"""What the routes that answer a question have in common, whatever shape the answer goes out in."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from backend.core.turns import OpenTurn


async def finish(turn: OpenTurn) -> None:
    """Run a turn to its end, for a client that sees nothing before; its answers hold the result."""
    events: AsyncGenerator[Any, None] = turn.run(live=False) if len(turn.answers) == 1 else turn.run_all(live=False)
    async with aclosing(events):
        async for _ in events:
            pass


def turn_headers(turn: OpenTurn) -> Mapping[str, str]:
    """What is known of the run when its first byte goes out."""
    first = turn.answers[0]
    headers = {}
    if turn.session_id:
        headers["X-Session-ID"] = turn.session_id
    if turn.run_id:
        headers["X-Run-ID"] = turn.run_id
    if first.backend:
        headers["X-LLM-Backend"] = first.backend.backend
    if first.dropped_messages:
        headers["X-Dropped-Messages"] = str(first.dropped_messages)
    return headers
