"""What an agent did for an answer: `GET /api/chat/sessions/{session_id}/runs/{run_id}`."""

from fastapi import APIRouter
from starlette.responses import Response

from backend.api.deps import Caller, Context

router = APIRouter(prefix="/api/chat", tags=["sessions"])


@router.get("/sessions/{session_id}/runs/{run_id}")
async def read_run(session_id: str, run_id: str, caller: Caller, context: Context) -> Response:
    """The trace of a run in one of your sessions: every thought, call and whole result, in order."""
    await context.sessions.open(caller.username, session_id)
    return Response(await context.runs.read(session_id, run_id), media_type="application/json")
