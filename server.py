"""The main API: chat, sign-in, sessions. Run it with `python server.py`."""

from backend.api.app import create_app
from backend.api.serving import serve
from config import load_settings


def main() -> None:
    settings = load_settings()
    serve(
        create_app(settings),
        host=settings.MAIN_API_HOST,
        port=settings.MAIN_API_PORT,
        port_setting="MAIN_API_PORT",
        log_level=settings.LOG_LEVEL,
        data_dir=settings.DATA_DIR,
    )


if __name__ == "__main__":
    main()
