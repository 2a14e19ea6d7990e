"""The chain: an answer from the first backend that can give it, and the rest of it from the next one if that breaks.

    before the first delta   Unavailable, ModelNotFound -> the next backend
                             BadRequest about an ability that this model lacks -> the next backend
                             ContextOverflow, any other BadRequest -> the caller
    after it                 any error -> the next backend goes on with the answer (see `continuation`),
                             AnswerInterrupted when none can

Backends whose circuit breaker is open are passed over. Before giving up, the catalog takes a second look at those, and
the ones that answer its probe are asked after all. So no call waits for a backend that is known to be down, and none
fails because of a breaker alone.
"""

import dataclasses
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from backend.core.errors import (
    AnswerInterrupted,
    ApiError,
    BackendUnavailable,
    BadRequest,
    ContextOverflow,
    ModelNotFound,
    Unavailable,
)
from backend.core.events import BackendEvent, BackendSelected, Completed, ReasoningDelta, TextDelta
from backend.core.llm.base import LLMRequest
from backend.core.llm.breaker import Reason, is_unreachable, reason_of
from backend.core.llm.catalog import Candidate, ModelCatalog, nobody_answers
from backend.core.llm.continuation import Seam, Sent, ask_to_continue
from backend.core.messages import ImagePart

# Fields that one model can serve and another cannot. Where such a field is wrong in itself the next backend refuses it
# as well: that costs one cheap call, and the caller is told the first refusal.
ABILITIES = frozenset(
    {
        "tools",
        "tool_choice",
        "response_format",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "reasoning_effort",
        "model",
        "suffix",
    }
)

logger = logging.getLogger(__name__)


class FailureObserver(Protocol):
    """Is told of every backend that failed, also where the client noticed nothing."""

    def backend_failed(self, backend: str, reason: Reason) -> None: ...


class Fallback:
    """A `ModelStream` over all backends of a catalog.

    Yields `BackendSelected` right before the first event of each backend that has a part in the answer.

    Raises (from `stream`):
        BackendUnavailable: nobody could answer; tells what is wrong with each backend.
        ModelNotFound, ContextOverflow, BadRequest: as the protocol says.
        AnswerInterrupted: the answer broke off after its first delta.
    """

    def __init__(self, catalog: ModelCatalog, *, retry_after_s: float, observer: FailureObserver | None = None) -> None:
        self._catalog = catalog
        self._retry_after_s = retry_after_s
        self._observer = observer

    async def stream(self, request: LLMRequest) -> AsyncGenerator[BackendEvent, None]:
        sent = Sent()
        down: dict[str, str] = {}  # by backend: what is wrong with it
        refusals: list[ApiError] = []  # what backends said that are well
        async with aclosing(self._in_turn(request.model, down)) as candidates:
            async for candidate in candidates:
                try:
                    async with aclosing(_answer(candidate, request, sent)) as events:
                        async for event in events:
                            yield event
                    return
                except ApiError as error:
                    self._note_failure(candidate, error)
                    if sent.begun:
                        if not sent.can_go_on(request):
                            raise self._interrupted() from error
                    elif isinstance(error, Unavailable):
                        down[candidate.backend.name] = error.message
                    elif _may_suit_another(request, error):
                        refusals.append(error)
                    else:
                        raise
                finally:
                    candidate.breaker.release(candidate)
        if sent.begun:
            raise self._interrupted()
        refusals.sort(key=lambda refusal: isinstance(refusal, ModelNotFound))  # the others say more
        if refusals and not (down and isinstance(refusals[0], ModelNotFound)):
            raise refusals[0]
        raise nobody_answers(down, retry_after_s=self._retry_after_s)

    async def _in_turn(self, model: str, down: dict[str, str]) -> AsyncGenerator[Candidate, None]:
        passed_over = []
        for candidate in await self._catalog.candidates(model):
            if candidate.breaker.admit(candidate):
                yield candidate
            else:
                passed_over.append(candidate.backend.name)
        if passed_over:
            still_down = await self._catalog.look_again(passed_over)
            down |= still_down
            for candidate in self._catalog.known_candidates(model):
                if candidate.backend.name in passed_over and candidate.backend.name not in still_down:
                    yield candidate

    def _note_failure(self, candidate: Candidate, error: ApiError) -> None:
        if not isinstance(error, BackendUnavailable):
            candidate.breaker.succeed()  # a refusal is an answer, too
            return
        reason = reason_of(error)
        candidate.breaker.fail(unreachable=is_unreachable(reason))
        logger.info("Backend %s failed (%s): %s", candidate.backend.name, reason, error.message)
        if self._observer:
            self._observer.backend_failed(candidate.backend.name, reason)

    def _interrupted(self) -> AnswerInterrupted:
        return AnswerInterrupted(
            "The model server failed in the middle of the answer, and no other could go on with it. What was said so "
            "far is all there is; ask again for a whole answer.",
            retry_after_s=self._retry_after_s,
        )


async def _answer(candidate: Candidate, request: LLMRequest, sent: Sent) -> AsyncGenerator[BackendEvent, None]:
    """What one backend adds to what was sent, or the whole answer when that is nothing yet."""
    backend = candidate.backend
    call, seam = dataclasses.replace(request, model=candidate.model_name), None
    if sent.begun:
        continues = request.prompt is not None or await backend.continues(candidate.model_name)
        seam = Seam(sent, continues=continues) if request.prompt is None else None
        call = ask_to_continue(call, sent) if continues else call
    selected = False
    async with aclosing(backend.stream(call)) as events:
        async for arrived in events:
            for event in (arrived,) if seam is None else seam.join(arrived):
                if not selected:
                    if isinstance(event, TextDelta | ReasoningDelta) and not event.text:
                        continue  # says nothing: another backend may still take over unnoticed
                    selected = True
                    candidate.breaker.succeed()
                    yield BackendSelected(backend.name, candidate.model_name)
                sent.note(event)
                yield event
                if isinstance(event, Completed):
                    return
    raise BackendUnavailable(f"The model server `{backend.name}` stopped in the middle of an answer.")


def _may_suit_another(request: LLMRequest, error: ApiError) -> bool:
    """Whether a refused request may be fine for another backend's model."""
    if not isinstance(error, BadRequest) or isinstance(error, ContextOverflow):
        return isinstance(error, ModelNotFound)
    return error.param in ABILITIES or (error.param == "messages" and _has_images(request))


def _has_images(request: LLMRequest) -> bool:
    contents = [message.content for message in request.messages if not isinstance(message.content, str)]
    return any(isinstance(part, ImagePart) for content in contents for part in content)
