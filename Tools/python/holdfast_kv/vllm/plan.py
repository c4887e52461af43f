"""What both halves of the connector agree on: the shape of a block, the agent that they attach to, the moves of a step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata
from vllm.v1.kv_cache_interface import AttentionSpec, MLAAttentionSpec

from ..client import DEFAULT_SOCKET, Client, Settings
from ..namespace import scales_of
from ..protocol import Ownership
from .compat import kv_dtype

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig

#: Dtypes of tensors that hold several kinds of KV.
_OPAQUE: Final = frozenset({"int8", "uint8"})


@dataclass(frozen=True)
class Move:
    """Blocks of one request and group: the hashes up to the last of them, and where they lie in the cache."""

    request: str
    group: int
    hashes: tuple[bytes, ...]
    first: int
    blocks: tuple[int, ...]
    #: The look-ups of its group, one a shard, and the agent's number of the scheduler who asked.
    tickets: tuple[int, ...] = ()
    asker: int = 0


@dataclass
class HoldfastMetadata(KVConnectorMetadata):
    """What the scheduler tells the workers in a step."""

    loads: list[Move] = field(default_factory=list)
    saves: list[Move] = field(default_factory=list)


class Shape:
    """What both halves must agree on, from the engine's configuration alone."""

    def __init__(self, config: VllmConfig, cache: KVCacheConfig, tenant_salt: str) -> None:
        specs = [group.kv_cache_spec for group in cache.kv_cache_groups]
        parallel, model = config.parallel_config, config.model_config
        #: Why nothing can be cached, if so.
        self.reason = _reason(specs, parallel, config.cache_config)
        self.block_tokens = int(specs[0].block_size) if specs else 1
        self.layers = [list(group.layer_names) for group in cache.kv_cache_groups]
        #: Blocks of the cache.
        self.count = int(cache.num_blocks)
        self.row = max(
            (spec.page_size_bytes * len(names) for spec, names in zip(specs, self.layers, strict=True)), default=1
        )
        self.is_replicated = bool(specs) and all(isinstance(spec, MLAAttentionSpec) for spec in specs)
        self.tensor = 1 if self.is_replicated else int(parallel.tensor_parallel_size)
        self.pipeline = int(parallel.pipeline_parallel_size)
        algorithm = str(config.cache_config.prefix_caching_hash_algo)
        seed = os.environ.get("PYTHONHASHSEED", "vllm-none-hash" if algorithm.startswith("sha") else "random")
        dtypes = ",".join(_kv_dtype(spec, str(config.cache_config.cache_dtype)) for spec in specs)
        self.fields = {
            "block_tokens": str(self.block_tokens),
            "engine": "vllm-connector",
            "hash_scheme": f"vllm-{algorithm}",
            "hash_seed": seed,
            "head_size": ",".join(str(getattr(spec, "head_size", "")) for spec in specs),
            "kv_dtype": dtypes,
            "kv_heads": ",".join(str(getattr(spec, "num_kv_heads", "")) for spec in specs),
            "kv_scales": scales_of(dtypes),
            "layers": ",".join(str(len(names)) for names in self.layers),
            "memory_order": f"layers {getattr(cache, 'kv_cache_layout', None) or ''}".strip(),
            "model": str(model.model),
            "tenant_salt": tenant_salt,
            "tokenizer": str(model.tokenizer or ""),
            "revision": str(model.revision or ""),
            "tokenizer_revision": str(getattr(model, "tokenizer_revision", None) or ""),
            "kv_dtype_skips": ",".join(map(str, getattr(config.cache_config, "kv_cache_dtype_skip_layers", None) or ())),
            "row_bytes": str(self.row),
            "specs": ",".join(type(spec).__name__ for spec in specs),
            "tp_size": str(self.tensor),
            "pp_size": str(self.pipeline),
        }

    @property
    def shards(self) -> int:
        """Parts of a block, one a worker that holds bytes of its own."""
        return self.tensor * self.pipeline

    def blocks(self, tokens: int) -> int:
        """Full blocks of that many tokens."""
        return tokens // self.block_tokens


def _kv_dtype(spec: Any, said: str) -> str:
    """The dtype of a group. vLLM keeps quantized KV as bytes, whichever it is: what they are its configuration says."""
    if getattr(spec, "cache_dtype_str", None):
        said = str(spec.cache_dtype_str)
    stored = str(getattr(spec, "dtype", "")).removeprefix("torch.")
    if stored not in _OPAQUE:
        return stored
    # A worker writes "fp8" over its own "auto" where the checkpoint asks for it; the scheduler may not have seen that.
    return kv_dtype("fp8" if said == "auto" else said)


def _reason(specs: Sequence[Any], parallel: Any, cache_config: Any) -> str:
    if not specs or not all(isinstance(spec, AttentionSpec) for spec in specs):
        return "a group of layers holds other state than attention's"
    if len({spec.block_size for spec in specs}) != 1:
        return "groups of layers have blocks of different lengths"
    if getattr(parallel, "decode_context_parallel_size", 1) > 1 or getattr(parallel, "prefill_context_parallel_size", 1) > 1:
        return "the context is split over ranks"
    if getattr(cache_config, "calculate_kv_scales", False):
        return "each process calculates its own scales of KV"
    return ""


def client_of(shape: Shape, extra: dict[str, Any], **more: Any) -> Client:
    """A client of the agent that the flag names; ``more`` goes to it."""
    return Client(
        str(extra.get("socket", DEFAULT_SOCKET)),
        kind="vllm-connector",
        store_namespace=str(extra.get("store_namespace", "default")),
        fields=shape.fields,
        block_bytes=shape.row,
        ownership=Ownership.HOST,
        client="holdfast-kv vllm-connector",
        settings=Settings(
            lookup_deadline=float(extra.get("lookup_deadline", 0.05)),
            load_deadline=float(extra.get("load_deadline", 5.0)),
            save_deadline=float(extra.get("store_deadline", 30.0)),
        ),
        **more,
    )
