"""Puts the main API's parts together, in one place, and takes them apart in reverse."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backend.agents.guards import Limits
from backend.agents.means import Means
from backend.agents.registry import make_agents
from backend.api.metrics import Metrics
from backend.core.contracts import Agent
from backend.core.identity import Authenticator, open_accounts, open_authenticator
from backend.core.llm.call_log import Logged, PromptLog
from backend.core.llm.catalog import ModelCatalog
from backend.core.llm.chain import make_backends
from backend.core.llm.fallback import Fallback
from backend.core.llm.fitting import Fitted
from backend.core.llm.http import open_http_session
from backend.core.llm.limited import Limited
from backend.core.runs import Runs
from backend.core.storage.api_keys import ApiKeys
from backend.core.storage.database import Database
from backend.core.storage.sessions import Sessions
from backend.core.storage.users import Users
from backend.core.tool_client import ToolClient
from backend.core.turns import Turns
from backend.utils.secret_file import load_or_make_secret
from config import Settings

MAX_CALL_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class AppContext:
    """What routes work with. One for the life of the process, at `app.state.context`."""

    settings: Settings
    metrics: Metrics
    database: Database
    users: Users
    api_keys: ApiKeys
    authenticator: Authenticator
    sessions: Sessions
    runs: Runs
    catalog: ModelCatalog
    prompt_log: PromptLog | None
    agents: Mapping[str, Agent]
    turns: Turns
    tool_client: ToolClient
    started_at: float  # time.monotonic() seconds


@asynccontextmanager
async def open_context(settings: Settings, metrics: Metrics) -> AsyncIterator[AppContext]:
    async with AsyncExitStack() as stack:
        secret = await asyncio.to_thread(load_or_make_secret, settings.DATA_DIR, settings.JWT_SECRET_KEY)
        database = Database(settings.database_url)
        await database.open()
        stack.push_async_callback(database.close)
        accounts = await stack.enter_async_context(open_accounts(settings, database))
        authenticator = await stack.enter_async_context(open_authenticator(settings, database, accounts, secret))
        http = await stack.enter_async_context(open_http_session(max_connections=settings.MAX_OPEN_CHATS))
        catalog = ModelCatalog(
            make_backends(settings, http),
            aliases=settings.MODEL_ALIASES,
            model_map=dict(settings.BACKEND_MODEL_MAP.items()),
            cache_file=settings.DATA_DIR / "models.json",
            retry_s=settings.BACKEND_RETRY_S,
        )
        await catalog.start()
        stack.push_async_callback(catalog.close)
        log = None
        if settings.PROMPT_LOG:
            path = settings.DATA_DIR / "logs" / "prompts.log"
            log = PromptLog(path, max_bytes=settings.PROMPT_LOG_MAX_MB * 2**20, keep=settings.PROMPT_LOG_KEEP)
            stack.push_async_callback(log.close)
        chain = Fallback(catalog, retry_after_s=settings.BACKEND_RETRY_S, observer=metrics)
        limited = Limited(Logged(chain, log, metrics), max_calls=settings.MAX_OPEN_CHATS, wait_s=MAX_CALL_WAIT_S)
        tool_client = ToolClient(
            http,
            settings.tools_url,
            authenticator.make_service_token,
            default_timeout_s=settings.DEFAULT_TOOL_TIMEOUT,
            keepalive_s=settings.SSE_KEEPALIVE_S,
        )
        means = Means(limited, tool_client, catalog, _limits(settings), settings.TOOL_MODELS)
        agents = await asyncio.to_thread(make_agents, Fitted(limited, catalog.context_tokens), means)
        runs = Runs(settings.DATA_DIR)
        sessions = Sessions(database, settings.DATA_DIR)
        await sessions.start()
        stack.push_async_callback(sessions.close)
        yield AppContext(
            settings=settings,
            metrics=metrics,
            database=database,
            users=accounts.users,
            api_keys=accounts.api_keys,
            authenticator=authenticator,
            sessions=sessions,
            runs=runs,
            catalog=catalog,
            prompt_log=log,
            agents=agents,
            turns=Turns(
                sessions,
                catalog,
                agents,
                tool_client,
                runs,
                default_agent=settings.DEFAULT_AGENT,
                agent_models=dict(settings.AGENT_MODELS.items()),
                history=settings.MAX_CONVERSATION_HISTORY,
                temperature=settings.DEFAULT_TEMPERATURE,
            ),
            tool_client=tool_client,
            started_at=time.monotonic(),
        )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_iterations=settings.REACT_MAX_ITERATIONS,
        retry_on_error=settings.REACT_RETRY_ON_ERROR,
        max_seconds=settings.AGENT_MAX_SECONDS,
        max_tokens=settings.AGENT_MAX_TOKENS,
        plan_max_steps=settings.PLAN_MAX_STEPS,
        plan_max_retries=settings.PLAN_MAX_RETRIES,
    )
