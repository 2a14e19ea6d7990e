"""A llama.cpp server without a model: its HTTP API as a real one speaks it.

`tests.support.llm_server` tells how to script it.

python -m tests.support.fake_llamacpp --port 8080 --model tiny
"""

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

from aiohttp import web

from tests.support.llm_script import Answer, answer, count_tokens, go_on, message_text
from tests.support.llm_server import CALL, Call, FakeModelServer, serve


class FakeLlamaCpp(FakeModelServer):
    content_type = "text/event-stream"

    def __init__(
        self,
        model: str = "tiny",
        *,
        n_ctx: int = 4096,
        supports_tools: bool | None = True,  # None: a server too old to tell
        vision: bool = False,
        api_key: str = "",
        embeddings: bool = False,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self.model = model
        self.n_ctx = n_ctx
        self.supports_tools = supports_tools
        self.vision = vision
        self.api_key = api_key
        self.embeddings = embeddings  # a server that is started for these answers no chats
        self.template = "{% for message in messages %}…{% endfor %}"
        self.loading = False  # true: 503 everywhere, as in the first seconds of a big model

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self._health),
            web.get("/v1/models", self._models),
            web.get("/props", self._props),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._complete),
            web.post("/v1/embeddings", self._embed),
        ]

    def error(self, status: int, error: Any) -> web.Response:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 503: "unavailable_error"}
        body = error if isinstance(error, dict) else {"message": error, "type": kinds.get(status, "server_error")}
        return _json({"error": {"code": status, **body}}, status)

    def unknown_route(self, status: int) -> web.Response:
        return self.error(404, {"message": "File Not Found", "type": "not_found_error"})

    def error_frame(self, message: str) -> bytes:
        return _frame({"error": {"code": 500, "message": message, "type": "server_error"}})

    # --- Routes -----------------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.Response:
        return self._refused(request, open_to_all=True) or _json({"status": "ok"})

    async def _embed(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        if not self.embeddings:
            message = "This server does not support embeddings. Start it with `--embeddings`"
            return self.error(501, {"message": message, "type": "not_supported_error"})
        given = request[CALL].body["input"]
        texts = [given] if isinstance(given, str) else given
        entries = [{"object": "embedding", "index": at, "embedding": [float(at), 1.0]} for at in range(len(texts))]
        usage = {"prompt_tokens": sum(map(len, texts)), "total_tokens": sum(map(len, texts))}
        return _json({"object": "list", "data": entries[::-1], "model": self.model, "usage": usage})

    async def _models(self, request: web.Request) -> web.Response:
        meta = {"vocab_type": 2, "n_vocab": 49152, "n_ctx": self.n_ctx, "n_ctx_train": 8192, "n_embd": 576}
        entry = {"id": self.model, "object": "model", "created": 1795373847, "owned_by": "llamacpp", "meta": meta}
        return self._refused(request) or _json({"object": "list", "data": [entry], "models": [{"name": self.model}]})

    async def _props(self, request: web.Request) -> web.Response:
        props: dict[str, Any] = {
            "default_generation_settings": {"n_ctx": self.n_ctx, "params": {"temperature": 0.8}},
            "total_slots": 4,
            "model_alias": self.model,
            "modalities": {"vision": self.vision, "audio": False},
            "chat_template": self.template,
            "build_info": "b0-unknown",
        }
        if self.supports_tools is not None:
            names = ("supports_tools", "supports_tool_calls", "supports_parallel_tool_calls")
            props["chat_template_caps"] = dict.fromkeys(names, self.supports_tools) | {"supports_system_role": True}
        return self._refused(request) or _json(props)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        call = request[CALL]
        body, messages = call.body, call.body.get("messages")
        if refused := self._refused(request) or self._check(body, messages):
            return refused
        assert isinstance(messages, list)
        reply = self.next_reply(messages)
        if reply.status != 200:
            return self.error(reply.status, reply.error)
        if reply.body is not None:
            return web.Response(body=reply.body, content_type=self.content_type)
        form = body.get("response_format") or {}
        said = answer(
            reply,
            messages,
            max_tokens=body.get("max_tokens"),
            schema=(form.get("json_schema") or {}).get("schema", {}) if form else None,
        )
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if body.get("stream"):
            return await self.stream(request, call, reply, said)
        message = {"role": "assistant", "content": message_text(messages[-1]) if _continues(messages) else ""}
        message["content"] += "".join(said.text)
        choice = {"finish_reason": said.finish, "index": 0, "message": message}
        return _json(self._head() | {"choices": [choice], "object": "chat.completion", "usage": _usage(said)})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        call = request[CALL]
        body = call.body
        if refused := self._refused(request):
            return refused
        if "prompt" not in body:
            return self.error(400, "[json.exception.out_of_range.403] key 'prompt' not found")
        messages = [{"role": "user", "content": body["prompt"]}]
        if (size := count_tokens(messages)) >= self.n_ctx:
            return self._overflow(size)
        reply = self.next_reply(messages)
        if reply.status != 200:
            return self.error(reply.status, reply.error)
        if reply.text is None:
            reply = replace(reply, text=go_on(body["prompt"]))
        said = answer(reply, messages, max_tokens=body.get("max_tokens"))
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        return await self.stream(request, call, reply, said)

    def _overflow(self, size: int) -> web.Response:
        words = f"request ({size} tokens) exceeds the available context size ({self.n_ctx} tokens), …"
        error = {"message": words, "type": "exceed_context_size_error"}
        return self.error(400, error | {"n_prompt_tokens": size, "n_ctx": self.n_ctx})

    def _refused(self, request: web.Request, *, open_to_all: bool = False) -> web.Response | None:
        if self.loading:
            return self.error(503, "Loading model")
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return None if open_to_all or key == self.api_key else self.error(401, "Invalid API Key")

    def _check(self, body: dict[str, Any], messages: Any) -> web.Response | None:
        """What a real one refuses, in its words."""
        if not isinstance(messages, list):
            return self.error(400, "Expected 'messages' to be an array")
        if len(messages) > 1 and messages[-1]["role"] == messages[-2]["role"] == "assistant":
            return self.error(400, "Cannot have 2 or more assistant messages at the end of the list.")
        for message in messages:
            for call in message.get("tool_calls") or ():
                try:
                    json.loads(call["function"]["arguments"])
                except ValueError:
                    return self.error(500, "Failed to parse tool call arguments as JSON")
            if not self.vision and isinstance(message.get("content"), list):
                hint = "hint: if this is unexpected, you may need to provide the mmproj"
                return self.error(500, f"image input is not supported - {hint}")
        if body.get("top_logprobs") is not None and not body.get("logprobs"):
            return self.error(400, "top_logprobs requires logprobs to be set to true")
        if body.get("tools") and body.get("grammar"):
            return self.error(400, "Cannot use custom grammar constraints with tools.")
        if (size := count_tokens(messages)) >= self.n_ctx:
            return self._overflow(size)
        return None

    # --- Frames -----------------------------------------------------------------------------------------------------

    def frames(self, call: Call, answer: Answer) -> tuple[list[bytes], list[bytes]]:
        if "prompt" in call.body:
            return self._completion_frames(call, answer)
        alternatives = call.body.get("top_logprobs", 20) if call.body.get("logprobs") else 0
        deltas: list[dict[str, Any]] = [{"delta": {"reasoning_content": piece}} for piece in answer.thinking]
        for piece in answer.text:
            entry = {"id": 1, "token": piece, "bytes": list(piece.encode()), "logprob": -0.5}
            content = {"content": [entry | {"top_logprobs": [dict(entry)] * alternatives}]}
            deltas.append({"delta": {"content": piece}} | ({"logprobs": content} if alternatives else {}))
        calls = () if self.supports_tools is False or not call.body.get("tools") else answer.tool_calls
        for index, (name, arguments) in enumerate(calls):
            function = {"name": name, "arguments": "{"}
            head = {"index": index, "id": f"call{index:028x}", "type": "function", "function": function}
            deltas.append({"delta": {"tool_calls": [head]}})
            rest = json.dumps(arguments)[1:]
            for piece in (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
                deltas.append({"delta": {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}})
        head = self._head()
        opening = _frame(
            head | {"choices": [{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}]}
        )
        frames = [_frame(head | {"choices": [{"finish_reason": None, "index": 0, **delta}]}) for delta in deltas]
        frames[:1] = [opening + frames[0]] if frames else [opening]
        finish = "tool_calls" if calls and answer.finish == "stop" else answer.finish
        ending = [_frame(head | {"choices": [{"finish_reason": finish, "index": 0, "delta": {}}]})]
        if (call.body.get("stream_options") or {}).get("include_usage"):
            ending.append(_frame(head | {"choices": [], "usage": _usage(answer), "timings": {"cache_n": 0}}))
        return frames, [*ending, b"data: [DONE]\n\n"]

    def _completion_frames(self, call: Call, answer: Answer) -> tuple[list[bytes], list[bytes]]:
        alternatives = call.body.get("logprobs", 0)
        head = self._head() | {"object": "text_completion"}
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None}
        frames = []
        for piece in answer.text:
            entry = {"id": 1, "token": piece, "bytes": list(piece.encode()), "logprob": -0.5}
            logprobs = {"content": [entry | {"top_logprobs": [dict(entry)] * alternatives}]} if alternatives else None
            frames.append(_frame(head | {"choices": [choice | {"text": piece, "logprobs": logprobs}]}))
        last = head | {"choices": [choice | {"text": "", "finish_reason": answer.finish}], "usage": _usage(answer)}
        return frames, [_frame(last), b"data: [DONE]\n\n"]

    def _head(self) -> dict[str, Any]:
        return {
            "created": int(time.time()),
            "id": "chatcmpl-EBmgRrDDmA2N5BOxPZT6fzu2hW6rBD9B",
            "model": self.model,
            "system_fingerprint": "b0-unknown",
            "object": "chat.completion.chunk",
        }


def _continues(messages: list[dict[str, Any]]) -> bool:
    return bool(messages) and messages[-1]["role"] == "assistant"


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "completion_tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "total_tokens": answer.tokens + answer.prompt_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.prompt_tokens // 2},
    }


def _frame(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _json(value: Any, status: int = 200) -> web.Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, headers={"Content-Type": "application/json; charset=utf-8"})


if __name__ == "__main__":
    serve(lambda given: FakeLlamaCpp((given.model or ["tiny"])[0], port=given.port))
