"""A turn: one question, its answer, and the conversation that both belong to.

`Turns.open` does everything that deserves an HTTP status before the first byte. `OpenTurn.run` yields the events and
keeps what was said: the question when its answer begins, the answer before its last event is passed on, and what there
is of an answer when it breaks off or the client leaves.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from backend.core.answers import Answer
from backend.core.attachments import Attachment, Attachments, FileReference
from backend.core.citations import find_citations
from backend.core.contracts import Agent, Turn
from backend.core.errors import ApiError, BadRequest, Unavailable
from backend.core.events import AnswerCited, Event, HistoryTrimmed, RunFinished, ToolStarted
from backend.core.llm.base import CallContext, LLMRequest, ToolDefinition
from backend.core.llm.catalog import ModelCatalog
from backend.core.messages import Message
from backend.core.recorder import Recorder
from backend.core.runs import Runs, Trace, new_run_id, with_run_notes
from backend.core.storage import prefixes
from backend.core.storage.scratch_quota import ScratchQuota
from backend.core.storage.sessions import Sessions, new_session_id
from backend.core.storage.spans import Spans, extend, length
from backend.core.tool_client import ToolClient

MAX_NOTED_MESSAGES = 200  # of a conversation that the client keeps: the newest, which may have notes on runs
AGENT_NAMES = ("chat", "react", "plan_execute", "auto")


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request, freed of its wire format.

    `request.messages` are the client's own; with a `session_id` they continue the stored conversation.
    """

    request: LLMRequest
    agent: str | None = None  # None: the model's name tells, or the default
    available_tools: tuple[str, ...] | None = None  # None: all that are on
    session_id: str | None = None
    chat_id: str | None = None  # how a client that sends its whole history each time calls the conversation
    spans: Spans | None = None  # with a session: the messages that lead to this question; None: all
    instructions: str | None = None  # a system message of this question alone, which is not kept
    store: bool = True
    choices: int = 1
    attachments: tuple[Attachment, ...] = ()
    files: tuple[FileReference, ...] = ()  # parts of messages that are to become attachments
    rag_collection: str | None = None


@dataclass(slots=True)
class OpenTurn:
    """A turn that may run. `answers` grows while it does, one for each choice."""

    turn: Turn
    agent: Agent
    session_id: str | None
    answers: list[Answer]
    recorder: Recorder | None
    dropped_messages: int = 0  # stored messages that are too old to be sent along
    earlier: Spans = ()  # the stored messages that lead to the question

    @property
    def spans(self) -> Spans:
        """The messages that lead to the answer, and the answer, as far as they are kept by now."""
        spans = self.earlier
        for first, last in self.recorder.kept if self.recorder else ():
            spans = extend(spans, first, last)
        return spans

    @property
    def run_id(self) -> str | None:
        return self.recorder.trace.run_id if self.recorder and self.recorder.trace else None

    async def run(self, choice: int = 0, *, live: bool = True) -> AsyncGenerator[Event, None]:
        """Yield the events of one choice. The first choice is the one that the conversation keeps.

        Args:
            live: the client sees events as they come. Otherwise it sees nothing before the end, and the question is
                kept together with the answer, in one write.

        Raises:
            ApiError: the run failed; what was said until then is kept.
        """
        answer = self.answers[choice]
        recorder = self.recorder if choice == 0 else None
        question: asyncio.Task[None] | None = None
        finished = False
        try:
            if self.dropped_messages:
                answer.add(HistoryTrimmed(self.dropped_messages))
                yield HistoryTrimmed(self.dropped_messages)
            async with aclosing(self.agent.run(self.turn)) as events:
                async for event in events:
                    # A question is kept when somebody begins to answer it: one that fails leaves nothing behind.
                    if live and recorder and question is None:
                        question = asyncio.create_task(recorder.keep_question())
                    elif question and question.done():
                        question.result()  # raises when it could not be kept: the client learns it now, not at the end
                    if isinstance(event, HistoryTrimmed):
                        event = HistoryTrimmed(event.dropped_messages + self.dropped_messages)
                    elif isinstance(event, RunFinished) and (cited := find_citations(answer.text, answer.steps)):
                        answer.add(AnswerCited(cited))
                        if recorder and recorder.trace:
                            recorder.trace.add(AnswerCited(cited))
                        yield AnswerCited(cited)
                    answer.add(event)
                    if recorder and recorder.trace:
                        recorder.trace.add(event)
                    if isinstance(event, RunFinished):
                        if question:
                            await asyncio.shield(question)
                        if recorder:
                            await recorder.keep_answer(answer)
                        finished = True
                    yield event
        except ApiError as error:
            error.has_acted = any(isinstance(step, ToolStarted) for step in answer.steps)
            raise
        finally:
            if recorder and not finished:
                await recorder.keep_interrupted(answer, question)

    async def run_all(self, *, live: bool = True) -> AsyncGenerator[tuple[int, Event], None]:
        """Yield the events of all choices as they come, each with its choice's index."""
        runs = [self.run(choice, live=live) for choice in range(len(self.answers))]
        waiting = {asyncio.ensure_future(anext(run)): choice for choice, run in enumerate(runs)}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for step in done:
                    choice = waiting.pop(step)
                    if isinstance(step.exception(), StopAsyncIteration):
                        continue
                    yield choice, step.result()
                    waiting[asyncio.ensure_future(anext(runs[choice]))] = choice
        finally:
            for step in waiting:
                step.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for run in runs:
                await run.aclose()


