"""Host pools of HiCache: where their pages lie, and which prefixes they can restore."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sglang.srt.mem_cache.hicache_storage import PoolHitPolicy, PoolName, PoolTransfer

from ..mover import Piece
from ..namespace import EngineKeys, namespace_digest

if TYPE_CHECKING:
    import torch
    from sglang.srt.mem_cache.pool_host import HostKVCache


class Pool:
    """A host pool: its pages' bytes, its number among the groups of objects, and the fields of its namespace."""

    def __init__(self, pool: HostKVCache, group: int, is_sharded: bool, fields: Mapping[str, str]) -> None:
        self.pool = pool
        self.keys = EngineKeys(namespace_digest(fields))
        self.group = group
        self.is_sharded = is_sharded
        self.page_size = page_size_of(pool)

    def payloads(self, indices: torch.Tensor, count: int) -> list[list[Piece]] | None:
        """Where pages lie: their pieces in the order of their bytes; None where the pool does not say."""
        return payloads_of(self.pool, indices, count)


def page_size_of(pool: HostKVCache) -> int:
    """Tokens of a pool's page."""
    return int(getattr(pool, "page_size", 1) or 1)


def payloads_of(pool: HostKVCache, indices: torch.Tensor, count: int) -> list[list[Piece]] | None:
    """``Pool.payloads`` of a host pool."""
    pointers, sizes = pool.get_page_buffer_meta(indices)
    if count == 0 or len(pointers) % count:
        return None
    each = len(pointers) // count
    pieces = [(int(at), int(size)) for at, size in zip(pointers, sizes, strict=True)]
    return [pieces[page * each : (page + 1) * each] for page in range(count)]


def group_of(name: str) -> int:
    """A pool's number among groups: 0 is KV, the others follow from their names, equal in every process and version."""
    if name == PoolName.KV:
        return 0
    return 1 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % 4000


def restorable_by(transfer: PoolTransfer, present: Sequence[bool], pages: int) -> set[int]:
    """Prefix lengths that a pool with these pages can restore."""
    if transfer.hit_policy == PoolHitPolicy.ALL_PAGES:
        leading = next((index for index, there in enumerate(present) if not there), pages)
        return set(range(1, leading + 1))
    if transfer.hit_policy == PoolHitPolicy.TRAILING_PAGES:
        window = max(1, len(transfer.keys or ()) or 1)
        return {length for length in range(1, pages + 1) if all(present[max(0, length - window) : length])}
    block = max(1, transfer.block_pages)
    whole = 0
    while (whole + 1) * block <= pages and present[(whole + 1) * block - 1]:
        whole += 1
    return set(range(1, whole * block + 1))


def is_chain(transfer: PoolTransfer) -> bool:
    """Whether a pool's pages are of use from the first on only."""
    return transfer.hit_policy == PoolHitPolicy.ALL_PAGES
