"""How the pool and an interpreter speak over their socket: a frame is a length and its fields, each with its length.

All lengths are four bytes, big endian. Nothing is evaluated and nothing is built but bytes; a frame that does not add
up is a `BadFrame`. The interpreter's side lives beside code that may have replaced any module's functions: it uses
methods of `bytes` and `int` alone.

    request = token, number of the call, code
    ready   = "", "ready", ""          or  "", "failed", the reason
    reply   = token, exit code, value, error
"""

MAX_FRAME = 1 << 22
HEADER = 4


class BadFrame(ValueError):
    pass


def pack(*fields: bytes) -> bytes:
    body = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return len(body).to_bytes(4, "big") + body


def frame_length(header: bytes) -> int:
    """How many bytes follow this header.

    Raises:
        BadFrame: more than any frame may have.
    """
    length = int.from_bytes(header[:HEADER], "big")
    if length > MAX_FRAME:
        raise BadFrame(f"a frame of {length} bytes")
    return length


def unpack(body: bytes, count: int) -> list[bytes]:
    """The fields of a frame.

    Raises:
        BadFrame: not exactly `count` fields.
    """
    fields: list[bytes] = []
    at = 0
    while at < len(body) and len(fields) < count:
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        fields.append(body[at + 4 : end])
        at = end
    if at != len(body) or len(fields) != count:
        raise BadFrame("a frame that does not add up")
    return fields
