"""Frames as bytes: a header of 16 bytes and a body, one behind the other in a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, get_args

from .blocks import BlockFrame
from .fields import BODY_BYTES_MAX, HEADER, HEADER_BYTES, VERSION, Kind, ProtocolError, Reader
from .loans import LoanFrame
from .session import Changed, SessionFrame

Frame: TypeAlias = SessionFrame | BlockFrame | LoanFrame
_READERS: dict[int, Callable[[int, int, Reader], Frame]] = {frame.KIND: frame.read for frame in get_args(Frame)}


def encode(frame: Frame) -> bytes:
    """A frame's bytes, header and body."""
    body = frame.body()
    if len(body) > BODY_BYTES_MAX:
        raise ProtocolError(f"a body of {len(body)} bytes, more than {BODY_BYTES_MAX}")
    flags = 1 if isinstance(frame, Changed) and frame.has_gap else 0
    return HEADER.pack(len(body), frame.KIND, flags, VERSION, frame.ticket) + body


def body_bytes(header: bytes | memoryview) -> int:
    """Bytes of the body behind a header of 16 bytes."""
    length, kind, _, version, _ = HEADER.unpack(header)
    if version != VERSION:
        raise ProtocolError(f"version {version} is not spoken here")
    if kind not in _READERS:
        raise ProtocolError(f"no frame has the type {kind:#x}")
    if length > BODY_BYTES_MAX:
        raise ProtocolError(f"a body of {length} bytes, more than {BODY_BYTES_MAX}")
    return int(length)


def decode(header: bytes, body: bytes) -> Frame:
    """A frame of its header and its body."""
    if body_bytes(header) != len(body):
        raise ProtocolError("a body of another length than its header says")
    _, kind, flags, _, ticket = HEADER.unpack(header)
    if flags & ~1 or (flags and kind != Kind.CHANGED):
        raise ProtocolError("flags must be zero")
    reader = Reader(body)
    try:
        frame = _READERS[kind](ticket, flags, reader)
    except ProtocolError:
        raise
    except ValueError as error:
        raise ProtocolError(str(error)) from None
    reader.end()
    return frame


class Splitter:
    """Cuts what a stream brings into frames."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that became whole."""
        waiting = self._waiting
        waiting += data
        frames: list[Frame] = []
        at = 0
        while len(waiting) - at >= HEADER_BYTES:
            header = bytes(waiting[at : at + HEADER_BYTES])
            end = at + HEADER_BYTES + body_bytes(header)
            if end > len(waiting):
                break
            frames.append(decode(header, bytes(waiting[at + HEADER_BYTES : end])))
            at = end
        del waiting[:at]
        return frames
