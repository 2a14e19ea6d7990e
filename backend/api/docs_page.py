"""The page that shows an API's routes and tries them out (Swagger UI), with all that it loads: it needs no internet."""

from pathlib import Path

import fastapi_swagger
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PAGE = "/docs"
ASSETS = f"{PAGE}/assets"
PARAMETERS = {"persistAuthorization": True, "displayRequestDuration": True, "defaultModelsExpandDepth": -1}


def add_docs_page(app: FastAPI) -> None:
    """Serve the page. Its addresses are relative: it also works below a proxy's prefix."""
    folder = Path(fastapi_swagger.__file__).with_name("resources")  # of that package, the files alone
    app.mount(ASSETS, StaticFiles(directory=folder, check_dir=False), name="docs assets")
    assets = ASSETS.removeprefix("/")
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url=f"{assets}/swagger-ui-bundle.js",
        swagger_css_url=f"{assets}/swagger-ui.css",
        swagger_favicon_url=f"{assets}/favicon-32x32.png",
        swagger_ui_parameters=PARAMETERS,
    )

    @app.get(PAGE, include_in_schema=False)
    async def show_docs() -> HTMLResponse:
        return page
