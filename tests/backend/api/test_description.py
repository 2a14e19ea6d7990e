"""`/openapi.json` of both APIs: what it says is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from backend.api.app import create_app
from backend.api.tools_app import create_tools_app
from config import Settings


@pytest.fixture(params=[create_app, create_tools_app])
def description(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    app = request.param(Settings(DATA_DIR=tmp_path))
    assert app.openapi() == app.openapi()  # asked for again it is the same
    described: dict[str, Any] = app.openapi()
    return described


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(description))):
        place: Any = description
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]


def test_every_route_describes_errors_as_they_are_sent(description: dict[str, Any]) -> None:
    for path in description["paths"].values():
        for operation in path.values():
            assert {"4XX", "5XX"} <= operation["responses"].keys()
            assert "422" not in operation["responses"]
    content = description["components"]["responses"]["Error"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/Error"}
    assert "HTTPValidationError" not in description["components"]["schemas"]


def test_every_route_that_answers_in_json_says_in_which_shape(description: dict[str, Any]) -> None:
    always_an_error = "/v1/responses/{response_id}/cancel"
    untold = {
        path
        for path, operations in description["paths"].items()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if status.startswith("2") and response.get("content", {}).get("application/json", {}).get("schema") == {}
    }
    assert untold <= {always_an_error, "/api/chat/sessions/{session_id}/runs/{run_id}"}
