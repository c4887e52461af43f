"""What README.md tells users to write, taken out of it: so that what is run is what stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TEXT = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def configurations(flag: str) -> list[dict[str, Any]]:
    """The JSON behind each use of a flag."""
    found = re.findall(re.escape(flag) + r" '(\{.*?\})'", TEXT, re.DOTALL)
    assert found, f"README.md shows no {flag}"
    return [json.loads(each) for each in found]


def block(first: str) -> str:
    """The indented block that begins with a line."""
    lines = TEXT.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.strip().startswith(first) and line.startswith("    "))
    end = next(at for at in range(begin, len(lines)) if lines[at] and not lines[at].startswith("    "))
    return "\n".join(line[4:] for line in lines[begin:end]).rstrip() + "\n"
