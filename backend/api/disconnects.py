"""Stop working for a client that went away.

Starlette only notices a departure while it sends. A handler that waits for a model has sent nothing yet, so a watcher
reads the connection meanwhile and cancels the handler's task.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from backend.api.errors import ClientDisconnected


@asynccontextmanager
async def stop_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the `async with` when the client goes away. The request's body must have been read before.

    Raises:
        ClientDisconnected: in place of the cancellation, once the body has cleaned up.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:  # the server is shutting down, or an outer deadline struck
            raise
        task.uncancel()
        raise ClientDisconnected from None
    finally:
        watcher.cancel()
