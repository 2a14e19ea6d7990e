"""Every setting of both servers, in one typed class.

A setting is read from the environment, then from a line in `.env`, then from the default below. Only entry points
read settings (`load_settings`); everything else receives the `Settings` object as an argument.
"""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

AgentType = Literal["chat", "react", "plan_execute", "auto"]
BackendKind = Literal["ollama", "llamacpp"]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int, Field(ge=0)]  # 0: none

PLACEHOLDER_SECRETS = frozenset({"your-secret-key-here", "changeme", "change-me", "secret"})
PLACEHOLDER_KEYS = frozenset({"your-tavily-api-key-here"})


class Settings(BaseSettings):
    """What a person who runs the servers may change. Units are in the names or in the comments."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", case_sensitive=True)

    # --- Where the two servers listen -----------------------------------------------------------------------------
    MAIN_API_HOST: str = "127.0.0.1"  # 0.0.0.0 opens the main API to the network; put TLS in front of it first
    MAIN_API_PORT: Port = 10007
    TOOLS_HOST: str = "127.0.0.1"  # where the tools API listens, and where the main API looks for it
    TOOLS_PORT: Port = 10006
    CORS_ORIGINS: CommaSeparated = ()  # comma-separated browser origins, e.g. https://chat.example.org; * for any

    # --- Where data lives -----------------------------------------------------------------------------------------
    DATA_DIR: Path = Path("data")  # everything the servers write; give two copies two folders
    DATABASE_URL: str = ""  # SQLAlchemy URL, e.g. postgresql://name:password@host/database; empty: DATA_DIR/app.db

    # --- LLM backends ---------------------------------------------------------------------------------------------
    LLM_BACKEND: CommaSeparated = ("auto",)  # ollama, llamacpp, auto, or an order such as llamacpp,ollama
    OLLAMA_BASE_URL: CommaSeparated = ("http://127.0.0.1:11434",)  # several hosts: separate them with commas
    OLLAMA_MODEL: str = "qwen2.5:14b"  # the model of a request that names none, on Ollama
    OLLAMA_NUM_CTX: Annotated[int, Field(ge=256)] = 8192  # context window asked of Ollama, in tokens; costs memory
    OLLAMA_KEEP_ALIVE: str = "5m"  # how long Ollama keeps a model loaded; -1 for ever
    LLAMACPP_BASE_URL: CommaSeparated = ("http://127.0.0.1:8080",)  # several hosts: separate them with commas
    LLAMACPP_API_KEY: str = ""  # if your llama.cpp server was started with --api-key
    LLAMACPP_MODEL: str = ""  # the model of a request that names none, on llama.cpp; empty: the one it has loaded
    LLAMACPP_MODEL_PATH: str = ""  # your own GGUF file for the embedded engine; empty: a small demonstration model
    EMBEDDED_LLM_URL: str = ""  # set by start_servers.sh when it starts the embedded engine
    EMBEDDED_LLM_PORT: Port = 0  # port of the embedded engine; 0 takes a free one
    EMBEDDED_LLM_THREADS: Annotated[int, Field(ge=0)] = 0  # CPU threads of the embedded engine; 0: one per core
    EMBEDDED_LLM_CONTEXT: Annotated[int, Field(ge=256)] = 4096  # tokens of context for each parallel request
    EMBEDDED_LLM_SLOTS: Annotated[int, Field(ge=1, le=64)] = 4  # requests that the embedded engine answers at once
    MODEL_ALIASES: dict[str, str] = {  # names that clients ask for -> models that you have (JSON); "default" is yours
        "gpt-3.5-turbo": "default",
        "gpt-4o-mini": "default",
    }
    BACKEND_MODEL_MAP: dict[BackendKind, dict[str, str]] = {  # what a model is called on one backend (JSON)
        "llamacpp": {"qwen2.5:14b": "default"},
    }
    DEFAULT_TEMPERATURE: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.7
    CONNECT_TIMEOUT_S: Seconds = 2.0  # to reach a backend; then the next one is tried
    FIRST_TOKEN_TIMEOUT_S: Seconds = 120.0  # a cold model may load for a minute; then the next backend is tried
    STREAM_IDLE_TIMEOUT_S: Seconds = 120.0  # the longest silence between two tokens
    BACKEND_RETRY_S: Seconds = 5.0  # how long a failed backend is left alone
    MAX_OPEN_CHATS: Count = 512  # model calls at once over all backends; more are told to come back

    # --- Chat -----------------------------------------------------------------------------------------------------
    DEFAULT_AGENT: AgentType = "chat"  # the agent of a request that names none
    MAX_CONVERSATION_HISTORY: Count = 20  # stored messages that are put before a new one
    SSE_KEEPALIVE_S: Seconds = 15.0  # silence on a stream before a comment line keeps the connection alive
    CLIENT_STALL_TIMEOUT_S: Seconds = 300.0  # how long a client may leave its stream unread
    MAX_BODY_MB: Count = 32  # a JSON body, in MiB
    MAX_UPLOAD_MB: Count = 50  # one multipart request with files, in MiB
    USER_FILES_MB: Count = 1024  # the files that one user keeps with /v1/files, in MiB
    USER_SCRATCH_MB: Count = 4096  # what came with a user's questions and what tools made for them, in MiB

    # --- Agents ---------------------------------------------------------------------------------------------------
    REACT_MAX_ITERATIONS: Count = 10
    REACT_RETRY_ON_ERROR: bool = True
    PLAN_MAX_STEPS: Count = 10
    PLAN_MAX_RETRIES: Annotated[int, Field(ge=0)] = 2
    AGENT_MAX_SECONDS: Seconds = 600.0  # time for one question; in its last fifth an agent only sums up
    AGENT_MAX_TOKENS: Annotated[int, Field(ge=1000)] = 200_000  # of all model calls for one question, prompts included
    AGENT_MODELS: dict[AgentType, str] = {}  # agent -> the model of a request that names none (JSON)
    TOOL_MODELS: dict[str, str] = {}  # tool name -> the model that works for it (JSON); others use the request's

    # --- Tools ----------------------------------------------------------------------------------------------------
    DEFAULT_TOOL_TIMEOUT: Seconds = 120.0  # seconds for one tool call
    PYTHON_EXECUTOR_MODE: Literal["native", "nanocoder"] = "native"
    NANOCODER_TIMEOUT: Seconds = 300.0  # seconds for one nanocoder task
    SANDBOX_MIN_TIER: Annotated[int, Field(ge=1, le=3)] = 2  # weakest isolation that may run code: 1 strongest
    PYTHON_MEMORY_MB: Annotated[int, Field(ge=64)] = 1024  # memory of one session's code, in MiB
    PYTHON_MAX_PROCESSES: Annotated[int, Field(ge=4)] = 32  # processes and threads of one session's code
    PYTHON_DISK_MB: Count = 256  # files of one session, in MiB
    PYTHON_MAX_INTERPRETERS: Count = 16  # sessions whose variables are kept at once; costs memory
    PYTHON_IDLE_S: Seconds = 1800.0  # how long the variables of an idle session are kept; its files stay
    TAVILY_API_KEY: str = ""  # web search; https://tavily.com
    TAVILY_BASE_URL: str = "https://api.tavily.com"
    TAVILY_SEARCH_DEPTH: Literal["basic", "advanced"] = "advanced"
    WEBSEARCH_MAX_RESULTS: Annotated[int, Field(ge=1, le=20)] = 5
    SEARXNG_URL: str = ""  # a SearXNG instance with JSON output, as a second search provider
    WEBSEARCH_KEYLESS: bool = False  # public search engines without a key, as the last provider: queries go to them
    WEBSEARCH_PER_MINUTE: Count = 30  # searches and pages of one user
    RAG_EMBEDDING_MODEL: str = "all-MiniLM-L6-v2"
    RAG_RERANK_MODEL: str = ""  # a BERT cross-encoder that orders what is found: a folder, or a name on the hub
    RAG_CHUNK_SIZE: Annotated[int, Field(ge=16)] = 512  # tokens of the embedding model, capped by its window
    RAG_INDEX_TYPE: Literal["Flat", "HNSW", "IVF"] = "Flat"
    PPT_TEMPLATE: str = ""  # your own .pptx whose layouts the presentations use
    PPT_TIMEOUT: Seconds = 300.0  # seconds for one presentation

    # --- Limits of each user: 0 is none. Admins can set others for a user, and makers of an API key for the key -------
    USER_REQUESTS_PER_MINUTE: Limit = 0
    USER_TOKENS_PER_DAY: Limit = 0  # prompts and answers together; a day begins at midnight UTC
    USER_CONCURRENT_REQUESTS: Limit = 0  # being answered at once, streamed or not

    # --- Sign-in --------------------------------------------------------------------------------------------------
    ALLOW_SIGNUP: bool = True  # false: only an admin makes users
    JWT_SECRET_KEY: str = ""  # empty: a random one is made and kept in DATA_DIR; both servers need the same
    JWT_ALGORITHM: Literal["HS256", "HS384", "HS512"] = "HS256"
    JWT_EXPIRATION_HOURS: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 168.0
    BCRYPT_ROUNDS: Annotated[int, Field(ge=4, le=16)] = 12  # cost of a password hash: 12 is about 0.3 s
    LOGIN_MAX_FAILURES: Count = 5  # wrong passwords in a row before a name is locked for its caller
    LOGIN_LOCKOUT_S: Seconds = 300.0
    FORWARDED_USER_SECRET: str = ""  # of a chat UI that signs its users' names (Open WebUI); see its API key

    # --- Logs -----------------------------------------------------------------------------------------------------
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    PROMPT_LOG: bool = True  # off: DATA_DIR/logs/prompts.log is not written
    PROMPT_LOG_MAX_MB: Count = 100  # size at which the prompt log is rotated
    PROMPT_LOG_KEEP: Count = 5  # rotated prompt logs that are kept

    @field_validator("CORS_ORIGINS", "LLM_BACKEND", "OLLAMA_BASE_URL", "LLAMACPP_BASE_URL", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("LLM_BACKEND")
    @classmethod
    def _check_backends(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= {"ollama", "llamacpp", "auto"} or ("auto" in value and len(value) > 1):
            raise ValueError("give ollama, llamacpp, auto, or a comma-separated order of the first two")
        return value

    @field_validator("OLLAMA_BASE_URL", "LLAMACPP_BASE_URL")
    @classmethod
    def _check_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"{url!r} is not an http(s) address")
        return tuple(url.rstrip("/") for url in value)

    @field_validator("JWT_SECRET_KEY", "FORWARDED_USER_SECRET")
    @classmethod
    def _check_secret(cls, value: str) -> str:
        if value and (value.lower() in PLACEHOLDER_SECRETS or len(value.encode()) < 16):
            raise ValueError("use at least 16 random bytes, or leave it empty")
        return value

    @field_validator("DATABASE_URL")
    @classmethod
    def _name_the_driver(cls, value: str) -> str:
        if not value:
            return value
        from sqlalchemy import exc, make_url  # only here: most programs that read settings open no database

        try:
            url = make_url(value)
            if url.drivername in {"postgresql", "postgres"}:
                url = url.set(drivername="postgresql+psycopg")
            url.get_dialect().import_dbapi()
        except ModuleNotFoundError as error:
            install = "bash start_servers.sh --install requirements-postgresql.txt"
            raise ValueError(f"the package {error.name} is not installed; for PostgreSQL: {install}") from None
        except exc.ArgumentError:
            raise ValueError("use a URL such as postgresql://name:password@host/database") from None
        return url.render_as_string(hide_password=False)

    @field_validator("TAVILY_API_KEY")
    @classmethod
    def _drop_placeholder_key(cls, value: str) -> str:
        return "" if value in PLACEHOLDER_KEYS else value

    @property
    def database_url(self) -> str:
        return self.DATABASE_URL or f"sqlite:///{self.DATA_DIR.absolute() / 'app.db'}"

    @property
    def tools_url(self) -> str:
        return f"http://{self.TOOLS_HOST}:{self.TOOLS_PORT}"


def load_settings() -> Settings:
    """Read the settings, or end the process with one line that names the wrong one."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        reason = str(first["msg"]).removeprefix("Value error, ")
    except ValueError as error:  # pydantic-settings: JSON that does not parse
        name, reason = "settings", str(error)
    raise SystemExit(f"config: {name}: {reason}")
