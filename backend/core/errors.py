"""Everything that can go wrong and that a caller is told about.

    ApiError                       an HTTP status and OpenAI's error object; one handler renders all of them
      BadRequest 400               ContextOverflow
      Unauthorized 401
      Forbidden 403
      NotFound 404                 ModelNotFound
      Conflict 409
      PayloadTooLarge 413
      Unprocessable 422
      TooManyRequests 429          QuotaExceeded
      StorageFailed 500
      InvalidAnswer 500
      Unavailable 503              BackendUnavailable, AnswerInterrupted

What a backend says in its own words becomes one of these in `backend/core/llm`, at one seam for each vendor. A message
says what was wrong and what to do, and never holds a stack trace, a path of this machine, or the input itself.
"""

from typing import Any


class ApiError(Exception):
    """An error with an HTTP status.

    Args:
        message: a sentence for the caller.
        param: the request field at fault, as a dotted path.
        code: a stable word that programs can test for.
        retry_after_s: when it makes sense to try again; becomes `Retry-After`.
    """

    status = 500
    type = "server_error"
    default_code: str | None = None

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s
        self.has_acted = False  # a tool has already done something: the same request again would do it twice

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, round(self.retry_after_s)))}
        return headers | ({"x-should-retry": "false"} if self.has_acted else {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequest(ApiError):
    status, type = 400, "invalid_request_error"


class ContextOverflow(BadRequest):
    """The prompt does not fit the model's window.

    `prompt_tokens` and `context_tokens` are the backend's own counts, or None where it did not tell.
    """

    default_code = "context_length_exceeded"

    def __init__(self, message: str, *, prompt_tokens: int | None = None, context_tokens: int | None = None) -> None:
        super().__init__(message, param="messages")
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class Unauthorized(ApiError):
    status, type, default_code = 401, "authentication_error", "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ApiError):
    status, type, default_code = 403, "permission_error", "permission_denied"


class NotFound(ApiError):
    status, type, default_code = 404, "not_found_error", "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"

    def __init__(self, model: str, hint: str = "GET /v1/models lists the models.") -> None:
        super().__init__(f"The model `{model}` does not exist or you do not have access to it. {hint}", param="model")


class Conflict(ApiError):
    status, type, default_code = 409, "conflict_error", "conflict"


class PayloadTooLarge(ApiError):
    status, type, default_code = 413, "invalid_request_error", "payload_too_large"


class Unprocessable(ApiError):
    status, type, default_code = 422, "invalid_request_error", "invalid_value"


class TooManyRequests(ApiError):
    status, type, default_code = 429, "rate_limit_error", "rate_limit_exceeded"


class QuotaExceeded(TooManyRequests):
    """What somebody may use in a day is used up."""

    type, default_code = "insufficient_quota", "insufficient_quota"

    @property
    def headers(self) -> dict[str, str]:
        return super().headers | {"x-should-retry": "false"}  # not before tomorrow


class StorageFailed(ApiError):
    """The disk is full or broken: what was asked for could not be kept."""

    default_code = "storage_failed"


class InvalidAnswer(ApiError):
    """What the model said is not what was asked for, also the second time."""

    default_code = "invalid_model_output"

    @property
    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}  # it was tried again already


class Unavailable(ApiError):
    status, type, default_code = 503, "service_unavailable", "service_unavailable"


class BackendUnavailable(Unavailable):
    """A backend refused the connection, timed out, broke down or answered rubbish: another one may do better."""

    default_code = "backend_unavailable"


class AnswerInterrupted(Unavailable):
    """A backend failed after the first token and no other could go on: what was said so far is all there is."""

    default_code = "answer_interrupted"
