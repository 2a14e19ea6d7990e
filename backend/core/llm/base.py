"""What every source of model output has in common: the request, the protocol, and what is known of a model.

`Ollama` and `LlamaCpp` speak to real servers; `Fallback`, `Logged` and `Limited` wrap other backends and are backends
themselves, so that the order of wrapping is all there is to configure.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from backend.core.events import BackendEvent
from backend.core.messages import Message


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. None means: not asked for, leave it to the model's own default.

    `top_logprobs` is the number of alternatives per token; `logprobs` asks for them at all.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that the client runs itself: the model's calls go back to it."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)  # JSON schema
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class NamedTool:
    """`tool_choice` that names one tool."""

    name: str


ToolChoice = str | NamedTool  # "none", "auto", "required" or a named tool


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """`schema` None: any JSON object. Otherwise the JSON schema that the answer must fit."""

    schema: dict[str, Any] | None = None
    name: str = "answer"


@dataclass(frozen=True, slots=True)
class CallContext:
    """For whom a model call is made: goes to the logs, never to the model."""

    request_id: str = ""
    username: str = ""
    session_id: str | None = None
    agent: str = "chat"


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """One model call.

    `model` is the name that the client asked for; a backend gets it replaced by its own name for it.
    An assistant message given last is an answer to be continued; see `LLMBackend.continues`.

    With a `prompt` there are no messages: the model goes on with that text as it stands, without a chat template.
    `suffix` is what comes after the text that is asked for.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None  # none, minimal, low, medium, high, max
    live: bool = True  # the caller shows deltas as they come; an answer that nobody saw may be begun anew
    context: CallContext = CallContext()
    prompt: str | None = None
    suffix: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a backend has. None means that the backend did not tell."""

    id: str
    owned_by: str
    created: int = 0  # Unix seconds
    context_tokens: int | None = None
    capabilities: frozenset[str] = frozenset()  # of completion, tools, vision, thinking, embedding


class ModelStream(Protocol):
    """What an agent needs of a backend."""

    def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        """Yield deltas, then exactly one `Completed`.

        Closing the generator ends the call on the backend within a second.

        Raises:
            ModelNotFound, ContextOverflow, BadRequest: the request cannot be answered as it is.
            BackendUnavailable: nothing usable came; may be raised after the first delta as well.
        """
        ...


class LLMBackend(ModelStream, Protocol):
    """One server that runs models."""

    name: str  # unique in a chain; the client sees it as X-LLM-Backend
    kind: str  # "ollama" or "llamacpp": the key into BACKEND_MODEL_MAP
    default_model: str | None  # the model meant by "default"; None: the first that is listed

    async def list_models(self) -> list[ModelInfo]:
        """The models that can be asked for now. Also the health probe: it is cheap and has a short deadline.

        Raises:
            BackendUnavailable: the server cannot be reached or does not answer sensibly.
        """
        ...

    async def continues(self, model: str) -> bool:
        """Whether an assistant message given last is continued with new text only, rather than answered anew."""
        ...


@dataclass(frozen=True, slots=True)
class Embedding:
    """Vectors of texts, in their order, and the tokens that the model read of all of them."""

    vectors: list[list[float]]
    tokens: int


@runtime_checkable
class TextEmbedder(Protocol):
    """A backend whose models may turn texts into vectors."""

    async def embed(self, model: str, texts: Sequence[str]) -> Embedding:
        """
        Raises:
            BadRequest: the model makes no vectors, or a text is longer than it can read.
            BackendUnavailable: nothing usable came.
        """
        ...
