"""Signing up and in, and one's own account: who am I, my password, my API keys."""

from json import JSONDecodeError

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from backend.api.deps import Caller, Context, get_credential
from backend.core.errors import Forbidden, Unauthorized
from backend.core.identity import Principal
from backend.models.auth import (
    CreatedKey,
    Credentials,
    DeletedKey,
    KeyInfo,
    KeyList,
    Me,
    NewKey,
    NewUser,
    PasswordChange,
    SignedUp,
    Token,
)

FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
LOGIN_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": Credentials.model_json_schema()} for kind in ("application/json", FORM_TYPES[0])},
    }
}

router = APIRouter(prefix="/api/auth", tags=["sign-in"])


@router.post("/signup", status_code=201)
async def sign_up(new: NewUser, request: Request, context: Context) -> SignedUp:
    """Make an account for oneself. Only an admin can make another admin, or any account where sign-up is closed."""
    if new.role == "admin" or not context.settings.ALLOW_SIGNUP:
        caller = await _caller_or_none(request, context)
        if caller is None or not caller.is_admin:
            raise Forbidden(
                "Sign-up is closed here. Ask an admin for an account."
                if not context.settings.ALLOW_SIGNUP
                else "Only an admin can make an admin. Send an admin's token, or sign up as a user."
            )
    user = await context.users.create(new.username, new.password.get_secret_value(), new.role)
    token = context.authenticator.make_token(user)
    return SignedUp(access_token=token, username=user.username, role=user.role)


@router.post("/login", openapi_extra=LOGIN_BODY)
async def log_in(request: Request, context: Context) -> Token:
    """Exchange a name and a password, as JSON or as a form, for a token."""
    given = await _read_credentials(request)
    user = await context.authenticator.sign_in(given.username, given.password.get_secret_value(), _address(request))
    return Token(access_token=context.authenticator.make_token(user))


@router.get("/me")
async def show_me(caller: Caller, context: Context) -> Me:
    user = await context.users.get(caller.username)
    return Me(username=user.username, role=user.role, created_at=int(user.created_at))


@router.post("/password")
async def change_password(change: PasswordChange, caller: Caller, request: Request, context: Context) -> Token:
    """Change one's password. Every token of before ends; a new one is returned. API keys stay."""
    current = change.current_password.get_secret_value()
    try:
        await context.authenticator.sign_in(caller.username, current, _address(request))
    except Unauthorized:  # 401 would tell clients that the token is at fault, and to throw it away
        raise Forbidden("The current password is wrong.", param="current_password", code="wrong_password") from None
    user = await context.users.update(caller.username, password=change.new_password.get_secret_value())
    return Token(access_token=context.authenticator.make_token(user))


@router.post("/keys", status_code=201)
async def create_key(new: NewKey, caller: Caller, context: Context) -> CreatedKey:
    """Make an API key. It does not expire and works wherever a token does; it is shown only in this response."""
    if new.forwards_users and not caller.is_admin:
        raise Forbidden("Only an admin may make a key that forwards users.", param="forwards_users")
    if caller.key_allowance.is_bounded:
        raise Forbidden("A key with limits of its own cannot make keys. Sign in with your password.")
    return CreatedKey.of(*await context.api_keys.create(caller.username, new.name, new.to_options()))


@router.get("/keys")
async def list_keys(caller: Caller, context: Context) -> KeyList:
    return KeyList(keys=[KeyInfo.of(key) for key in await context.api_keys.list(caller.username)])


@router.delete("/keys/{key_id}")
async def delete_key(key_id: str, caller: Caller, context: Context) -> DeletedKey:
    """End an API key, at once."""
    await context.api_keys.delete(caller.username, key_id)
    return DeletedKey(id=key_id)


async def _caller_or_none(request: Request, context: Context) -> Principal | None:
    try:
        return await context.authenticator.authenticate(get_credential(request.headers))
    except Unauthorized:
        return None


async def _read_credentials(request: Request) -> Credentials:
    # FastAPI declares a body as JSON or as a form, not as either.
    try:
        if request.headers.get("content-type", "").startswith(FORM_TYPES):
            async with request.form(max_files=0, max_fields=20) as form:
                return Credentials.model_validate(dict(form))
        return Credentials.model_validate(await request.json())
    except (JSONDecodeError, UnicodeDecodeError):
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": "Not valid JSON"}]) from None
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
