"""Names that come from outside, made into paths that cannot leave their folder.

A safe name is relative, made of ordinary components: no `..`, no empty ones, no control characters. Unicode look-alikes
of dots and slashes are ordinary characters to the kernel and stay what they are: part of a name.
"""

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

MAX_COMPONENT_BYTES = 255
MAX_NAME_BYTES = 1024
REMOVE_TRIES = 5


class UnsafePath(ValueError):
    """A name that is no path inside its folder."""


def safe_join(root: Path, name: str) -> Path:
    """The path of `name` inside `root`. Says nothing about whether it exists, or is a link: see `open_beneath`.

    Raises:
        UnsafePath
    """
    return root.joinpath(*_components(name))


def open_beneath(root: Path, name: str) -> BinaryIO:
    """Open an ordinary file inside `root` for reading, unbuffered.

    No component may be a symbolic link, and each is opened relative to the folder before it: whoever writes into `root`
    at the same time (the code that a tool runs does) cannot lead the way out.

    Raises:
        UnsafePath
        FileNotFoundError: there is no ordinary file of that name.
    """
    *folders, last = _components(name)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for component in folders:
            deeper = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = deeper
        # Not blocking: to open a pipe would wait for its writer.
        fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise FileNotFoundError(error.errno, "no such file", name) from error
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(name)
    return os.fdopen(fd, "rb", buffering=0)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, also what was made read-only. Nothing there is fine. Follows no link.

    Raises:
        OSError: it cannot be removed, or somebody keeps writing into it.
    """
    for _ in range(REMOVE_TRIES - 1):
        try:
            return _remove_tree(folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # a file came while its folder was being removed
                raise
    return _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except PermissionError:
        folder.chmod(0o700)
        for parent, names, _ in os.walk(folder):
            for path in (Path(parent, name) for name in names):
                if not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(folder)


def _components(name: str) -> list[str]:
    components = name.split("/")
    try:
        sizes = [len(component.encode()) for component in components]
    except UnicodeEncodeError:  # lone surrogates
        raise UnsafePath("not a valid name") from None
    if (
        any(component in {"", ".", ".."} for component in components)
        or max(sizes) > MAX_COMPONENT_BYTES
        or sum(sizes) + len(sizes) > MAX_NAME_BYTES
        or any(ord(character) < 32 or ord(character) == 127 for character in name)
    ):
        raise UnsafePath("not a valid name")
    return components
