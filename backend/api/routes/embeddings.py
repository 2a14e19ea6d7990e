"""`POST /v1/embeddings`: texts as vectors, in OpenAI's shape."""

import base64
import sys
from array import array
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from backend.api.bodies import parse_object, read_json_object
from backend.api.deps import authenticate_request, get_context, signed_in
from backend.api.disconnects import stop_on_disconnect
from backend.api.errors import JSONBytes
from backend.api.model_route import ModelRoute
from backend.core.errors import BadRequest
from backend.core.events import Usage
from backend.models.answers import EmbeddingList
from backend.models.embeddings import MAX_TEXT_CHARS, MAX_TEXTS, EmbeddingsRequest
from backend.utils.clean_text import clean_text

router = APIRouter(tags=["embeddings"], route_class=ModelRoute)

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": EmbeddingsRequest.model_json_schema()}},
    }
}


@router.post(
    "/v1/embeddings",
    openapi_extra=REQUEST_BODY,
    responses={200: {"model": EmbeddingList}},
    dependencies=[Depends(signed_in)],
)
async def create_embeddings(request: Request) -> Response:
    """Turn a text or several into vectors. `truncated` lists the texts that were longer than the model reads."""
    caller = await authenticate_request(request)
    context = await get_context(request)
    wire = parse_object(EmbeddingsRequest, await read_json_object(request))
    texts = _texts(wire.input)
    async with stop_on_disconnect(request.receive):
        embedded = await context.embeddings.embed(
            caller.username, texts, model=wire.model or "", dimensions=wire.dimensions
        )
    context.usage.count(caller.username, embedded.model, "embeddings", Usage(embedded.tokens))
    write = _base64 if wire.encoding_format == "base64" else _floats
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(embedded.vectors)
        ],
        "model": embedded.model,
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
    }
    return JSONBytes(body | ({"truncated": list(embedded.cut)} if embedded.cut else {}))


def _texts(given: Any) -> list[str]:
    """Raises: BadRequest"""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise BadRequest("The input is a text, or a list of texts.", param="input")
    if all(isinstance(text, int | list) for text in texts):
        raise BadRequest(
            "The input is tokens, which mean other words to another model: send text. In LangChain's OpenAIEmbeddings, "
            "set check_embedding_ctx_length=False.",
            param="input",
        )
    if not all(isinstance(text, str) and text for text in texts):
        raise BadRequest("Each input is a text, and none is empty.", param="input")
    if len(texts) > MAX_TEXTS or any(len(text) > MAX_TEXT_CHARS for text in texts):
        raise BadRequest(
            f"A request has at most {MAX_TEXTS} texts of at most {MAX_TEXT_CHARS} characters.", param="input"
        )
    return [clean_text(text) for text in texts]


def _floats(vector: "array[float]") -> list[float]:
    return vector.tolist()


def _base64(vector: "array[float]") -> str:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
