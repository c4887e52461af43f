"""Chains whose keys are made of the engine's own hashes on the client's thread, when a frame with them is sent.

A key costs a SHA-256. An engine's scheduler that names a thousand blocks in a step should not compute a thousand of them
before its next kernel starts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from .namespace import EngineKeys
from .protocol import KEY_BYTES, KEYS_MAX, ProtocolError, chain_head


class Naming:
    """The blocks of a prompt by the engine's hashes, and their keys as far as anybody needed them.

    One thread extends it; any thread may read what was there when it was told of it.
    """

    __slots__ = ("_joined", "_keys", "_lock", "_tail", "names")

    def __init__(self, keys: EngineKeys, names: Iterable[bytes] = (), *, tail: int = 0) -> None:
        self._keys = keys
        self._tail = tail
        #: The hashes, each with ``tail`` further bytes that are no part of it. Only added to.
        self.names = list(names)
        self._joined = bytearray()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.names)

    def joined(self, count: int) -> bytes:
        """The keys of the first ``count`` blocks, side by side."""
        with self._lock:
            done = len(self._joined) // KEY_BYTES
            if done < count:
                self._joined += self._keys.joined(self.names[done:count], self._tail)
            return bytes(self._joined[: count * KEY_BYTES])

    def chain(self, count: int | None = None, group: int = 0, shard: int = 0, shards: int = 1) -> NamedChain:
        """The chain of the first ``count`` blocks, of all without it."""
        return NamedChain(self, len(self.names) if count is None else count, group, shard, shards)


class NamedChain:
    """A ``Chain`` of a naming: its keys are made when it is encoded."""

    __slots__ = ("count", "group", "naming", "shard", "shards")

    def __init__(self, naming: Naming, count: int, group: int, shard: int, shards: int) -> None:
        if not 0 < count <= KEYS_MAX:
            raise ProtocolError(f"a chain of {count} keys; from 1 to {KEYS_MAX}")
        self.naming = naming
        self.count = count
        self.group = group
        self.shard = shard
        self.shards = shards

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Its keys."""
        joined = self.naming.joined(self.count)
        return tuple(joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES))

    def encode(self) -> bytes:
        """Its bytes."""
        return chain_head(self.count, self.group, self.shard, self.shards) + self.naming.joined(self.count)
