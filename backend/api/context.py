"""Puts the main API's parts together, in one place, and takes them apart in reverse."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backend.agents.guards import Limits
from backend.agents.means import Means
from backend.agents.registry import make_agents
from backend.api.idempotency import Repeats
from backend.api.metrics import Metrics
from backend.api.vector_stores import VectorStores
from backend.core.attachments import Attachments
from backend.core.contracts import Agent
from backend.core.documents.reading import DocumentReaders
from backend.core.embeddings import Embeddings
from backend.core.forwarded_users import ForwardedUsers
from backend.core.identity import Authenticator, open_accounts, open_authenticator
from backend.core.limits import RateLimits, default_allowance
from backend.core.llm.call_log import PromptLog
from backend.core.llm.catalog import ModelCatalog
from backend.core.llm.client_tools import ClientTools
from backend.core.llm.fitting import Fitted
from backend.core.llm.model_chain import open_model_chain
from backend.core.runs import Runs
from backend.core.storage.allowances import UserAllowances
from backend.core.storage.api_keys import ApiKeys
from backend.core.storage.database import Database
from backend.core.storage.drafts import Drafts
from backend.core.storage.files import Files
from backend.core.storage.responses import Responses
from backend.core.storage.scratch_quota import ScratchQuota
from backend.core.storage.sessions import Sessions
from backend.core.storage.user_data import UserData
from backend.core.storage.users import Users
from backend.core.storage.vector_stores import VectorStoreNotes
from backend.core.tool_client import ToolClient
from backend.core.tools_api import ToolsApi
from backend.core.turns import Turns
from backend.core.usage import UsageLedger, open_usage_ledger
from backend.utils.secret_file import load_or_make_secret
from config import Settings


@dataclass(frozen=True, slots=True)
class AppContext:
    """What routes work with. One for the life of the process, at `app.state.context`."""

    settings: Settings
    metrics: Metrics
    database: Database
    users: Users
    api_keys: ApiKeys
    allowances: UserAllowances
    authenticator: Authenticator
    forwarded_users: ForwardedUsers
    limits: RateLimits
    usage: UsageLedger
    repeats: Repeats
    sessions: Sessions
    files: Files
    user_data: UserData
    runs: Runs
    responses: Responses
    catalog: ModelCatalog
    prompt_log: PromptLog | None
    agents: Mapping[str, Agent]
    turns: Turns
    tool_client: ToolClient
    tools_api: ToolsApi
    embeddings: Embeddings
    vector_stores: VectorStores
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
        usage = await stack.enter_async_context(open_usage_ledger(database))
        models = await stack.enter_async_context(open_model_chain(settings, metrics, usage))
        tool_client = ToolClient(
            models.http,
            settings.tools_url,
            authenticator.make_service_token,
            default_timeout_s=settings.DEFAULT_TOOL_TIMEOUT,
            keepalive_s=settings.SSE_KEEPALIVE_S,
        )
        tools_api = ToolsApi(models.http, settings.tools_url, authenticator.make_service_token)
        means = Means(models.llm, tool_client, models.catalog, _limits(settings), settings.TOOL_MODELS)
        fitted = Fitted(models.llm, models.catalog.context_tokens)
        chat = await asyncio.to_thread(ClientTools, fitted, models.catalog.capabilities)
        agents = await asyncio.to_thread(make_agents, chat, means)
        runs = Runs(settings.DATA_DIR)
        sessions = Sessions(database, settings.DATA_DIR)
        await sessions.start()
        stack.push_async_callback(sessions.close)
        drafts = Drafts(settings.DATA_DIR)
        stack.push_async_callback(drafts.close)
        files = Files(database, drafts, settings.DATA_DIR, quota_bytes=settings.USER_FILES_MB * 2**20)
        await files.start()
        stack.push_async_callback(files.close)
        repeats = Repeats(stall_s=settings.CLIENT_STALL_TIMEOUT_S)
        stack.push_async_callback(repeats.close)
        yield AppContext(
            settings=settings,
            metrics=metrics,
            database=database,
            users=accounts.users,
            api_keys=accounts.api_keys,
            allowances=accounts.allowances,
            authenticator=authenticator,
            forwarded_users=ForwardedUsers(database, accounts),
            limits=RateLimits(usage, default_allowance(settings)),
            usage=usage,
            repeats=repeats,
            sessions=sessions,
            files=files,
            user_data=UserData(sessions, files, settings.DATA_DIR),
            runs=runs,
            responses=Responses(database),
            catalog=models.catalog,
            prompt_log=models.prompt_log,
            agents=agents,
            turns=Turns(
                sessions,
                models.catalog,
                agents,
                tool_client,
                runs,
                Attachments(drafts, DocumentReaders()),
                ScratchQuota(database, settings.DATA_DIR, quota_bytes=settings.USER_SCRATCH_MB * 2**20),
                default_agent=settings.DEFAULT_AGENT,
                agent_models=dict(settings.AGENT_MODELS.items()),
                history=settings.MAX_CONVERSATION_HISTORY,
                temperature=settings.DEFAULT_TEMPERATURE,
            ),
            tool_client=tool_client,
            tools_api=tools_api,
            embeddings=Embeddings(tools_api, models.catalog, settings.RAG_EMBEDDING_MODEL),
            vector_stores=VectorStores(tools_api, files, VectorStoreNotes(database)),
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
