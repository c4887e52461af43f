"""Holdfast for Python: identity of blocks, the same as in Swift."""
