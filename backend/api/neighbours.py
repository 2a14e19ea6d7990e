"""What chat UIs in front of this server say in headers and prompts: Open WebUI, and LibreChat as it may be configured.

    X-OpenWebUI-Chat-Id          names the conversation. Anybody may send it: it only tells a user's own chats apart
    X-OpenWebUI-Task             a title, tags, what to ask next: no conversation, and nothing for an agent; else empty
    X-OpenWebUI-User-Jwt         whom the UI has signed in, signed with a secret that it shares with us
    X-OpenWebUI-User-Id,         the same, unsigned
        -Email, -Name

Who the user is, is believed of one kind of caller alone: an API key that an admin has made with `forwards_users`. From
anybody else these headers mean nothing. Once FORWARDED_USER_SECRET is set only the signed form is read, so that a key
that leaked is not enough to speak for somebody. A role is never read: see `backend.core.forwarded_users`.
"""

import time
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal
from urllib.parse import unquote

from jose import JOSEError, jwk, jws
from jose.backends.base import Key
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from backend.core.errors import Unauthorized
from backend.core.forwarded_users import ForwardedIdentity

CHAT_ID = "x-openwebui-chat-id"
TASK = "x-openwebui-task"
USER = "x-openwebui-user-"
MAX_TOKEN_CHARS = 8192
CLOCK_SLACK_S = 30
NO_CHAT_IDS = frozenset({"", "new", "null", "undefined"})  # what a template makes of an id that is not there
TEMPORARY = "local:"  # how Open WebUI names a chat that it does not keep itself

TASK_PROMPT = "### Task:"
QUESTION_IN_TASK_PROMPT = "Respond to the user query"  # Open WebUI's frame around a question with documents
TITLE_PROMPTS = (  # LibreChat's, which sends no header
    "Provide a concise, 5-word-or-less title for the conversation",
    "Please generate a concise, 5-word-or-less title for the conversation",
    "Analyze this conversation and provide:\n1. The detected language of the conversation",
)


class _UserClaims(BaseModel):
    model_config = ConfigDict(frozen=True)

    sub: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    iss: Literal["open-webui"]
    exp: Annotated[float, Field(allow_inf_nan=False)]  # not a number would never be over
    email: str | None = None
    name: str | None = None


def is_ui_task(headers: Mapping[str, str], prompt: str) -> bool:
    """Whether a UI asks for itself: for a title, or tags."""
    prompt = prompt.lstrip()
    if headers.get(TASK) or prompt.startswith(TITLE_PROMPTS):
        return True
    is_task = prompt.startswith(TASK_PROMPT)
    return is_task and not prompt.removeprefix(TASK_PROMPT).lstrip().startswith(QUESTION_IN_TASK_PROMPT)


def read_chat_id(headers: Mapping[str, str]) -> str | None:
    """What the UI calls the conversation; None where it does not tell, or has no name for it yet."""
    chat_id = headers.get(CHAT_ID, "")
    return None if chat_id in NO_CHAT_IDS or chat_id.startswith("{{") else chat_id


def is_temporary(headers: Mapping[str, str]) -> bool:
    """Whether the user has asked the UI to keep nothing of this chat."""
    return headers.get(CHAT_ID, "").startswith(TEMPORARY)


def read_forwarded_identity(headers: Mapping[str, str], secret: str) -> ForwardedIdentity | None:
    """Whom a trusted UI calls for; None: for itself.

    Raises:
        Unauthorized: it says whom, but not in a way that can be believed.
    """
    token = headers.get(USER + "jwt")
    if token is not None:
        if not secret:
            raise _not_believed("Set FORWARDED_USER_SECRET to the secret that the chat UI signs with.")
        return _read_token(token, secret)
    name = unquote(headers.get(USER + "email") or headers.get(USER + "name") or "")
    user_id = headers.get(USER + "id") or name
    if not user_id:
        return None
    if secret:
        raise _not_believed("FORWARDED_USER_SECRET is set here: let the chat UI sign with it.")
    return ForwardedIdentity(user_id[:256], name or user_id)


def _read_token(token: str, secret: str) -> ForwardedIdentity:
    try:
        claims = _UserClaims.model_validate_json(jws.verify(token[:MAX_TOKEN_CHARS], _key(secret), ["HS256"]))
    except (JOSEError, ValidationError, RecursionError):
        raise _not_believed("It is not signed with FORWARDED_USER_SECRET, or not by Open WebUI.") from None
    if claims.exp + CLOCK_SLACK_S <= time.time():
        raise _not_believed("It has expired. Are the clocks of the two machines right?")
    return ForwardedIdentity(claims.sub, claims.email or claims.name or claims.sub)


@cache
def _key(secret: str) -> Key:
    # A ready key: jose would parse a secret in text form that happens to be JSON, and verify with something else.
    return jwk.construct(secret.encode(), "HS256")


def _not_believed(reason: str) -> Unauthorized:
    return Unauthorized(f"The forwarded user cannot be believed. {reason}", code="invalid_forwarded_user")
