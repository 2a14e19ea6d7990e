"""An Ollama without models: its native API as a real one was recorded to speak it.

`tests.support.llm_server` tells how to script it.

python -m tests.support.fake_ollama --port 11434 --model smollm2:135m
"""

import asyncio
import hashlib
import json
import re
import time
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from tests.support.llm_script import Answer, Reply, answer, count_tokens, go_on
from tests.support.llm_server import CALL, Call, FakeModelServer, serve

OPEN_TEMPLATE = (
    "{{ range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 -}}<|im_start|>{{ .Role }}\n"
    '{{ .Content }}{{ if not (and $last (eq .Role "assistant")) }}<|im_end|>\n{{ end }}{{ end }}'
)
CLOSED_TEMPLATE = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)
TYPES = {"temperature": "float32", "top_p": "float32", "seed": "integer", "num_predict": "integer", "stop": "array"}


@dataclass(frozen=True, slots=True)
class FakeModel:
    name: str = "smollm2:135m"
    context: int = 8192
    capabilities: tuple[str, ...] = ("completion",)
    continues: bool = True  # goes on with an assistant message given last
    template: str | None = None  # None: one that is open at the end if it continues, closed if not
    digest: str | None = None

    @property
    def sha(self) -> str:
        return self.digest or hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def details(self) -> dict[str, Any]:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "134.52M",
            "quantization_level": "Q4_1",
        }


