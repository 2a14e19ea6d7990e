"""Ids that no two things share. They are names, not secrets: who may see what they name is checked apart from them."""

import random


def unique_hex(size: int) -> str:
    """`size` random bytes in hex.

    Not from the kernel's generator: that call would hand the interpreter to another thread in the middle of each
    request. Python seeds this one from it, anew in every process.
    """
    return f"{random.getrandbits(size * 8):0{size * 2}x}"
