"""What has been used, a row for each day, user, model, agent and API key, and the questions that are asked about it.

Days are UTC. The rows of a deleted user go with the user. An API key's id stays in its rows when the key is deleted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text

from backend.core.storage.database import Database, Row
from backend.core.storage.tables import api_keys, token_usage

Group = Literal["day", "user", "model", "agent", "key"]

MAX_ROWS = 10_000  # of one report

_COLUMNS = {
    "day": token_usage.c.day,
    "user": token_usage.c.username,
    "model": token_usage.c.model,
    "agent": token_usage.c.agent,
    "key": token_usage.c.key_id,
}
# Selected from the users: what a deleted user's last request leaves behind is no row.
_ADD = text(
    "INSERT INTO token_usage (day, username, model, agent, key_id,"
    " requests, prompt_tokens, cached_tokens, completion_tokens, estimated_tokens)"
    " SELECT :day, username, :model, :agent, :key_id,"
    " :requests, :prompt_tokens, :cached_tokens, :completion_tokens, :estimated_tokens"
    " FROM users WHERE username = :username"
    " ON CONFLICT (day, username, model, agent, key_id) DO UPDATE SET"
    " requests = token_usage.requests + excluded.requests,"
    " prompt_tokens = token_usage.prompt_tokens + excluded.prompt_tokens,"
    " cached_tokens = token_usage.cached_tokens + excluded.cached_tokens,"
    " completion_tokens = token_usage.completion_tokens + excluded.completion_tokens,"
    " estimated_tokens = token_usage.estimated_tokens + excluded.estimated_tokens"
)
_TOKENS = func.coalesce(func.sum(token_usage.c.prompt_tokens + token_usage.c.completion_tokens), 0)
_OF_USER = select(_TOKENS).where(
    token_usage.c.day == bindparam("on_day"), token_usage.c.username == bindparam("subject")
)
_OF_KEY = select(_TOKENS).where(token_usage.c.day == bindparam("on_day"), token_usage.c.key_id == bindparam("subject"))


class UsageKey(NamedTuple):
    """What is counted together."""

    day: str  # 2026-01-31, in UTC
    username: str
    model: str
    agent: str
    key_id: str  # empty: a token was used, not a key


@dataclass(slots=True)
class UsageCounts:
    """`estimated_tokens` are those of the prompt and completion tokens that no backend has counted."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    estimated_tokens: int = 0

    def add(self, other: "UsageCounts") -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


COUNTS = tuple(field.name for field in fields(UsageCounts))


class Subject(NamedTuple):
    """Whose tokens of a day are asked for."""

    kind: Literal["user", "key"]
    id: str


@dataclass(frozen=True, slots=True)
class UsageRow:
    groups: dict[Group, str]
    counts: UsageCounts
    key_name: str | None = None  # where it is grouped by key, and the key still exists


def usage_rows(counted: Iterable[tuple[UsageKey, UsageCounts]]) -> list[Row]:
    """What adds these counts to those of before."""
    return [(_ADD, {**key._asdict(), **{name: getattr(counts, name) for name in COUNTS}}) for key, counts in counted]


async def read_totals(database: Database, day: str, subjects: Sequence[Subject]) -> dict[Subject, int]:
    """The tokens of a day, prompts and completions together."""

    def query(connection: Connection) -> dict[Subject, int]:
        return {
            subject: connection.execute(
                _OF_USER if subject.kind == "user" else _OF_KEY, {"on_day": day, "subject": subject.id}
            ).scalar_one()
            for subject in subjects
        }

    return await database.read(query)


async def read_usage(
    database: Database, *, first_day: str, last_day: str, group: Sequence[Group], username: str | None
) -> list[UsageRow]:
    """The sums of the days from the first to the last, grouped, at most `MAX_ROWS` of them.

    Args:
        username: whose; None: everybody's.
    """
    columns = [_COLUMNS[name] for name in group]
    sums = [func.coalesce(func.sum(token_usage.c[name]), 0).label(name) for name in COUNTS]
    query = select(*columns, *sums).where(token_usage.c.day.between(first_day, last_day))
    if username is not None:
        query = query.where(token_usage.c.username == username)
    query = query.group_by(*columns).order_by(*columns).limit(MAX_ROWS)
    names = select(api_keys.c.id, api_keys.c.name)

    def run(connection: Connection) -> list[UsageRow]:
        key_names = {row.id: row.name for row in connection.execute(names)} if "key" in group else {}
        found = []
        for row in connection.execute(query):
            groups = dict(zip(group, row, strict=False))
            counts = UsageCounts(*row[len(group) :])
            found.append(UsageRow(groups, counts, key_names.get(groups.get("key", ""))))
        return found

    return await database.read(run)
