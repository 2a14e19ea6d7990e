"""What every request passes through: an id, a bound on its body, a line in the log, a count, and the last safety net.

Pure ASGI, since Starlette's `BaseHTTPMiddleware` hides the client's departure from the handlers.
"""

import logging
import re
import time

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.errors import CLIENT_CLOSED_REQUEST, error_response
from backend.api.logs import request_id_var
from backend.api.metrics import Metrics
from backend.core.errors import ApiError, PayloadTooLarge
from backend.utils.unique_ids import unique_hex
from config import Settings

logger = logging.getLogger("backend.requests")

EXPOSED_HEADERS = [
    *("X-Request-ID", "X-Session-ID", "X-Run-ID", "X-LLM-Backend", "X-Dropped-Messages", "Retry-After"),
    *(f"x-ratelimit-{fact}-{what}" for fact in ("limit", "remaining", "reset") for what in ("requests", "tokens")),
    "Idempotent-Replayed",
]
SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """The layers that both servers have; the last one added is the outermost."""
    if settings.CORS_ORIGINS:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.CORS_ORIGINS,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            # A browser may send what it has stored for us only to origins that are named.
            allow_credentials="*" not in settings.CORS_ORIGINS,
        )
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        max_body=settings.MAX_BODY_MB * 2**20,
        max_upload=settings.MAX_UPLOAD_MB * 2**20,
    )


class RequestMiddleware:
    """The outermost layer of our own.

    Args:
        max_body: bytes of an ordinary body.
        max_upload: bytes of a multipart body.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, max_body: int, max_upload: int) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body = max_body
        self._max_upload = max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not SAFE_REQUEST_ID.fullmatch(request_id):
            request_id = unique_hex(12)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        request_id_var.set(request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                elapsed_ms = (time.perf_counter() - started) * 1000
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", b"%d" % elapsed_ms),
                    *((name.encode(), value.encode()) for name, value in state.get("response_headers", {}).items()),
                ]
            await send(message)

        try:
            limit = self._max_upload if headers.get("content-type", "").startswith("multipart/") else self._max_body
            await self._app(scope, _bounded(receive, headers, limit), send_with_id)
        except ApiError as error:  # raised outside any route: a body over its bound
            if status == 0:
                await error_response(error)(scope, receive, send_with_id)
        except Exception:  # the last safety net: whatever it is, the caller gets an answer and the log the whole story
            logger.exception("A request failed in an unexpected way.")
            if status == 0:
                failure = ApiError("The server failed. Tell whoever runs it the X-Request-ID of this response.")
                await error_response(failure)(scope, receive, send_with_id)
            else:
                raise  # the connection is closed: the client must not take half an answer for a whole one
        finally:
            self._count(scope, status or CLIENT_CLOSED_REQUEST, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, elapsed_s: float) -> None:
        # The route's template, not the address: a metric for each session would grow without bound.
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"]
        self._metrics.count_request(route, method, status, elapsed_s)
        if logger.isEnabledFor(logging.INFO):
            fields = {"route": route, "method": method, "status": status, "duration_ms": round(elapsed_s * 1000, 1)}
            logger.info("request", extra={"fields": fields})


def _bounded(receive: Receive, headers: Headers, limit: int) -> Receive:
    """`receive` that refuses a body over `limit` bytes, by its announced length or by what really comes."""
    announced = headers.get("content-length", "")
    received = int(announced) if announced.isdigit() else 0
    if 0 < received <= limit:
        return receive  # the server below holds the client to its word

    async def receive_counted() -> Message:
        nonlocal received
        message = None if received > limit else await receive()
        if message and message["type"] == "http.request":
            received += len(message.get("body", b""))
        if message is None or received > limit:
            raise PayloadTooLarge(f"The body is over the limit of {limit // 2**20} MiB.")
        return message

    return receive_counted
