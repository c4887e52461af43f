"""Holdfast for Python: what engines need to keep their KV cache on Holdfast's tiers."""

__version__ = "0.1.0"
