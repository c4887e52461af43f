"""vLLM's interfaces, as of 0.33: what ``holdfast_kv.vllm.tier`` and the scheduler's half of the connector import."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, ClassVar, NamedTuple

from . import modules


class Medium(Enum):
    CPU = "CPU"
    STORAGE = "STORAGE"


class Locality(Enum):
    LOCAL = "LOCAL"
    REMOTE = "REMOTE"


class LookupResult(Enum):
    MISS = auto()
    HIT = auto()
    HIT_PENDING = auto()
    RETRY = auto()


@dataclass
class ReqContext:
    req_id: str
    kv_transfer_params: dict[str, Any] | None = None


@dataclass
class RequestOffloadingContext:
    policy: str = "chunk_level"


class ScheduleEndContext(NamedTuple):
    new_req_ids: Collection[str]
    preempted_req_ids: Collection[str]


@dataclass
class OffloadingEvent:
    keys: list[bytes]
    medium: Medium
    removed: bool
    locality: Locality | None = None


def make_offload_key(block_hash: bytes, group_idx: int) -> bytes:
    return block_hash + group_idx.to_bytes(4, "big")


def get_offload_block_hash(key: bytes) -> bytes:
    return key[:-4]


def get_offload_group_idx(key: bytes) -> int:
    return int.from_bytes(key[-4:], "big")


@dataclass
class TransferJob:
    job_id: int
    keys: Collection[bytes]
    chunk_ids: Any
    is_promotion: bool
    req_context: ReqContext
    submit_time: float = field(default_factory=time.monotonic)


@dataclass
class JobResult:
    job_id: int
    success: bool
    successful_keys: Collection[bytes] | None = None
    transfer_time: float | None = None
    transfer_bytes: int | None = None


class SecondaryTierManager(ABC):
    medium: ClassVar[Medium | None] = None
    tolerates_off_thread_polling: ClassVar[bool] = False

    def __init__(
        self, offloading_spec: Any, primary_kv_view: memoryview, tier_type: str, backpressure_detector: Any = None
    ) -> None:
        assert primary_kv_view.strides is not None
        self.block_size_bytes = primary_kv_view.strides[0]
        self.tier_type = tier_type
        self.locality: Locality | None = None

    @abstractmethod
    def lookup(self, key: bytes, req_context: ReqContext) -> LookupResult: ...

    @abstractmethod
    def submit_store(self, job_metadata: TransferJob) -> None: ...

    @abstractmethod
    def submit_load(self, job_metadata: TransferJob) -> None: ...

    @abstractmethod
    def get_finished_jobs(self) -> Iterable[JobResult]: ...

    @abstractmethod
    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext: ...

    @abstractmethod
    def drain_jobs(self) -> None: ...


class FileMapper:
    """What vLLM's own tiers put between one model's files and another's."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    @classmethod
    def from_offloading_spec(
        cls, root_dir: str, offloading_spec: Any, blocks_per_file: int = 1, parallel_agnostic: bool = False
    ) -> FileMapper:
        config = offloading_spec.config
        parallel = config.parallel
        is_agnostic = parallel_agnostic and (parallel.is_parallelism_agnostic or config.replicated_layout)
        sizes = {name: 1 if is_agnostic else getattr(parallel, name) for name in ("tp_size", "pp_size", "pcp_size", "dcp_size")}
        groups = [{"tokens_per_block": each.tokens_per_block, "layer_names": list(each.layer_names)} for each in config.groups]
        return cls({
            "model_name": config.model.name, "tokens_per_hash": config.cache.tokens_per_hash,
            "blocks_per_file": blocks_per_file, "dtype": str(config.model.dtype), "kv_cache_groups": groups,
            "inference_engine": "vllm", "canonical": config.canonical_layout, **sizes,
        })  # fmt: skip

    def get_run_config(self) -> dict[str, Any]:
        return dict(self.fields)


@dataclass
class KVConnectorMetadata:
    pass


class AttentionSpec:
    """A group's layers; tests bring the numbers."""


class MLAAttentionSpec(AttentionSpec):
    pass


@dataclass
class BlockStored:
    block_hashes: list[Any]
    parent_block_hash: Any
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    group_idx: int | None = None


@dataclass
class BlockRemoved:
    block_hashes: list[Any]
    medium: str | None


class _Platform:
    @staticmethod
    def is_fp8_fnuz() -> bool:
        return False


def install() -> None:
    """Makes ``import vllm`` find this."""
    here = globals()
    made = modules(
        "vllm", "vllm.v1.kv_offload.base", "vllm.v1.kv_offload.file_mapper", "vllm.v1.kv_offload.tiering.base",
        "vllm.v1.core.kv_cache_utils", "vllm.v1.kv_cache_interface", "vllm.platforms", "vllm.distributed.kv_events",
        "vllm.distributed.kv_transfer.kv_connector.v1.base",
    )  # fmt: skip
    made["vllm"].__version__ = "0.33.0"  # type: ignore[attr-defined]
    made["vllm.v1.core.kv_cache_utils"].NONE_HASH = bytes(32)  # type: ignore[attr-defined]
    for path, names in {
        "vllm.v1.kv_offload.base": (
            "Locality", "LookupResult", "Medium", "OffloadingEvent", "ReqContext", "RequestOffloadingContext",
            "ScheduleEndContext", "get_offload_block_hash", "get_offload_group_idx", "make_offload_key",
        ),
        "vllm.v1.kv_offload.file_mapper": ("FileMapper",),
        "vllm.v1.kv_offload.tiering.base": ("JobResult", "SecondaryTierManager", "TransferJob"),
        "vllm.v1.kv_cache_interface": ("AttentionSpec", "MLAAttentionSpec"),
        "vllm.distributed.kv_events": ("BlockRemoved", "BlockStored"),
        "vllm.distributed.kv_transfer.kv_connector.v1.base": ("KVConnectorMetadata",),
    }.items():  # fmt: skip
        for name in names:
            setattr(made[path], name, here[name])
    made["vllm.platforms"].current_platform = _Platform()  # type: ignore[attr-defined]
    # Types in annotations alone.
    made["vllm.v1.kv_offload.base"].OffloadKey = bytes  # type: ignore[attr-defined]
    made["vllm.distributed.kv_events"].KVCacheEvent = object  # type: ignore[attr-defined]
