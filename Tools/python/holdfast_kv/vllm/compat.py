"""What differs between versions of vLLM, in one place."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import vllm

from ..protocol import StopReason

#: Minor versions that the tests run.
TESTED = ("0.32", "0.33")
_log = logging.getLogger("holdfast_kv.vllm")
_ENDS: Final = {"tool": StopReason.TOOL_USE, "turn": StopReason.END_TURN, "branch": StopReason.BRANCH_ENDED}


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


def end_of(parameters: Mapping[str, Any] | None) -> tuple[StopReason, float]:
    """How a request's caller said that it would end, in ``kv_transfer_params`` (``ends``: tool, turn or branch;
    ``resumes_after``, seconds): vLLM knows that an answer stopped, and not whether it calls a tool or ends a turn."""
    said = parameters or {}
    try:
        resumes = float(said.get("resumes_after", 0.0))
    except (TypeError, ValueError):
        resumes = 0.0
    return _ENDS.get(str(said.get("ends", "")), StopReason.UNKNOWN), resumes if 0.0 < resumes < 1e9 else 0.0


def first_token_seconds(request: Any) -> float:
    """Seconds since a request came, by the frontend's clock on this machine, where it has a token; else 0."""
    if getattr(request, "num_output_tokens", 0) == 0:
        return 0.0
    return max(1e-9, time.time() - float(request.arrival_time))


def session_of(parameters: Mapping[str, Any] | None) -> tuple[int, int]:
    """A request's conversation and its turn, from ``kv_transfer_params`` (``session``, ``turn``); 0, −1 without."""
    if not parameters or "session" not in parameters:
        return 0, -1
    digest = hashlib.sha256(str(parameters["session"]).encode()).digest()
    turn = parameters.get("turn", -1)
    return int.from_bytes(digest[:8], "little") or 1, turn if isinstance(turn, int) else -1