class FakeOllama(FakeModelServer):
    """`tags_tell_all` false: an older server, whose list has neither context lengths nor capabilities."""

    content_type = "application/x-ndjson"

    def __init__(self, models: list[FakeModel] | None = None, *, port: int = 0, tags_tell_all: bool = True) -> None:
        super().__init__(port=port)
        self.models = [FakeModel()] if models is None else models
        self.tags_tell_all = tags_tell_all

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._root),
            web.get("/api/version", self._version),
            web.get("/api/tags", self._tags),
            web.get("/api/ps", self._ps),
            web.post("/api/show", self._show),
            web.post("/api/chat", self._chat),
            web.post("/api/generate", self._generate),
            web.post("/api/embed", self._embed),
        ]

    def error(self, status: int, error: Any) -> web.Response:
        return _json({"error": error}, status)

    def unknown_route(self, status: int) -> web.Response:
        text = "404 page not found" if status == 404 else "405 method not allowed"
        return web.Response(status=status, body=text.encode(), headers={"Content-Type": "text/plain"})

    def error_frame(self, message: str) -> bytes:
        return go_json({"error": message}) + b"\n"

    # --- Routes -----------------------------------------------------------------------------------------------------

    async def _root(self, request: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _version(self, request: web.Request) -> web.Response:
        return _json({"version": "0.0.0"})

    async def _tags(self, request: web.Request) -> web.Response:
        listed = []
        for model in self.models:
            name = _full(model.name)
            tag = {"name": name, "model": name, "modified_at": now(), "size": 98362432, "digest": model.sha}
            tag["details"] = model.details
            if self.tags_tell_all:
                tag["details"] = model.details | {"context_length": model.context, "embedding_length": 576}
                tag["capabilities"] = list(model.capabilities)
            listed.append(tag)
        return _json({"models": listed})

    async def _ps(self, request: web.Request) -> web.Response:
        return _json({"models": []})

    async def _embed(self, request: web.Request) -> web.Response:
        body = request[CALL].body
        model = self._find(str(body.get("model", "")))
        if model is None:
            return self.error(404, f"model '{_full(str(body.get('model', '')))}' not found")
        if "embedding" not in model.capabilities:
            return self.error(501, "This server does not support embeddings. Start it with `--embeddings`")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = [[1.0 if place == at % 4 else 0.0 for place in range(4)] for at in range(len(texts))]
        return _json({"model": model.name, "embeddings": vectors, "prompt_eval_count": sum(map(len, texts))})

    async def _show(self, request: web.Request) -> web.Response:
        name = str(request[CALL].body.get("model", ""))
        model = self._find(name)
        if model is None:
            return self.error(404, f"model '{_full(name)}' not found")
        template = model.template or (OPEN_TEMPLATE if model.continues else CLOSED_TEMPLATE)
        return _json(
            {
                "modelfile": f'FROM /models/blob\nTEMPLATE """{template}"""\n',
                "parameters": 'stop                           "<|im_end|>"',
                "template": template,
                "details": model.details,
                "model_info": {"general.architecture": "llama", "llama.context_length": model.context},
                "capabilities": list(model.capabilities),
                "modified_at": now(),
            }
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        call = request[CALL]
        body = call.body
        if refused := self._check(body):
            return refused
        model = self._find(body["model"])
        assert model is not None
        messages: list[dict[str, Any]] = body["messages"]
        reply = self.next_reply(messages)
        if reply.status != 200:
            return self.error(reply.status, reply.error)
        if reply.body is not None:
            return web.Response(body=reply.body, content_type="application/x-ndjson")
        options = body.get("options") or {}
        window = int(options.get("num_ctx", 4096))
        if (size := count_tokens(messages)) >= window:
            if body.get("truncate") is False:
                return self.error(400, _overflow(size, window))
            reply = Reply(text="", finish="stop")  # what a real one does: it cuts the prompt and says nothing
        form = body.get("format")
        said = answer(
            reply,
            messages,
            max_tokens=options.get("num_predict"),
            schema=form if isinstance(form, dict) else {} if form == "json" else None,
            continues=model.continues,
        )
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if body.get("stream", True):
            return await self.stream(request, call, reply, said)
        last = json.loads(self.frames(call, said)[1][-1])
        last["message"] = _message("".join(said.text), "".join(said.thinking), _calls(said))
        return _json(last)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        call = request[CALL]
        body = call.body
        if refused := self._check({**body, "messages": []}):
            return refused
        if body.get("suffix") and "insert" not in self._find(body["model"]).capabilities:  # type: ignore[union-attr]
            return self.error(400, f"registry.ollama.ai/library/{body['model']} does not support insert")
        messages = [{"role": "user", "content": body["prompt"]}]
        reply = self.next_reply(messages)
        if reply.status != 200:
            return self.error(reply.status, reply.error)
        options = body.get("options") or {}
        window = int(options.get("num_ctx", 4096))
        if (size := count_tokens(messages)) >= window:
            return self.error(400, _overflow(size, window))
        if reply.text is None:
            reply = replace(reply, text=go_on(body["prompt"]))
        said = answer(reply, messages, max_tokens=options.get("num_predict"))
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        return await self.stream(request, call, reply, said)

    def _check(self, body: dict[str, Any]) -> web.Response | None:
        """What a real one refuses, in its words."""
        name, messages = body.get("model"), body.get("messages")
        if not name:
            return self.error(400, "model is required")
        if not re.fullmatch(r"[\w./:-]+", str(name)):
            return self.error(400, "invalid model name")
        model = self._find(str(name))
        if model is None:
            return self.error(404, f"model '{name}' not found")
        if not isinstance(messages, list):
            go = "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message"
            return self.error(400, go)
        for message in messages:
            for call in message.get("tool_calls") or ():
                if not isinstance(call["function"]["arguments"], dict):
                    return self.error(400, "json: cannot unmarshal string into Go struct field .arguments")
        if body.get("tools") and "tools" not in model.capabilities:
            return self.error(400, f"registry.ollama.ai/library/{name} does not support tools")
        if body.get("think") and "thinking" not in model.capabilities:
            return self.error(400, f'"{name}" does not support thinking')
        if body.get("think", True) not in {True, False, "high", "medium", "low", "max"}:
            return self.error(
                400, f'invalid think value: "{body["think"]}" (must be "high", "medium", "low", "max", …)'
            )
        if any(message.get("images") for message in messages) and "vision" not in model.capabilities:
            words = "Multimodal data provided, but model does not support multimodal requests."
            return self.error(400, _nested({"code": 400, "message": words, "type": "invalid_request_error"}))
        if not isinstance(body.get("format", "json"), dict) and body.get("format", "json") not in {"json", ""}:
            return self.error(500, f'invalid format: {json.dumps(json.dumps(body["format"]))}; expected "json" or …')
        for option, value in (body.get("options") or {}).items():
            if isinstance(value, str) and option in TYPES:
                return self.error(500, f'option "{option}" must be of type {TYPES[option]}')
        return None

    def _find(self, name: str) -> FakeModel | None:
        return next((model for model in self.models if _full(model.name) == _full(name)), None)

    # --- Frames -----------------------------------------------------------------------------------------------------

    def frames(self, call: Call, answer: Answer) -> tuple[list[bytes], list[bytes]]:
        head = {"model": call.body["model"], "created_at": now()}
        logprobs = bool(call.body.get("logprobs"))
        if "prompt" in call.body:
            return self._generate_frames(call, answer, head)
        deltas: list[dict[str, Any]] = [{"message": _message("", piece), "done": False} for piece in answer.thinking]
        for piece in answer.text:
            extra = {"logprobs": [_logprob(piece, call.body.get("top_logprobs") or 0)]} if logprobs else {}
            deltas.append({"message": _message(piece), "done": False, **extra})
        deltas += [{"message": _message("", calls=[one]), "done": False} for one in _calls(answer)]
        end = {"message": _message(""), **_ending(answer)}
        return [go_json(head | delta) + b"\n" for delta in deltas], [go_json(head | end) + b"\n"]

    def _generate_frames(self, call: Call, answer: Answer, head: dict[str, Any]) -> tuple[list[bytes], list[bytes]]:
        deltas = []
        for piece in answer.text:
            extra = {"logprobs": [_logprob(piece, call.body["top_logprobs"])]} if call.body.get("logprobs") else {}
            deltas.append(go_json(head | {"response": piece, "done": False, **extra}) + b"\n")
        return deltas, [go_json(head | {"response": "", **_ending(answer)}) + b"\n"]


def _ending(answer: Answer) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": answer.finish,
        "total_duration": 1256983562,
        "load_duration": 1083538746,
        "prompt_eval_count": answer.prompt_tokens,
        "prompt_eval_duration": 90259000,
        "eval_count": answer.tokens,
        "eval_duration": 79649000,
    }


def _message(content: str, thinking: str = "", calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return message


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{index:08x}", "function": {"index": index, "name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(answer.tool_calls)
    ]


def _logprob(piece: str, alternatives: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"token": piece, "logprob": -0.5, "bytes": list(piece.encode())}
    return entry | {"top_logprobs": [dict(entry)] * alternatives} if alternatives else entry


def _overflow(size: int, window: int) -> str:
    words = f"request ({size} tokens) exceeds the available context size ({window} tokens), try increasing it"
    error = {"code": 400, "message": words, "type": "exceed_context_size_error"}
    return _nested(error | {"n_prompt_tokens": size, "n_ctx": window})


def _nested(error: dict[str, Any]) -> str:
    return json.dumps({"error": error}, separators=(",", ":"))


def _full(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def now() -> str:
    """RFC 3339 with nine digits, as Go writes it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def go_json(value: Any) -> bytes:
    """JSON as Go's encoder writes it: text as UTF-8, but `<`, `>` and `&` escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=go_json(value), headers={"Content-Type": "application/json; charset=utf-8"})


if __name__ == "__main__":
    serve(lambda given: FakeOllama([FakeModel(name) for name in given.model or ["smollm2:135m"]], port=given.port))
