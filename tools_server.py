"""The tools API: what agents and users can have done. Run it with `python tools_server.py`."""

from backend.api.serving import serve
from backend.api.tools_app import create_tools_app
from config import load_settings


def main() -> None:
    settings = load_settings()
    serve(
        create_tools_app(settings),
        host=settings.TOOLS_HOST,
        port=settings.TOOLS_PORT,
        port_setting="TOOLS_PORT",
        log_level=settings.LOG_LEVEL,
        data_dir=settings.DATA_DIR,
    )


if __name__ == "__main__":
    main()
