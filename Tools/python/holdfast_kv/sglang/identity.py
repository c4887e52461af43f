"""Who shares pages with whom: the namespace of a rank, and which part of each page it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig
    from sglang.srt.mem_cache.pool_host import HostKVCache


def shard_of(config: HiCacheStorageConfig) -> tuple[int, int]:
    """Which part of a page this rank holds, and how many there are."""
    index = (config.pp_rank * config.attn_cp_size + config.attn_cp_rank) * config.tp_size + config.tp_rank
    return index, config.pp_size * config.attn_cp_size * config.tp_size


def namespace_fields(config: HiCacheStorageConfig, pool: HostKVCache, page_bytes: int, tenant_salt: str) -> dict[str, str]:
    """What must be equal for two ranks or engines to share pages."""

    def of(name: str) -> str:
        value = getattr(pool, name, "")
        return "" if value is None else str(value)

    return {
        "block_tokens": str(config.logical_page_size or pool.page_size),
        "engine": "sglang",
        "hash_scheme": "sglang-sha256-page",
        "hash_seed": "",
        "head_size": of("head_dim") or of("kv_cache_dim"),
        "kv_dtype": of("dtype"),
        "kv_heads": of("head_num"),
        "kv_scales": "",
        "layers": of("layer_num"),
        "memory_order": of("layout"),
        "model": config.model_name or "",
        "tenant_salt": tenant_salt,
        "tokenizer": "",
        "page_bytes": str(page_bytes),
        "mla": str(config.is_mla_model).lower(),
        "tp_size": "1" if config.is_mla_model else str(config.tp_size),
        "pp_size": str(config.pp_size),
        "cp_size": str(config.attn_cp_size),
        "dcp_size": str(config.dcp_size),
    }
