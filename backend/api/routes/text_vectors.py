"""The embedding model of the tools API, for the main API's `/v1/embeddings`."""

import base64

from fastapi import APIRouter

from backend.api.routes.collections import find_documents_tool
from backend.api.tools_deps import AnyCaller, LimitedToolsRoute, Tools
from backend.core.documents.records import shown_model
from backend.models.embeddings import EmbeddedTexts, TextsToEmbed

FEW = 8  # texts: more of them wait behind what others search for

router = APIRouter(prefix="/api/tools/rag", tags=["documents"], route_class=LimitedToolsRoute)


@router.post("/embeddings", include_in_schema=False)
async def embed_texts(wanted: TextsToEmbed, caller: AnyCaller, context: Tools) -> EmbeddedTexts:
    embedder = (await find_documents_tool(context)).embedder
    embedded = await embedder.embed(wanted.texts, lane="query" if len(wanted.texts) <= FEW else "bulk")
    return EmbeddedTexts(
        model=shown_model(embedder.info.name),
        dimension=embedder.info.dimension,
        vectors=base64.b64encode(embedded.vectors.tobytes()).decode(),
        tokens=sum(embedded.tokens),
        cut=[index for index, cut in enumerate(embedded.cut) if cut],
    )
