"""Identity: namespaces and block keys, bit for bit as in Swift (``Sources/KVIdentity``).

Both sides check the same vectors (``Tests/KVIdentityTests/identity-vectors.json``).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

REQUIRED_FIELDS = (
    "block_tokens",
    "engine",
    "hash_scheme",
    "hash_seed",
    "head_size",
    "kv_dtype",
    "kv_heads",
    "kv_scales",
    "layers",
    "memory_order",
    "model",
    "tenant_salt",
    "tokenizer",
)


#: Dtypes whose numbers are what they say.
_PLAIN_DTYPES = frozenset({"", "bf16", "bfloat16", "float", "float16", "float32", "fp16", "half"})


class NamespaceError(ValueError):
    """A namespace lacks a field that it must state."""


def _field(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def namespace_digest(fields: Mapping[str, str]) -> bytes:
    """The 32 bytes that stand for a namespace in every key.

    Every name of ``REQUIRED_FIELDS`` must be there; values are text, numbers in decimal, ``""`` for none.
    """
    missing = [name for name in REQUIRED_FIELDS if name not in fields]
    if missing:
        raise NamespaceError(f"a namespace without {', '.join(missing)}; state every required field")
    parts = [_field(b"holdfast-namespace-1"), struct.pack("<Q", len(fields))]
    for name in sorted(fields, key=lambda text: text.encode()):
        parts += (_field(name.encode()), _field(fields[name].encode()))
    return hashlib.sha256(b"".join(parts)).digest()


def scales_of(kv_dtype: str) -> str:
    """``kv_scales`` of a dtype, or of several with commas between them: "" where numbers are what they say, else
    ``checkpoint``: the scales come with the model or lie in the block, and are equal wherever model and dtype are."""
    return "" if all(name in _PLAIN_DTYPES for name in kv_dtype.replace("torch.", "").split(",")) else "checkpoint"


def _begin(digest: bytes, body: bytes) -> list[bytes]:
    if len(digest) != 32:
        raise ValueError(f"a namespace digest has 32 bytes, not {len(digest)}")
    return [_field(b"holdfast-block-1"), _field(digest), _field(body)]


def canonical_key(
    digest: bytes,
    parent: bytes | None,
    tokens: Sequence[int],
    lora_digest: bytes = b"",
    media_digests: Sequence[bytes] = (),
) -> bytes:
    """The key of a block from its contents: the parent's key (None for the first block) and its token ids."""
    parts = _begin(digest, b"canonical")
    parts += (_field(parent or b""), _field(lora_digest), struct.pack("<Q", len(media_digests)))
    parts += (_field(media) for media in media_digests)
    parts.append(_field(struct.pack(f"<{len(tokens)}I", *tokens)))
    return hashlib.sha256(b"".join(parts)).digest()


def engine_key(digest: bytes, block_hash: bytes) -> bytes:
    """The key of a block from the engine's own chained hash."""
    return hashlib.sha256(b"".join([*_begin(digest, b"engine"), _field(block_hash)])).digest()


class EngineKeys:
    """``engine_key`` of one namespace, with the digest's part hashed once: a quarter of a microsecond a key."""

    def __init__(self, digest: bytes) -> None:
        self._begun = hashlib.sha256(b"".join(_begin(digest, b"engine")))

    def __call__(self, block_hash: bytes) -> bytes:
        """The key of a block from the engine's own chained hash."""
        hash = self._begun.copy()
        hash.update(_field(block_hash))
        return hash.digest()

    def joined(self, names: Sequence[bytes], tail: int = 0) -> bytes:
        """The keys of many blocks, side by side. The last ``tail`` bytes of a name are no part of its hash."""
        copy = self._begun.copy
        keys: list[bytes] = []
        size, length = -1, b""
        for name in names:
            if len(name) != size:
                size = len(name)
                length = struct.pack("<Q", size - tail)
            hash = copy()
            hash.update(length + name[: size - tail])
            keys.append(hash.digest())
        return b"".join(keys)


def canary(digest: bytes, length: int) -> bytes:
    """The bytes of the block that is saved, loaded and compared at attach: they follow from the namespace."""
    seed = hashlib.sha256(b"holdfast-canary-1" + digest).digest()
    return (seed * (length // len(seed) + 1))[:length]
