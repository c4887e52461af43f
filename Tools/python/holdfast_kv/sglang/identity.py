"""Who shares pages with whom: the namespace of a rank, and which part of each page it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..namespace import scales_of

if TYPE_CHECKING:
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig
    from sglang.srt.mem_cache.pool_host import HostKVCache

#: Dtypes in which host pools keep several kinds of KV: SGLang stores each fp8 kind as ``uint8``.
_OPAQUE: Final = frozenset({"int8", "uint8"})


def shard_of(config: HiCacheStorageConfig) -> tuple[int, int]:
    """Which part of a page this rank holds, and how many there are."""
    index = (config.pp_rank * config.attn_cp_size + config.attn_cp_rank) * config.tp_size + config.tp_rank
    return index, config.pp_size * config.attn_cp_size * config.tp_size


def engine_facts() -> dict[str, str]:
    """What this process's SGLang published of its model and KV cache; nothing where it published nothing."""
    try:
        from sglang.srt.runtime_context import get_model, get_serving

        model, serving = get_model(), get_serving()
    except (ImportError, ValueError):
        return {}
    names = ("kv_cache_dtype", "model_path", "quantization_param_path", "revision")
    found = {name: getattr(model, name, None) for name in names}
    found["tokenizer_path"] = getattr(serving, "tokenizer_path", None)
    return {name: str(value) for name, value in found.items() if value is not None}


def namespace_fields(
    config: HiCacheStorageConfig,
    pool: HostKVCache,
    page_bytes: int,
    tenant_salt: str,
    extra: Mapping[str, Any] | None = None,
    facts: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What must be equal for two ranks or engines to share pages.

    ``facts`` are those of ``engine_facts``; ``extra`` may say ``kv_dtype`` and ``kv_scales`` where the engine does not.
    """
    extra, facts = extra or {}, facts or {}

    def of(name: str) -> str:
        value = getattr(pool, name, "")
        return "" if value is None else str(value)

    kv_dtype = str(extra.get("kv_dtype", "")) or _kv_dtype(pool, facts)
    return {
        "block_tokens": str(config.logical_page_size or pool.page_size),
        "engine": "sglang",
        "hash_scheme": "sglang-sha256-page",
        "hash_seed": "",
        "head_size": of("head_dim") or of("kv_cache_dim"),
        "kv_dtype": kv_dtype,
        "kv_heads": of("head_num"),
        "kv_scales": str(extra.get("kv_scales", "")) or _kv_scales(kv_dtype, facts.get("quantization_param_path", "")),
        "layers": of("layer_num"),
        "memory_order": of("layout"),
        "model": config.model_name or "",
        "tenant_salt": tenant_salt,
        "tokenizer": facts.get("tokenizer_path", ""),
        # The model's name may be what it is served as.
        "model_path": facts.get("model_path", ""),
        "revision": facts.get("revision", ""),
        "page_bytes": str(page_bytes),
        "v_head_size": of("v_head_dim"),
        "mla": str(config.is_mla_model).lower(),
        "tp_size": "1" if config.is_mla_model else str(config.tp_size),
        "pp_size": str(config.pp_size),
        "cp_size": str(config.attn_cp_size),
        "dcp_size": str(config.dcp_size),
    }


def pool_fields(name: str, pool: HostKVCache) -> dict[str, str]:
    """What a further pool's pages must be equal in besides."""
    of = ("dtype", "conv_dtype", "temporal_dtype", "layer_num", "head_num", "head_dim", "layout")
    return {"pool": name} | {f"pool_{each}": str(value) for each in of if (value := getattr(pool, each, None)) is not None}


def _kv_dtype(pool: HostKVCache, facts: Mapping[str, str]) -> str:
    """The dtype of the device's pool; that of the host's only where it says as much."""
    device = getattr(pool, "device_pool", None)
    stored = str(pool.dtype).removeprefix("torch.")
    for dtype in (str(getattr(device, "dtype", stored)).removeprefix("torch."), stored):
        if dtype not in _OPAQUE:
            return dtype
    said = facts.get("kv_cache_dtype", "")
    if not said:
        raise ValueError(
            f"this host pool keeps KV as {stored}, which several dtypes are; "
            'say which in --hicache-storage-backend-extra-config: "kv_dtype": "fp8_e4m3"'
        )
    # With "auto" it is the checkpoint's, equal wherever the model is. ROCm has numbers of its own under the same names.
    return f"{said} ({_platform()})"


def _platform() -> str:
    import torch

    return "rocm" if getattr(getattr(torch, "version", None), "hip", None) else "cuda"


def _kv_scales(kv_dtype: str, path: str) -> str:
    """Where scales come from: those of a file are what it says, not how it is called."""
    scales = scales_of(kv_dtype)
    if not scales or not path:
        return scales
    try:
        return "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"the scales of KV cannot be read: {error}") from error
