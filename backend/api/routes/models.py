"""`GET /v1/models`: every model as itself, and once more for each agent that can use it."""

import dataclasses
from typing import Any

from fastapi import APIRouter

from backend.api.deps import Caller, Context
from backend.core.errors import ModelNotFound
from backend.core.llm.base import ModelInfo
from backend.models.answers import ModelList, ModelObject

router = APIRouter(tags=["models"])


@router.get("/v1/models", response_model=ModelList)
@router.get("/v1/models/", include_in_schema=False)  # as some chat UIs ask
async def list_models(caller: Caller, context: Context) -> dict[str, Any]:
    """The models of all backends, also of one that is down at the moment, and the agents as models."""
    return {"object": "list", "data": [_model_object(model) for model in await _all_models(context)]}


@router.get("/v1/models/{model_id:path}", response_model=ModelObject)
async def get_model(model_id: str, caller: Caller, context: Context) -> dict[str, Any]:
    """One model; its id may hold slashes and colons."""
    for model in await _all_models(context):
        if model.id == model_id:
            return _model_object(model)
    raise ModelNotFound(model_id)


async def _all_models(context: Context) -> list[ModelInfo]:
    models = await context.catalog.models()
    chats = [model for model in models if not model.capabilities or "completion" in model.capabilities]
    agents = [agent for agent in context.agents if agent != "chat"]
    return [*models, *(dataclasses.replace(model, id=f"{agent}/{model.id}") for agent in agents for model in chats)]


def _model_object(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "context_length": model.context_tokens,
        "capabilities": sorted(model.capabilities),
    }
