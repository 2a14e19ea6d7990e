"""What the sign-in and admin routes take and give. Times are Unix seconds."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from backend.core.storage.allowances import KeyOptions
from backend.core.storage.api_keys import ApiKey
from backend.core.storage.users import Role, User
from backend.models.usage import Limits

KeyName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class Credentials(BaseModel):
    username: str = Field(examples=["alice"])
    password: SecretStr


class NewUser(Credentials):
    role: Role = "user"


class PasswordChange(BaseModel):
    current_password: SecretStr
    new_password: SecretStr


class UserChange(BaseModel):
    """Only the fields that are given are changed; a misspelt one is refused, so that nothing is quietly left undone."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    password: SecretStr | None = None
    disabled: bool | None = None


class Token(BaseModel):
    access_token: str
    token_type: str = "bearer"  # noqa: S105 - OAuth2's word, not a secret


class SignedUp(Token):
    username: str
    role: Role


class Me(BaseModel):
    username: str
    role: Role
    created_at: int


class UserInfo(Me):
    disabled: bool

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(username=user.username, role=user.role, created_at=int(user.created_at), disabled=user.disabled)


class UserPage(BaseModel):
    users: list[UserInfo]


class DeletedUser(BaseModel):
    username: str
    deleted: bool = True


class NewKey(BaseModel):
    name: KeyName = Field(examples=["laptop"], description="where you use it, so that you know what you delete")
    limits: Limits = Field(Limits(), description="of this key, besides those of its user")
    forwards_users: bool = Field(
        False, description="for a chat UI that signs people in and forwards who they are; only an admin may make one"
    )

    def to_options(self) -> KeyOptions:
        return KeyOptions(self.limits.to_allowance(), self.forwards_users)


class KeyInfo(BaseModel):
    id: str
    name: str
    hint: str = Field(description="the last characters of the key")
    created_at: int
    last_used_at: int | None = Field(description="to the minute")
    limits: Limits
    forwards_users: bool

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls(
            id=key.id,
            name=key.name,
            hint=key.hint,
            created_at=int(key.created_at),
            last_used_at=None if key.last_used_at is None else int(key.last_used_at),
            limits=Limits.of(key.options.allowance),
            forwards_users=key.options.forwards_users,
        )


class CreatedKey(BaseModel):
    id: str
    name: str
    key: str = Field(description="shown this once; keep it")
    hint: str
    created_at: int

    @classmethod
    def of(cls, key: ApiKey, secret: str) -> Self:
        return cls(id=key.id, name=key.name, key=secret, hint=key.hint, created_at=int(key.created_at))


class KeyList(BaseModel):
    keys: list[KeyInfo]


class DeletedKey(BaseModel):
    id: str
    deleted: bool = True
