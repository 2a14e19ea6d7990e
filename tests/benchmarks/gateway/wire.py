"""The bytes that the generator sends and the upstream answers, all built before the clock starts.

Three models select what the upstream does, because a model's name is what every gateway passes on:
`bench-reply` answers a short text, `bench-burst` streams 100 tokens in one write, `bench-paced` one token every 10 ms.
Every streamed token holds `TOKEN` once, so that the generator can count what arrived whatever the gateway rewrote.
"""

import json

REPLY, BURST, PACED = "bench-reply", "bench-burst", "bench-paced"
MODELS = (REPLY, BURST, PACED)

TOKENS = 100  # of one streamed answer
TOKEN_INTERVAL_S = 0.010
TOKEN = " token"
REPLY_TEXT = " ".join(["A gateway should cost nothing that its user can feel, on a busy day as on a calm one."] * 4)
REQUEST_BODY_BYTES = 226

_IDENTITY = {"created": 1700000000, "id": "chatcmpl-bench", "model": "bench"}
_USAGE = {"completion_tokens": TOKENS, "prompt_tokens": 30, "total_tokens": TOKENS + 30}


def request_template(model: str, *, stream: bool) -> tuple[bytes, bytes]:
    """The JSON body around an 8-digit number that makes each request a conversation of its own."""
    number = "@" * 8
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You answer in one paragraph."},
            {"role": "user", "content": f"Question {number}: what should a gateway cost?"},
        ],
        "temperature": 0.7,
        "stream": stream,
    }
    padding = "." * (REQUEST_BODY_BYTES - len(_dump(body)))
    body["messages"][1]["content"] += padding
    before, after = _dump(body).split(number.encode())
    return before, after


def http_head(host: str, key: str | None) -> bytes:
    """The head of a chat request; every body has the same length."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{authorization}Accept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {REQUEST_BODY_BYTES}\r\n\r\n"
    ).encode()


def json_answer(body: object) -> bytes:
    payload = _dump(body)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def completion() -> bytes:
    """The whole answer of a request that does not stream, about 0.6 KB."""
    message = {"role": "assistant", "content": REPLY_TEXT}
    choice = {"finish_reason": "stop", "index": 0, "message": message}
    return json_answer({"choices": [choice], **_IDENTITY, "object": "chat.completion", "usage": _USAGE})


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def stream_parts(texts: list[str], *, usage: bool) -> list[bytes]:
    """One HTTP chunk for each text, the role before the first and the end of the stream after the last."""
    events = [_delta({"content": text}) for text in texts]
    events[0] = _delta({"role": "assistant", "content": None}) + events[0]
    end = _delta({}, finish_reason="stop")
    if usage:
        end += http_chunk(_event({"choices": [], **_IDENTITY, "object": "chat.completion.chunk", "usage": _USAGE}))
    events[-1] += end + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return events


def _delta(delta: dict[str, str | None], finish_reason: str | None = None) -> bytes:
    choice = {"finish_reason": finish_reason, "index": 0, "delta": delta}
    return http_chunk(_event({"choices": [choice], **_IDENTITY, "object": "chat.completion.chunk"}))


def _event(value: object) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


def http_chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
