"""Structured logs: one JSON object a line on standard error, written by a thread of their own.

The request's id is in every line that a request causes. Nothing secret is ever handed to a logger: requests are logged
by route, status and time, not by headers or bodies.
"""

import logging
import logging.handlers
import queue
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

MAX_WAITING_RECORDS = 10_000

request_id_var: ContextVar[str] = ContextVar("request_id", default="")


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            line["request_id"] = request_id
        if fields := getattr(record, "fields", None):
            line |= fields
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _QueueHandler(logging.handlers.QueueHandler):
    """Hands records over as they are: nothing is formatted on the event loop, and a full queue drops the record."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.request_id = request_id_var.get()
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def start_logging(level: str) -> logging.handlers.QueueListener:
    """Send all loggers of the process through one queue. Stop the listener at the end, and nothing is lost."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING_RECORDS)
    out = logging.StreamHandler()
    out.setFormatter(JSONFormatter())
    root = logging.getLogger()
    root.handlers = [_QueueHandler(waiting)]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    listener = logging.handlers.QueueListener(waiting, out)
    listener.start()
    return listener
