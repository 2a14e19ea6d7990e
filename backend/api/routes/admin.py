"""Accounts of others, for admins. What these routes cannot do is leave the server without an admin."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from backend.api.deps import Context, require_admin
from backend.models.auth import CreatedKey, DeletedUser, NewKey, NewUser, UserChange, UserInfo, UserPage

router = APIRouter(prefix="/api/admin/users", tags=["admin"], dependencies=[Depends(require_admin)])


@router.get("")
async def list_users(
    context: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 1000, offset: Annotated[int, Query(ge=0)] = 0
) -> UserPage:
    """Accounts by name, a page at a time."""
    return UserPage(users=[UserInfo.of(user) for user in await context.users.list(limit=limit, offset=offset)])


@router.post("", status_code=201)
async def create_user(new: NewUser, context: Context) -> UserInfo:
    """Make an account, also where sign-up is closed."""
    return UserInfo.of(await context.users.create(new.username, new.password.get_secret_value(), new.role))


@router.get("/{username}")
async def show_user(username: str, context: Context) -> UserInfo:
    return UserInfo.of(await context.users.get(username))


@router.patch("/{username}")
async def change_user(username: str, change: UserChange, context: Context) -> UserInfo:
    """Change the fields that are given. A new password, or disabling, ends the user's tokens at once."""
    password = None if change.password is None else change.password.get_secret_value()
    user = await context.users.update(username, role=change.role, password=password, disabled=change.disabled)
    if password is not None:
        await context.authenticator.unlock(user.username)
    return UserInfo.of(user)


@router.post("/{username}/keys", status_code=201)
async def create_key(username: str, new: NewKey, context: Context) -> CreatedKey:
    """Make an API key of an account, such as that of a chat UI; it is shown only in this response."""
    user = await context.users.get(username)
    return CreatedKey.of(*await context.api_keys.create(user.username, new.name, new.to_options()))


@router.delete("/{username}")
async def delete_user(username: str, context: Context) -> DeletedUser:
    """Remove an account with its keys, conversations and files."""
    user = await context.users.delete(username, delete_data=context.user_data.delete)
    await context.authenticator.unlock(user.username)
    return DeletedUser(username=user.username)
