"""Puts the tools API's parts together, in one place, and takes them apart in reverse."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backend.api.tool_metrics import ToolMetrics
from backend.core.identity import Authenticator, open_accounts, open_authenticator
from backend.core.limits import RateLimits, default_allowance
from backend.core.llm.base import ModelStream
from backend.core.llm.model_chain import open_model_chain
from backend.core.storage.database import Database
from backend.core.storage.drafts import Drafts
from backend.core.storage.scratch_quota import ScratchQuota
from backend.core.storage.sessions import Sessions
from backend.core.tool_runs import ToolRuns
from backend.core.toolbox import Toolbox
from backend.core.usage import open_usage_ledger
from backend.utils.secret_file import load_or_make_secret
from config import Settings


@dataclass(frozen=True, slots=True)
class ToolsContext:
    """What routes work with. One for the life of the process, at `app.state.context`."""

    settings: Settings
    metrics: ToolMetrics
    authenticator: Authenticator
    sessions: Sessions
    scratch_quota: ScratchQuota
    drafts: Drafts
    llm: ModelStream
    toolbox: Toolbox
    runs: ToolRuns
    limits: RateLimits  # of users' own calls; what the main API calls for has been let in there
    started_at: float  # time.monotonic() seconds


@asynccontextmanager
async def open_tools_context(settings: Settings, metrics: ToolMetrics, toolbox: Toolbox) -> AsyncIterator[ToolsContext]:
    async with AsyncExitStack() as stack:
        secret = await asyncio.to_thread(load_or_make_secret, settings.DATA_DIR, settings.JWT_SECRET_KEY)
        database = await asyncio.to_thread(Database, settings.database_url)
        await database.open()
        stack.push_async_callback(database.close)
        accounts = await stack.enter_async_context(open_accounts(settings, database))
        authenticator = await stack.enter_async_context(open_authenticator(settings, database, accounts, secret))
        sessions = Sessions(database, settings.DATA_DIR)
        stack.push_async_callback(sessions.close)
        usage = await stack.enter_async_context(open_usage_ledger(database))
        drafts = Drafts(settings.DATA_DIR)
        stack.push_async_callback(drafts.close)
        models = await stack.enter_async_context(open_model_chain(settings, metrics, usage))
        toolbox.start()
        stack.push_async_callback(toolbox.close)
        runs = ToolRuns(default_timeout_s=settings.DEFAULT_TOOL_TIMEOUT, observer=metrics)
        stack.push_async_callback(runs.close)
        yield ToolsContext(
            settings=settings,
            metrics=metrics,
            authenticator=authenticator,
            sessions=sessions,
            scratch_quota=ScratchQuota(database, settings.DATA_DIR, quota_bytes=settings.USER_SCRATCH_MB * 2**20),
            drafts=drafts,
            llm=models.llm,
            toolbox=toolbox,
            runs=runs,
            limits=RateLimits(usage, default_allowance(settings)),
            started_at=time.monotonic(),
        )
