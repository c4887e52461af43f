"""SGLang's interface of HiCache's storage, as of 0.5.23, and as much of torch: what ``holdfast_kv.sglang`` imports."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any

from . import is_installed, modules


@dataclass
class HiCacheStorageConfig:
    tp_rank: int
    tp_size: int
    pp_rank: int
    pp_size: int
    attn_cp_rank: int
    attn_cp_size: int
    is_mla_model: bool
    enable_storage_metrics: bool
    is_page_first_layout: bool
    model_name: str | None
    tp_lcm_size: int | None = None
    should_split_heads: bool = False
    dp_rank: int = 0
    extra_config: dict[str, Any] | None = None
    dcp_size: int = 1
    dcp_rank: int = 0
    logical_page_size: int | None = None

    @property
    def is_storage_writer(self) -> bool:
        return not self.is_mla_model or self.tp_rank == 0


@dataclass
class HiCacheStorageExtraInfo:
    prefix_keys: list[str] | None = None
    extra_info: dict[str, Any] | None = None


class PoolName(str, Enum):
    KV = "kv"
    MAMBA = "mamba"
    SWA = "swa"
    INDEXER = "indexer"

    def __str__(self) -> str:
        return self.value


class PoolHitPolicy(str, Enum):
    ALL_PAGES = "all_pages"
    TRAILING_PAGES = "trailing_pages"
    BLOCK_GROUPS = "block_groups"


@dataclass
class PoolTransfer:
    name: PoolName
    host_indices: Any = None
    device_indices: Any = None
    keys: list[str] | None = None
    hit_policy: PoolHitPolicy = PoolHitPolicy.ALL_PAGES
    block_pages: int = 0


@dataclass
class PoolTransferResult:
    kv_hit_pages: int
    extra_pool_hit_pages: dict[str, int]
    restorable_prefix_pages: list[int] | None = None


class HiCacheStorage(ABC):
    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        self.mem_pool_host = mem_pool_host

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: str) -> None:
        self.registered_pools = {**getattr(self, "registered_pools", {}), host_pool_name: host_pool}

    @abstractmethod
    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any: ...

    @abstractmethod
    def batch_get(self, keys: list[str], target_locations: Any = None, target_sizes: Any = None) -> Any: ...

    @abstractmethod
    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool: ...

    @abstractmethod
    def batch_set(
        self, keys: list[str], values: Any = None, target_locations: Any = None, target_sizes: Any = None
    ) -> bool: ...

    @abstractmethod
    def exists(self, key: str) -> bool: ...


class Tensor:
    """A flat tensor on the CPU: indices, or bytes at an address."""

    device = SimpleNamespace(type="cpu")

    def __init__(self, values: list[int], address: int = 0) -> None:
        self.values = values
        self._memory = ctypes.create_string_buffer(bytes(values), len(values)) if values and not address and max(values) < 256 else None
        self._address = address or (ctypes.addressof(self._memory) if self._memory is not None else 0)

    def numel(self) -> int:
        return len(self.values)

    def element_size(self) -> int:
        return 1

    def data_ptr(self) -> int:
        return self._address

    def is_contiguous(self) -> bool:
        return True

    def contiguous(self) -> Tensor:
        return self

    def untyped_storage(self) -> Any:
        return SimpleNamespace(nbytes=self.numel, data_ptr=self.data_ptr)

    def tolist(self) -> list[int]:
        return list(ctypes.string_at(self._address, len(self.values))) if self._address else self.values

    def __getitem__(self, part: slice) -> Tensor:
        return Tensor(self.values[part])


def install() -> None:
    """Makes ``import sglang`` find this, and ``import torch`` where torch is not installed."""
    here = globals()
    storage = modules("sglang.srt.mem_cache.hicache_storage")["sglang.srt.mem_cache.hicache_storage"]
    for name in (
        "HiCacheStorage", "HiCacheStorageConfig", "HiCacheStorageExtraInfo", "PoolHitPolicy", "PoolName", "PoolTransfer",
        "PoolTransferResult",
    ):  # fmt: skip
        setattr(storage, name, here[name])
    if not is_installed("torch"):
        torch = modules("torch")["torch"]
        torch.Tensor = Tensor  # type: ignore[attr-defined]
        torch.int64, torch.uint8 = "int64", "uint8"  # type: ignore[attr-defined]
        torch.zeros = lambda count, dtype=None: Tensor([0] * count)  # type: ignore[attr-defined]
        torch.empty = lambda count, dtype=None: Tensor([0] * count)  # type: ignore[attr-defined]
        torch.tensor = lambda values, dtype=None: Tensor(list(values))  # type: ignore[attr-defined]
        torch.arange = lambda first, end: Tensor(list(range(first, end)))  # type: ignore[attr-defined]
