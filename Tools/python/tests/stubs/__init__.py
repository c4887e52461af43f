"""Stand-ins for engines' packages: as much of their interfaces as the connectors touch, with the real names and shapes.

Tests of connectors run on these where the engine is not installed. ``Tools/test-engines`` runs the same tests on the real
package, so that a stand-in which says something else than the package is found there.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def is_installed(package: str) -> bool:
    """Whether the real package is here."""
    if package in sys.modules:
        return sys.modules[package].__spec__ is not None
    return importlib.util.find_spec(package) is not None


def modules(*names: str) -> dict[str, ModuleType]:
    """Empty modules under these names and their parents, importable from here on."""
    made: dict[str, ModuleType] = {}
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                module = sys.modules[path] = ModuleType(path)
                module.__path__ = []  # type: ignore[attr-defined]
                if end > 1:
                    setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
        made[name] = sys.modules[name]
    return made