class Turns:
    """Opens turns. One for the life of the process.

    Args:
        history: how many stored messages are put before a new question.
        default_agent: of a request that names none.
        agent_models: agent -> the model of a request that names none.
        temperature: of a request that names none.
    """

    def __init__(
        self,
        sessions: Sessions,
        catalog: ModelCatalog,
        agents: Mapping[str, Agent],
        tool_client: ToolClient,
        runs: Runs,
        attachments: Attachments,
        scratch_quota: ScratchQuota,
        *,
        default_agent: str,
        agent_models: Mapping[str, str],
        history: int,
        temperature: float,
    ) -> None:
        self._sessions = sessions
        self._catalog = catalog
        self._agents = agents
        self._tool_client = tool_client
        self._runs = runs
        self._attachments = attachments
        self._scratch_quota = scratch_quota
        self._agent_models = agent_models
        self._default_agent = default_agent
        self._history = history
        self._temperature = temperature

    async def open(self, question: Question, *, username: str, request_id: str) -> OpenTurn:
        """Find the agent and the conversation of a question.

        Raises:
            BadRequest: an agent, a tool or a combination that does not exist.
            NotFound: a session that is not the caller's.
            ModelNotFound, BackendUnavailable: nobody can answer.
        """
        name, model = self._choose_agent(question)
        agent = self._agents.get(name)
        if agent is None:
            available = ", ".join(self._agents)
            raise BadRequest(
                f"The agent {name!r} is not available on this server yet. Available: {available}.", param="agent_type"
            )
        if question.choices > 1 and name != "chat":
            raise BadRequest("Agents give one answer: leave n out or set it to 1.", param="n")
        if question.request.sampling.logprobs and name != "chat":
            raise BadRequest("Agents give no logprobs: leave them out.", param="logprobs")
        tools = await self._offer_tools(question, name, username)
        await self._catalog.candidates(model)
        if question.session_id is not None and (question.store or question.spans is not None):
            joined = await self._continue_session(question, question.session_id, username, name)
        elif not question.store:
            joined = _Joined(None, None, await self._attach(question, username, None))
        else:
            joined = await self._recognise_session(question, username, name)
        sampling = question.request.sampling
        if sampling.temperature is None:
            sampling = dataclasses.replace(sampling, temperature=self._temperature)
        request = dataclasses.replace(
            question.request,
            model=model,
            messages=_instruct(question.instructions, joined.messages),
            sampling=sampling,
            context=CallContext(request_id, username, joined.session_id, name),
        )
        answers = [Answer() for _ in range(question.choices)]
        names = tuple(attachment.name for attachment in question.attachments)
        turn = Turn(request, tools, question.rag_collection, names)
        return OpenTurn(
            turn, agent, joined.session_id, answers, joined.recorder, joined.dropped_messages, joined.earlier
        )

    def _choose_agent(self, question: Question) -> tuple[str, str]:
        """The agent and the model without its agent's name: `react/qwen` means the model `qwen` and the agent react."""
        prefix, slash, rest = question.request.model.partition("/")
        if slash and prefix in AGENT_NAMES:
            return question.agent or prefix, rest
        name = question.agent or self._default_agent
        return name, question.request.model or self._agent_models.get(name, "")

    async def _offer_tools(self, question: Question, agent: str, username: str) -> tuple[ToolDefinition, ...]:
        """The tools that the agent may use: those that are asked for, or all that are on.

        Raises:
            BadRequest: one that does not exist, or is off.
        """
        wanted = question.available_tools
        if agent == "chat" and not wanted:
            return ()
        try:
            known = await self._tool_client.list_started_tools(username)
        except Unavailable:
            return ()  # an agent answers without tools, and says so
        usable = {
            tool.name: ToolDefinition(tool.name, tool.description, tool.parameters)
            for tool in known
            if tool.enabled or tool.starting
        }
        for name in wanted or ():
            if name not in usable:
                reason = next((f"is off: {tool.reason}" for tool in known if tool.name == name), "does not exist.")
                names = ", ".join(usable) or "none"
                raise BadRequest(f"The tool {name!r} {reason} Available: {names}.", param="available_tools")
        return tuple(usable.values()) if wanted is None else tuple(usable[name] for name in dict.fromkeys(wanted))

    async def _continue_session(self, question: Question, session_id: str, username: str, agent: str) -> "_Joined":
        await self._sessions.open(username, session_id)
        stored = await self._sessions.history(session_id, last=self._history, spans=question.spans)
        spans: Spans = question.spans or (((1, stored[-1].seq),) if stored else ())
        dropped = length(spans) - len(stored)
        own = await self._attach(question, username, session_id)
        earlier = tuple(message.to_message() for message in stored)
        messages = with_run_notes(_join(earlier, own, replace_system=question.spans is None), stored)
        if not question.store:
            return _Joined(None, None, messages, dropped)
        trace = _trace(session_id, agent)
        recorder = Recorder(self._sessions, username, session_id, own, agent=agent, runs=self._runs, trace=trace)
        return _Joined(session_id, recorder, messages, dropped, spans)

    async def _recognise_session(self, question: Question, username: str, agent: str) -> "_Joined":
        """The session of a client that sends its whole history: its name or what it has seen tells where it goes on."""
        seen = question.request.messages
        known = chat = None
        answered = max((index for index, message in enumerate(seen, 1) if message.role == "assistant"), default=0)
        if question.chat_id:
            chat = prefixes.chat_digest(question.chat_id)
            known = await self._sessions.find_by_prefix(username, chat)
        if answered and not known:
            known = await self._sessions.find_by_prefix(username, prefixes.digest(seen[:answered]))
        session_id = known or new_session_id()
        own = await self._attach(question, username, session_id, known_messages=answered if known else 0)
        added = own[answered:] if known else own
        stored = await self._sessions.history(known, last=min(len(seen), MAX_NOTED_MESSAGES)) if known else ()
        recorder = Recorder(
            self._sessions,
            username,
            session_id,
            added,
            seen=seen,
            chat=chat,
            new=known is None,
            agent=agent,
            runs=self._runs,
            trace=_trace(session_id, agent),
        )
        spans = ((1, stored[-1].seq),) if stored else ()
        return _Joined(session_id, recorder, with_run_notes(own, stored), earlier=spans)

    async def _attach(
        self, question: Question, username: str, session_id: str | None, *, known_messages: int = 0
    ) -> tuple[Message, ...]:
        messages = question.request.messages
        if not question.attachments:
            return messages
        folder = None
        if question.store and session_id:
            await self._scratch_quota.check(username)
            folder = await self._sessions.scratch(session_id)
        return await self._attachments.attach(messages, question.attachments, folder, known_messages=known_messages)


@dataclass(frozen=True, slots=True)
class _Joined:
    """The conversation that a turn belongs to, and what the model is to read of it."""

    session_id: str | None
    recorder: Recorder | None
    messages: tuple[Message, ...]
    dropped_messages: int = 0  # stored messages that are left out
    earlier: Spans = ()


def _instruct(instructions: str | None, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return (Message("system", instructions), *messages) if instructions else messages


def _trace(session_id: str, agent: str) -> Trace | None:
    return None if agent == "chat" else Trace(new_run_id(), session_id, agent)


def _join(earlier: tuple[Message, ...], own: tuple[Message, ...], *, replace_system: bool) -> tuple[Message, ...]:
    """Stored messages before new ones, and system messages first: those of the request, if it may replace stored ones.

    A stored window may begin in the middle of a turn: results whose calls are left out are left out, too.
    """
    known = {call.id for message in earlier for call in message.tool_calls}
    earlier = tuple(message for message in earlier if message.role != "tool" or message.tool_call_id in known)
    system = tuple(message for message in own if message.role == "system")
    if not system or not replace_system:
        system = (*(message for message in earlier if message.role == "system"), *system)
    return (*system, *(message for message in (*earlier, *own) if message.role != "system"))
