"""What the routes about limits and usage take and give."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from backend.core.storage.allowances import Allowance
from backend.core.storage.usage import MAX_ROWS, Group, UsageCounts, UsageRow

MAX_BOUND = 2**31 - 1
Bound = Annotated[int | None, Field(ge=0, le=MAX_BOUND)]


class Limits(BaseModel):
    """Bounds of a user or of an API key. 0: none. `null`: what the settings say; for a key, none of its own."""

    model_config = ConfigDict(extra="forbid")

    requests_per_minute: Bound = None
    tokens_per_day: Annotated[int | None, Field(ge=0, le=2**53)] = Field(
        None, description="prompts and answers together; a day begins at midnight UTC"
    )
    concurrent_requests: Bound = Field(None, description="being answered at once, streamed or not")

    @classmethod
    def of(cls, allowance: Allowance) -> Self:
        return cls(**{name: getattr(allowance, name) for name in Allowance.__slots__})

    def to_allowance(self) -> Allowance:
        return Allowance(**self.model_dump())


class UserLimits(BaseModel):
    username: str
    limits: Limits = Field(description="what an admin has set")
    effective: Limits = Field(description="what holds, with the server's settings filled in")


class UsageSums(BaseModel):
    requests: int = Field(description="questions that a model began to answer")
    prompt_tokens: int
    cached_tokens: int = Field(description="of the prompt tokens: not computed anew")
    completion_tokens: int
    total_tokens: int
    estimated_tokens: int = Field(description="of the total: guessed, since the call was broken off")

    @classmethod
    def of(cls, counts: UsageCounts) -> Self:
        return cls(
            requests=counts.requests,
            prompt_tokens=counts.prompt_tokens,
            cached_tokens=counts.cached_tokens,
            completion_tokens=counts.completion_tokens,
            total_tokens=counts.total_tokens,
            estimated_tokens=counts.estimated_tokens,
        )


class UsageGroup(UsageSums):
    """One row; it names what it is grouped by. An empty `key` is a sign-in token."""

    day: str | None = None
    user: str | None = None
    model: str | None = None
    agent: str | None = None
    key: str | None = None
    key_name: str | None = None

    @classmethod
    def of_row(cls, row: UsageRow) -> Self:
        return cls(**UsageSums.of(row.counts).model_dump(), **row.groups, key_name=row.key_name)


class UsageReport(BaseModel):
    first_day: str
    last_day: str
    group: list[Group]
    total: UsageSums
    rows: list[UsageGroup] = Field(description=f"at most {MAX_ROWS}")


class OwnUsage(UsageReport):
    limits: Limits = Field(description="what holds for you")
    tokens_today: int
