"""What the bytes of LMCache's objects mean, as far as LMCache says it: the shapes and dtypes of their tensors.

LMCache names chunks by their tokens and their model's name. Two engines that serve one model in other dtypes have the same
names and the same lengths, so that shapes and dtypes are part of the namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..namespace import REQUIRED_FIELDS, scales_of

if TYPE_CHECKING:
    from lmcache.v1.distributed.api import MemoryLayoutDesc
    from lmcache.v1.memory_management import MemoryObj

#: Dtypes under which engines hand over several kinds of KV: each fp8 kind of vLLM's is ``uint8``.
_OPAQUE: Final = frozenset({"uint8", "int8"})
#: LMCache's own default.
_CHUNK_TOKENS: Final = 256


class Layout(NamedTuple):
    """The tensors of an object, in the order of their bytes."""

    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[str, ...] = ()

    @classmethod
    def of(cls, shapes: Iterable[Iterable[int]], dtypes: Iterable[object]) -> Layout:
        """The layout of tensors with these shapes and dtypes."""
        return cls(
            tuple(tuple(int(side) for side in shape) for shape in shapes),
            tuple(str(dtype).removeprefix("torch.") for dtype in dtypes),
        )

    @classmethod
    def of_object(cls, thing: MemoryObj) -> Layout:
        """The layout of one of LMCache's buffers."""
        about = thing.metadata
        return cls.of(about.shapes or [about.shape], about.dtypes or [about.dtype])

    @property
    def tokens(self) -> int:
        """Tokens of a chunk, 0 when the shapes do not say. Compressed groups of layers have fewer rows than tokens."""
        return max((shape[2] for shape in self.shapes if len(shape) == 4), default=0)

    @property
    def is_opaque(self) -> bool:
        """Whether the dtypes leave open what the bytes are."""
        return not _OPAQUE.isdisjoint(self.dtypes)


class Described(NamedTuple):
    """A layout and the bytes of its objects."""

    layout: Layout = Layout()
    size: int = 0


def described(descriptions: Mapping[int, MemoryLayoutDesc]) -> dict[int, Described]:
    """What LMCache says of its groups of objects; groups of which it says nothing are left out."""
    found: dict[int, Described] = {}
    for group, each in descriptions.items():
        size = sum(int(shape.numel()) * dtype.itemsize for shape, dtype in zip(each.shapes, each.dtypes, strict=True))
        if size:
            found[group] = Described(Layout.of(each.shapes, each.dtypes), size)
    return found


def namespace_fields(params: Mapping[str, Any], layout: Layout, block_bytes: int) -> dict[str, str]:
    """The namespace of a server or engine as a whole; each model, rank and salt has its own below it.

    What LMCache does not tell its plug-ins is the operator's to say, in ``params``: ``kv_dtype``, ``kv_scales``,
    ``tokenizer``, ``revision``.
    """
    shapes = layout.shapes
    dtype = str(params.get("kv_dtype", "")) or ",".join(layout.dtypes)
    fields = dict.fromkeys(REQUIRED_FIELDS, "")
    fields |= {
        "block_tokens": str(int(params.get("chunk_tokens", 0)) or layout.tokens or _CHUNK_TOKENS),
        "engine": "lmcache",
        "hash_scheme": str(params.get("hash_scheme", "lmcache")),
        "hash_seed": str(params.get("hash_seed", "")),
        "kv_dtype": dtype,
        "kv_scales": str(params.get("kv_scales", "")) or scales_of(dtype),
        "layers": ",".join(str(shape[1]) for shape in shapes if len(shape) == 4),
        # The order of the shapes' sides; the last one is all heads of a token, side by side.
        "memory_order": str(params.get("memory_order", "")) or "shapes",
        "revision": str(params.get("revision", "")),
        "row_bytes": str(block_bytes),
        "shapes": ",".join(
            f"{dtype}:{'x'.join(map(str, shape))}" for shape, dtype in zip(shapes, layout.dtypes, strict=True)
        ),
        "tokenizer": str(params.get("tokenizer", "")),
    }
    return fields
