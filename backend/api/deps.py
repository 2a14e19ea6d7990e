"""What routes ask for in their signatures: the parts of the server, and who calls.

    async def route(caller: Caller, context: Context) -> ...      anyone who is signed in
    async def route(admin: AdminCaller) -> ...                    admins

A credential comes as `Authorization: Bearer`, or in `x-api-key`, as several chat UIs send it. Everything here is async:
a plain function would cost a hop to a thread on every request.
"""

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security import OAuth2PasswordBearer
from fastapi.security.base import SecurityBase
from starlette.datastructures import Headers

from backend.api.neighbours import read_forwarded_identity
from backend.core.errors import Forbidden, Unauthorized
from backend.core.identity import Principal

if TYPE_CHECKING:  # the tools API checks its callers too, and loads no agents for that
    from backend.api.context import AppContext

# Makes the Authorize button of /docs ask for name and password.
_password_flow = OAuth2PasswordBearer(
    tokenUrl="/api/auth/login", scheme_name="password", description="Your name and password.", auto_error=False
)


def get_credential(headers: Headers) -> str:
    """The token or key of a request.

    Raises:
        Unauthorized: there is none.
    """
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credential.strip():
        return credential.strip()
    if key := headers.get("x-api-key"):
        return key
    raise Unauthorized(
        "No token or API key was sent. Send `Authorization: Bearer` with a token from POST /api/auth/login or with an "
        "API key.",
        code="missing_credentials",
    )


async def authenticate_request(request: Request) -> Principal:
    """Tell who calls. Asked again for the same request, it is known.

    Raises:
        Unauthorized: nobody that is known here.
        Forbidden: somebody who is shut out, and whom a chat UI has forwarded.
    """
    state = request.scope.setdefault("state", {})
    known: Principal | None = state.get("caller")
    if known is None:
        context: AppContext = request.app.state.context
        known = await context.authenticator.authenticate(get_credential(request.headers))
        if known.forwards_users:
            person = read_forwarded_identity(request.headers, context.settings.FORWARDED_USER_SECRET)
            known = await context.forwarded_users.resolve(known, person) if person else known
        state["caller"] = known
    return known


class _SignedIn(SecurityBase):
    """The check itself, which the API's description shows as a field to paste a token or key into."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(description="A token, or an API key.")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request, _: Annotated[str | None, Depends(_password_flow)]) -> Principal:
        return await authenticate_request(request)


async def get_context(request: Request) -> "AppContext":
    context: AppContext = request.app.state.context
    return context


Context = Annotated["AppContext", Depends(get_context)]
signed_in = _SignedIn()
Caller = Annotated[Principal, Depends(signed_in)]


async def require_admin(caller: Caller) -> Principal:
    if not caller.is_admin:
        raise Forbidden("Only an admin may do this.")
    return caller


AdminCaller = Annotated[Principal, Depends(require_admin)]
