"""The agent's arena as a host-owned engine sees it: blocks that it reads where they lie, slots that it writes into.

A lease or a reservation is in force while its loan word holds its generation. The agent raises the word before it does
anything else with the slots; so whoever has read asks ``Lease.settle`` afterwards, and believes what was read only then.
That is a look at the word where the processor keeps loads in their order; elsewhere the word could be read before the bytes,
and nothing in Python stands between two loads: there the agent is asked.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from .protocol import ArenaOpened, Loan, Reserved, Saved, Taken

if TYPE_CHECKING:
    from .client import Client

#: Whether a load that stands behind another one happens behind it.
LOADS_KEEP_ORDER: Final = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")

_MADV_POPULATE_WRITE: Final = 23
_PIECE_BYTES: Final = 16 << 20
#: Seconds between two looks at whether the agent has its pages.
_PAGES_SECONDS: Final = 0.5


class MappedArena:
    """The arena and its loan words, mapped into this process. It goes when nothing of it is held any more."""

    def __init__(self, shape: ArenaOpened, fd: int, words_fd: int) -> None:
        self.shape = shape
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if shape.writable else 0)
        self._map = mmap.mmap(fd, shape.length, mmap.MAP_SHARED, protection)
        self._words = mmap.mmap(words_fd, shape.loans * 8, mmap.MAP_SHARED, mmap.PROT_READ)
        self.view = memoryview(self._map)
        self._generations = memoryview(self._words).cast("Q")
        #: Where it begins in this process; 0 when it is mapped for reading, which has no address for ``ctypes``.
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) if shape.writable else 0
        #: Set when each of its pages is in this process's table, or is not going to be brought there.
        self.has_pages = threading.Event()

    def bring_pages_in(self, file: int, is_wanted: Callable[[], bool]) -> None:
        """Enters the pages in this process's table, piece by piece, as long as that is wanted, without holding the GIL.

        Otherwise the first copy into a slot stops at each of its pages: 96 MiB took 43 ms instead of 8. ``file`` is a
        descriptor of the arena, closed at the end. It begins when the agent has all pages: whoever touches one first pays
        for it, and an engine's container has not the room for them.
        """
        try:
            madvise = ctypes.CDLL(None).madvise
            madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
            while self.address and os.fstat(file).st_blocks * 512 < self.shape.length:
                if not is_wanted():
                    return
                time.sleep(_PAGES_SECONDS)
            for offset in range(0, self.shape.length if self.address else 0, _PIECE_BYTES):
                count = min(_PIECE_BYTES, self.shape.length - offset)
                if not is_wanted() or madvise(self.address + offset, count, _MADV_POPULATE_WRITE) != 0:
                    return
        finally:
            os.close(file)
            self.has_pages.set()

    def in_force(self, loan: Loan) -> bool:
        """Whether a loan is in force."""
        return loan.generation != 0 and loan.number < self.shape.loans and (
            self._generations[loan.number] == loan.generation
        )  # fmt: skip

    def slot(self, slot: int, count: int) -> memoryview:
        """The first ``count`` bytes of a slot."""
        start = slot * self.shape.slot_bytes
        return self.view[start : start + count]


class _Loaned:
    def __init__(self, client: Client, arena: MappedArena, loan: Loan, block_bytes: int) -> None:
        self._client = client
        self._arena = arena
        self._block_bytes = block_bytes
        self.loan = loan
        self._released: Future[bool] | None = None

    @property
    def arena(self) -> MappedArena:
        """The arena that its slots lie in."""
        return self._arena

    @property
    def in_force(self) -> bool:
        """Whether the slots are this engine's still, as far as this processor sees it now."""
        return self._arena.in_force(self.loan)

    def release(self) -> Future[bool]:
        """Gives it back, once; the future says whether it was in force until then. False without an agent."""
        if self._released is None:
            self._released = self._client.release(self.loan)
        return self._released


class Lease(_Loaned):
    """Blocks to read where they lie, until they are given back, their time is over, or their request ends.

    >>> with lease:                                                                       # doctest: +SKIP
    ...     for index in range(len(lease)):
    ...         upload(lease[index])
    ...     believed = lease.settle()
    """

    def __init__(self, client: Client, arena: MappedArena, taken: Taken, block_bytes: int) -> None:
        super().__init__(client, arena, taken.loan, block_bytes)
        #: What the agent said: position of the first block, and each block's slot and checksum.
        self.taken = taken

    def __len__(self) -> int:
        return len(self.taken.blocks)

    def __getitem__(self, index: int) -> memoryview:
        """A block's bytes in place: to read only, whatever the mapping allows."""
        return self._arena.slot(self.taken.blocks[index][0], self._block_bytes).toreadonly()

    def read_layers(
        self,
        layers: Sequence[Sequence[tuple[int, int]]],
        read: Callable[[int, int, memoryview], object],
        is_read: Callable[[int], object],
    ) -> int:
        """Reads all blocks in place, layer by layer, and gives the lease back; for how many leading layers it was in force.

        For each layer, in the order of reading, ``layers`` says where its bytes lie in a block: offsets and lengths.
        ``read`` gets the layer, the block's index and such a part; ``is_read`` is called when a layer may be computed with.
        Only of a lease whose blocks the agent compared with their checksums: no part of a block has one of its own.
        """
        for offset, length in (part for parts in layers for part in parts):
            if offset < 0 or length < 0 or offset + length > self._block_bytes:
                raise ValueError(f"a layer at {offset} + {length} lies outside a block of {self._block_bytes} bytes")
        with self:
            for number, parts in enumerate(layers):
                for index in range(len(self)):
                    block = self[index]
                    for offset, length in parts:
                        read(number, index, block[offset : offset + length])
                if LOADS_KEEP_ORDER:
                    if not self.in_force:
                        return number
                    is_read(number)
            if not LOADS_KEEP_ORDER:
                # Only the agent knows whether the bytes were read before the word was raised, and it is asked once.
                if not self.settle():
                    return 0
                for number in range(len(layers)):
                    is_read(number)
        return len(layers)

    def settle(self) -> bool:
        """Behind the last byte that was read: gives the lease back, and says whether what was read may be believed.

        Waits for the agent only on processors that reorder loads, and there as long as a load may take.
        """
        if not LOADS_KEEP_ORDER:
            return self.release().result()
        is_right = self.in_force
        self.release()
        return is_right

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Reservation(_Loaned):
    """Slots to write into, until they are committed or given back, or their time is over."""

    def __init__(self, client: Client, arena: MappedArena, reserved: Reserved, block_bytes: int) -> None:
        super().__init__(client, arena, reserved.loan, block_bytes)
        self.slots = reserved.slots

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, index: int) -> memoryview:
        """A slot's bytes, to write. Who writes after the reservation's end damages another's block."""
        return self._arena.slot(self.slots[index], self._block_bytes)

    def commit(
        self, keys: list[bytes], indices: range | None = None, *, request: int = 0, eviction_class: int = 0
    ) -> Future[Saved]:
        """Makes slots the last blocks of a chain; they are not written into any more, whatever comes of it."""
        slots = self.slots if indices is None else tuple(self.slots[index] for index in indices)
        return self._client.commit(self.loan, slots, keys, request=request, eviction_class=eviction_class)


def map_arena(shape: ArenaOpened, fds: list[int]) -> MappedArena | None:
    """Maps what came with a frame, and closes the descriptors. None: it cannot be mapped."""
    try:
        if len(fds) != 2 or sys.byteorder != "little":
            return None
        return MappedArena(shape, fds[0], fds[1])
    except (OSError, ValueError):
        return None
    finally:
        for fd in fds:
            os.close(fd)
