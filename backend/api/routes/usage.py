"""What was used: one's own, and for admins everybody's; and what admins allow single users."""

import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from backend.api.context import AppContext
from backend.api.deps import Caller, Context, require_admin
from backend.core.errors import Unprocessable
from backend.core.storage.usage import Group, Subject, read_usage
from backend.core.storage.users import User
from backend.models.usage import Limits, OwnUsage, UsageGroup, UsageReport, UsageSums, UserLimits

MAX_DAYS = 366
DEFAULT_DAYS = 30

router = APIRouter(tags=["usage"])

EPOCH = datetime.date(2000, 1, 1)
FirstDay = Annotated[datetime.date | None, Query(alias="from", ge=EPOCH, description="2026-01-31, in UTC")]
LastDay = Annotated[datetime.date | None, Query(alias="to", ge=EPOCH, description="included; today if left out")]
Groups = Annotated[list[Group] | None, Query(description="may be repeated")]


@router.get("/api/usage", response_model_exclude_none=True)
async def show_own_usage(
    caller: Caller,
    context: Context,
    first_day: FirstDay = None,
    last_day: LastDay = None,
    group: Groups = None,
) -> OwnUsage:
    """Your requests and tokens, by day unless `group` says otherwise, and the limits that hold for you."""
    report = await _report(context, first_day, last_day, group or ["day"], caller.username)
    return OwnUsage(
        **report.model_dump(),
        limits=Limits.of(context.limits.allowance(caller.allowance)),
        tokens_today=await context.usage.spent_today(Subject("user", caller.username)),
    )


@router.get("/api/admin/usage", response_model_exclude_none=True, dependencies=[Depends(require_admin)])
async def show_usage(
    context: Context,
    first_day: FirstDay = None,
    last_day: LastDay = None,
    group: Groups = None,
    user: Annotated[str | None, Query(max_length=64)] = None,
) -> UsageReport:
    """Everybody's requests and tokens, or one user's; by user unless `group` says otherwise."""
    username = None if user is None else (await context.users.get(user)).username
    return await _report(context, first_day, last_day, group or ["user"], username)


@router.get("/api/admin/users/{username}/limits", dependencies=[Depends(require_admin)])
async def show_limits(username: str, context: Context) -> UserLimits:
    return await _user_limits(context, await context.users.get(username))


@router.put("/api/admin/users/{username}/limits", dependencies=[Depends(require_admin)])
async def set_limits(username: str, limits: Limits, context: Context) -> UserLimits:
    """Replace what is set for a user; what is left out is as the settings say. It holds from the next request on."""
    await context.allowances.set(username, limits.to_allowance())
    return await _user_limits(context, await context.users.get(username))


async def _user_limits(context: AppContext, user: User) -> UserLimits:
    own = await context.allowances.get(user.username)
    effective = context.limits.allowance(own)
    return UserLimits(username=user.username, limits=Limits.of(own), effective=Limits.of(effective))


async def _report(
    context: AppContext,
    first_day: datetime.date | None,
    last_day: datetime.date | None,
    group: list[Group],
    username: str | None,
) -> UsageReport:
    last_day = last_day or datetime.datetime.now(datetime.UTC).date()
    first_day = first_day or last_day - datetime.timedelta(days=DEFAULT_DAYS - 1)
    if not 0 <= (last_day - first_day).days < MAX_DAYS:
        raise Unprocessable(f"`from` is the first day and `to` the last, at most {MAX_DAYS} days in all.", param="from")
    group = list(dict.fromkeys(group))
    await context.usage.flush()
    days = {"first_day": first_day.isoformat(), "last_day": last_day.isoformat()}
    rows = await read_usage(context.database, **days, group=group, username=username)
    (total,) = await read_usage(context.database, **days, group=(), username=username)
    return UsageReport(
        **days, group=group, total=UsageSums.of(total.counts), rows=[UsageGroup.of_row(row) for row in rows]
    )
