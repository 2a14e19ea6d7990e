"""The secret that signs tokens: the configured one, or one that is made on first start and kept in DATA_DIR.

Both servers may start at the same moment on a fresh machine. Each writes a file of its own and links it to the final
name, which succeeds for one of them only: nobody ever sees half a secret, and all read the same one.
"""

import logging
import os
import secrets
from pathlib import Path
from typing import NoReturn

FILE_NAME = "jwt_secret"
MIN_BYTES = 16

log = logging.getLogger(__name__)


def load_or_make_secret(data_dir: Path, configured: str) -> str:
    """Return the configured secret, else the one kept in `data_dir`, which is made when missing.

    Raises:
        SystemExit: the file is empty, too short, or cannot be made, read or protected. One line says what to do.
    """
    if configured:
        return configured
    path = data_dir / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        _protect(path)
        secret = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        _stop(path, f"cannot be used ({error.strerror if isinstance(error, OSError) else 'it is not text'})")
    if len(secret) < MIN_BYTES:
        _stop(path, f"holds {len(secret)} characters, too few to be the secret that was made here")
    return secret


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first: its secret is everybody's
    finally:
        draft.unlink()


def _protect(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        log.warning(
            "%s could be read by other accounts of this machine; it is closed to them now. "
            "If you do not trust them all, delete it and start again: everybody then signs in anew.",
            path.name,
        )


def _stop(path: Path, problem: str) -> NoReturn:
    raise SystemExit(
        f"secret: {path} {problem}. Put it back from a backup, or delete it and a new one is made (everybody then "
        "signs in anew), or set JWT_SECRET_KEY."
    )
