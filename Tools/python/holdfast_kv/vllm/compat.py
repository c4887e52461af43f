"""What differs between versions of vLLM, in one place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import vllm

#: Minor versions that the tests run.
TESTED = ("0.32", "0.33")
_log = logging.getLogger("holdfast_kv.vllm")


def check_version() -> None:
    """Says once that a version is untested; what does not fit fails by itself, and loudly."""
    minor = ".".join(vllm.__version__.split(".")[:2])
    if minor not in TESTED:
        _log.warning("vLLM %s is untested with this connector; tested: %s", vllm.__version__, ", ".join(TESTED))


def hash_scheme() -> tuple[str, str]:
    """How vLLM hashes blocks and from which seed."""
    from vllm.v1.core import kv_cache_utils

    seed = getattr(kv_cache_utils, "NONE_HASH", None)
    if not seed:
        resolve = getattr(kv_cache_utils, "get_none_hash_seed", None)
        seed = str(resolve() if resolve else "").encode()
    return "vllm-chain", bytes(seed).hex()


def kv_dtype(name: str) -> str:
    """vLLM's name of a KV dtype, with the platform behind it where it has other numbers under that name."""
    if not name.startswith("fp8"):
        return name
    from vllm.platforms import current_platform

    return f"{name} (fnuz)" if current_platform.is_fp8_fnuz() else name


def session_of(parameters: Mapping[str, Any] | None) -> tuple[int, int]:
    """A request's conversation and its turn, from ``kv_transfer_params`` (``session``, ``turn``); 0, −1 without."""
    if not parameters or "session" not in parameters:
        return 0, -1
    digest = hashlib.sha256(str(parameters["session"]).encode()).digest()
    turn = parameters.get("turn", -1)
    return int.from_bytes(digest[:8], "little") or 1, turn if isinstance(turn, int) else -1
