"""The two kinds of signed tokens (JWT), and their claims.

    access   sub (user), ver (the user's token version), iat, exp, jti           a person's sign-in
    service  sub (user), sid (session), aud "tools", iat, exp, jti               one tool call on somebody's behalf

`type` tells them apart, so that neither passes for the other. The algorithm is the configured one, whatever a token's
header says, and every claim is checked for its type: a claim that this module would not have written makes the token
malformed. A token does not carry a role: that is the database's to say at the moment of the call.
"""

import re
import secrets
import time
from typing import Annotated, Literal

from jose import JOSEError, jwk, jws
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from backend.core.errors import Unauthorized

MAX_TOKEN_CHARS = 2048
YEAR_10000 = 253_402_300_800

_SHAPE = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

UnixSeconds = Annotated[int, Field(ge=0, lt=YEAR_10000)]


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    sub: str
    iat: UnixSeconds
    exp: UnixSeconds
    jti: str


class AccessClaims(_Claims):
    type: Literal["access"]
    ver: int


class ServiceClaims(_Claims):
    type: Literal["service"]
    aud: Literal["tools"]
    sid: str


_ANY_CLAIMS: TypeAdapter[AccessClaims | ServiceClaims] = TypeAdapter(
    Annotated[AccessClaims | ServiceClaims, Field(discriminator="type")]
)


class TokenSigner:
    """Signs tokens with one secret and reads what it signed."""

    def __init__(self, secret: str, algorithm: str, *, access_lifetime_s: float) -> None:
        # A ready key: jose would parse a secret in text form that happens to be JSON, and verify with something else.
        self._key = jwk.construct(secret.encode(), algorithm)
        self._algorithm = algorithm
        self._access_lifetime_s = access_lifetime_s

    def sign_access(self, username: str, version: int) -> str:
        now = int(time.time())
        end = _end(now, self._access_lifetime_s)
        return self._sign(AccessClaims(type="access", sub=username, ver=version, iat=now, exp=end, jti=_new_id()))

    def sign_service(self, username: str, session_id: str, *, lifetime_s: float) -> str:
        now = int(time.time())
        end = _end(now, lifetime_s)
        return self._sign(
            ServiceClaims(type="service", aud="tools", sub=username, sid=session_id, iat=now, exp=end, jti=_new_id())
        )

    def read(self, token: str) -> AccessClaims | ServiceClaims:
        """Check a token. A sign-in that lives longer than is allowed now has ended: the setting was lowered.

        Raises:
            Unauthorized
        """
        if len(token) > MAX_TOKEN_CHARS or not _SHAPE.fullmatch(token):
            raise malformed()
        try:
            claims = _ANY_CLAIMS.validate_json(jws.verify(token, self._key, [self._algorithm]))
        except (JOSEError, ValidationError, RecursionError):  # the last: a header of a thousand brackets
            raise malformed() from None
        too_long = isinstance(claims, AccessClaims) and claims.exp > _end(claims.iat, self._access_lifetime_s)
        if too_long or claims.exp <= time.time():
            raise Unauthorized("The token has expired. Sign in again: POST /api/auth/login.", code="token_expired")
        return claims

    def _sign(self, claims: AccessClaims | ServiceClaims) -> str:
        token: str = jws.sign(claims.model_dump(), self._key, algorithm=self._algorithm)
        return token


def malformed() -> Unauthorized:
    """One answer for every token that was not signed here, so that a forger learns nothing from it."""
    return Unauthorized(
        "The token or API key is not one of this server. Send `Authorization: Bearer` with a token from "
        "POST /api/auth/login or with an API key."
    )


def _end(start: int, lifetime_s: float) -> int:
    return min(start + max(1, round(lifetime_s)), YEAR_10000 - 1)


def _new_id() -> str:
    return secrets.token_urlsafe(12)
