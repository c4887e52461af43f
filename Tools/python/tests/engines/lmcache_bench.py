"""LMCache's own benchmark of L2 adapters, with verification on, through our plug-in, beside its file system's adapter.

The agent is the one at ``HOLDFAST_SOCKET`` (or one in memory).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [os.path.join(os.path.dirname(__file__), ".."), os.path.join(os.path.dirname(__file__), "../..")]

from memory_agent import MemoryAgent


class BenchTest(unittest.TestCase):
    def bench(self, adapter: dict[str, object]) -> str:
        command = [
            str(Path(sys.executable).parent / "lmcache"), "bench", "l2", "--no-skip-verify", "--l2-adapter", json.dumps(adapter),
        ]  # fmt: skip
        paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=400, env={**os.environ, "PYTHONPATH": paths}, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_everything_stored_is_loaded_and_verified(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            agent = None
            socket = os.environ.get("HOLDFAST_SOCKET", "")
            if not socket:
                socket = os.path.join(folder, "agent.sock")
                agent = MemoryAgent(socket)
                self.addCleanup(agent.stop)
            out = self.bench({
                "type": "plugin", "module_path": "holdfast_kv.lmcache.l2", "class_name": "HoldfastL2",
                "adapter_params": {"socket": socket},
            })  # fmt: skip
            print(out)
            if agent is not None:
                self.assertGreater(len(agent.blocks), 0)
            print(self.bench({"type": "fs", "base_path": os.path.join(folder, "fs")}))


if __name__ == "__main__":
    unittest.main(verbosity=2)
