"""OpenAI's own client for Python, on embeddings and files; sync and async."""

import io
import math
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import CreateEmbeddingResponse, FileDeleted, FileObject

from tests.e2e.clients.conformance import Client
from tests.e2e.clients.model import OLLAMA_MODEL

CLIENT = Client(
    "openai (Python), embeddings and files",
    version("openai"),
    "texts and lists, floats and base64, `dimensions`; upload, list, pages, content, delete, files in chats",
)
MODEL = "text-embedding-3-small"
TABLE = b"city,people\nParis,2\n"


@pytest.fixture
def client(server: httpx.Client, token: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.base_url}/v1", api_key=token, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def strict(client: OpenAI) -> OpenAI:
    """One that holds every answer to the published types; not for embeddings, whose base64 these do not know."""
    return OpenAI(base_url=client.base_url, api_key=client.api_key, _strict_response_validation=True)


@pytest.fixture
async def async_client(server: httpx.Client, token: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.base_url}/v1", api_key=token, max_retries=0, timeout=60) as client:
        yield client


def test_a_text_and_a_list_of_texts(client: OpenAI, tools_url: str) -> None:
    (one,) = client.embeddings.create(model=MODEL, input="a river").data
    answer = client.embeddings.create(model=MODEL, input=["a bridge", "a river"])
    assert isinstance(answer, CreateEmbeddingResponse)
    assert [entry.index for entry in answer.data] == [0, 1]
    assert answer.data[1].embedding == pytest.approx(one.embedding, abs=1e-4)
    assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-4)
    assert answer.usage.total_tokens >= answer.usage.prompt_tokens > 0
    assert "/" not in answer.model  # a model in a folder: which one is nobody's business


def test_floats_are_the_numbers_of_base64(client: OpenAI, tools_url: str) -> None:
    packed = client.embeddings.create(model=MODEL, input="a river").data[0].embedding  # base64, which the SDK reads
    plain = client.embeddings.create(model=MODEL, input="a river", encoding_format="float").data[0].embedding
    assert packed == pytest.approx(plain)


async def test_fewer_dimensions(async_client: AsyncOpenAI, tools_url: str) -> None:
    answer = await async_client.embeddings.create(model=MODEL, input=["a river"], dimensions=8)
    assert len(answer.data[0].embedding) == 8


def test_what_cannot_be_embedded_is_refused(client: OpenAI, tools_url: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.embeddings.create(model=MODEL, input=[1, 2, 3])
    assert refusal.value.param == "input"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="no-such-model", input="a river")


def test_a_file_comes_back_as_it_was(strict: OpenAI) -> None:
    kept = strict.files.create(file=("Größe.csv", TABLE), purpose="user_data")
    assert isinstance(kept, FileObject)
    assert (kept.filename, kept.bytes, kept.status) == ("Größe.csv", len(TABLE), "processed")
    assert strict.files.retrieve(kept.id) == kept
    assert strict.files.content(kept.id).read() == TABLE
    gone = strict.files.delete(kept.id)
    assert isinstance(gone, FileDeleted)
    assert gone.deleted
    with pytest.raises(openai.NotFoundError):
        strict.files.content(kept.id)


async def test_files_are_listed_page_by_page(async_client: AsyncOpenAI) -> None:
    made = [
        await async_client.files.create(file=(f"{number}.txt", io.BytesIO(b"x")), purpose="user_data")
        for number in range(3)
    ]
    found = [file.id async for file in async_client.files.list(limit=2, order="asc")]
    assert found[-3:] == [file.id for file in made]
    for file in made:
        await async_client.files.delete(file.id)


def test_a_file_is_named_in_a_chat_and_in_a_response(strict: OpenAI) -> None:
    kept = strict.files.create(file=("cities.csv", TABLE), purpose="user_data")
    answer = strict.chat.completions.create(
        model=OLLAMA_MODEL,
        messages=[
            {
                "role": "user",
                "content": [{"type": "file", "file": {"file_id": kept.id}}, {"type": "text", "text": "What is it?"}],
            }
        ],
    )
    assert "people" in (answer.choices[0].message.content or "")  # the model echoes what it was told of the file
    response = strict.responses.create(
        model=OLLAMA_MODEL,
        input=[
            {
                "role": "user",
                "content": [{"type": "input_file", "file_id": kept.id}, {"type": "input_text", "text": "What is it?"}],
            }
        ],
    )
    assert "people" in response.output_text
    strict.files.delete(kept.id)


def test_wrong_files_are_refused_by_name(strict: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        strict.files.create(file=("a.txt", b"a"), purpose="whatever")  # type: ignore[arg-type]
    assert refusal.value.param == "purpose"
    with pytest.raises(openai.NotFoundError):
        strict.files.retrieve("file-none")
