"""LMCache's interfaces of plug-ins, as of 0.5.6: what ``holdfast_kv.lmcache`` imports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from . import modules


class Bitmap:
    def __init__(self, size: int) -> None:
        self._bits = [False] * size

    def set(self, index: int) -> None:
        self._bits[index] = True

    def test(self, index: int) -> bool:
        return self._bits[index]

    def popcount(self) -> int:
        return sum(self._bits)


class L2StoreResult:
    def __init__(self, success: bool, bytes_transferred: int = 0) -> None:
        self._success = success
        self.bytes_transferred = bytes_transferred

    def is_successful(self) -> bool:
        return self._success


class L2AdapterInterface(ABC):
    def __init__(self, max_capacity_bytes: int = 0) -> None:
        self.stored: list[Any] = []
        self.accessed: list[Any] = []

    def _notify_keys_stored(self, keys: list[Any], sizes: list[int]) -> None:
        self.stored += zip(keys, sizes, strict=True)

    def _notify_keys_accessed(self, keys: list[Any]) -> None:
        self.accessed += keys

    @abstractmethod
    def get_store_event_fd(self) -> int: ...

    @abstractmethod
    def get_lookup_and_lock_event_fd(self) -> int: ...

    @abstractmethod
    def get_load_event_fd(self) -> int: ...

    @abstractmethod
    def submit_store_task(self, keys: list[Any], objects: list[Any]) -> int: ...

    @abstractmethod
    def pop_completed_store_tasks(self) -> dict[int, L2StoreResult]: ...

    @abstractmethod
    def submit_lookup_and_lock_task(self, keys: list[Any], group_layout_descs: dict[int, Any]) -> int: ...

    @abstractmethod
    def query_lookup_and_lock_result(self, task_id: int) -> Bitmap | None: ...

    @abstractmethod
    def submit_unlock(self, keys: list[Any]) -> None: ...

    @abstractmethod
    def submit_load_task(self, keys: list[Any], objects: list[Any]) -> int: ...

    @abstractmethod
    def query_load_result(self, task_id: int) -> Bitmap | None: ...

    @abstractmethod
    def close(self) -> None: ...


class StoragePluginInterface(ABC):
    def __init__(
        self, dst_device: str = "cpu", config: Any = None, metadata: Any = None, local_cpu_backend: Any = None, loop: Any = None
    ) -> None:
        self.config = config
        self.metadata = metadata
        self.local_cpu_backend = local_cpu_backend
        self.loop = loop

    @abstractmethod
    def contains(self, key: Any, pin: bool = False) -> bool: ...

    @abstractmethod
    def exists_in_put_tasks(self, key: Any) -> bool: ...

    @abstractmethod
    def batched_submit_put_task(
        self, keys: Any, objs: Any, transfer_spec: Any = None, on_complete_callback: Any = None
    ) -> Any: ...

    @abstractmethod
    def get_blocking(self, key: Any) -> Any: ...

    @abstractmethod
    def pin(self, key: Any) -> bool: ...

    @abstractmethod
    def unpin(self, key: Any) -> bool: ...

    @abstractmethod
    def remove(self, key: Any, force: bool = True) -> bool: ...

    @abstractmethod
    def get_allocator_backend(self) -> Any: ...

    @abstractmethod
    def close(self) -> None: ...


def install() -> None:
    """Makes ``import lmcache`` find this."""
    made = modules(
        "lmcache.lmcache_native", "lmcache.v1.distributed.internal_api", "lmcache.v1.distributed.l2_adapters.base",
        "lmcache.v1.storage_backend.abstract_backend",
    )  # fmt: skip
    made["lmcache.lmcache_native"].Bitmap = Bitmap  # type: ignore[attr-defined]
    made["lmcache.v1.distributed.internal_api"].L2StoreResult = L2StoreResult  # type: ignore[attr-defined]
    made["lmcache.v1.distributed.l2_adapters.base"].L2AdapterInterface = L2AdapterInterface  # type: ignore[attr-defined]
    abstract = made["lmcache.v1.storage_backend.abstract_backend"]
    abstract.StoragePluginInterface = StoragePluginInterface  # type: ignore[attr-defined]
