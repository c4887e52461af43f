"""Memory that an engine shares with the agent, and slots in it for engines whose own memory cannot be shared."""

from __future__ import annotations

import mmap
import os
import threading
from types import TracebackType

from .protocol import Places


class SharedMemory:
    """A memory file of this process that the agent can map; it cannot shrink.

    ``fd`` goes to ``Client.add_region``; ``view`` is its bytes here.
    """

    def __init__(self, length: int, name: str = "holdfast") -> None:
        if length <= 0:
            raise ValueError(f"memory of {length} bytes")
        self.length = length
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, length)
            _seal(self.fd)
            self._map = mmap.mmap(self.fd, length)
        except BaseException:
            os.close(self.fd)
            raise
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Gives the memory back. Nobody may hold a part of ``view`` any more."""
        if self.fd < 0:
            return
        self.view.release()
        self._map.close()
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> SharedMemory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _seal(fd: int) -> None:
    import fcntl

    add_seals, shrink = 1033, 0x0002  # their numbers, where fcntl does not name them
    fcntl.fcntl(fd, getattr(fcntl, "F_ADD_SEALS", add_seals), getattr(fcntl, "F_SEAL_SHRINK", shrink))


class StagingRegion:
    """Slots of one size in a ``SharedMemory``: the copying way for engines whose memory cannot be shared.

    A slot that a job names must not be released before the job has ended.
    """

    def __init__(self, slot_bytes: int, slots: int, region: int = 0) -> None:
        self.slot_bytes = slot_bytes
        self.region = region
        self.memory = SharedMemory(slot_bytes * slots, "holdfast-staging")
        self._free = list(range(slots - 1, -1, -1))
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    def acquire(self, count: int) -> list[int] | None:
        """That many slots, or None when there are fewer: never waits."""
        with self._lock:
            if count > len(self._free):
                return None
            cut = len(self._free) - count
            taken = self._free[cut:]
            del self._free[cut:]
            return taken

    def release(self, slots: list[int]) -> None:
        """Gives slots back."""
        with self._lock:
            self._free += slots

    def bytes_of(self, slot: int) -> memoryview:
        """A slot's bytes."""
        start = slot * self.slot_bytes
        return self.memory.view[start : start + self.slot_bytes]

    def places(self, slots: list[int]) -> Places:
        """Slots as places of blocks."""
        return Places.rows(self.region, slots, self.slot_bytes)

    def close(self) -> None:
        """Gives the memory back."""
        self.memory.close()
