"""The settings of ``Tools/deploy`` as the built program reads them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from processes import WHY_NOT, program

DEPLOY = Path(__file__).parents[2] / "deploy"
PAGE = "http://127.0.0.1:8000/metrics"


@unittest.skipIf(program() is None, WHY_NOT)
class DeployTest(unittest.TestCase):
    def settings(self, text: str) -> str:
        """What ``doctor`` says of an agent's settings."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            done = subprocess.run(
                [str(program()), "doctor", "--agent-config", file.name], capture_output=True, text=True, timeout=60, check=False
            )
        found = re.search(r"^(\w+) +settings: (.*)$", done.stdout, re.MULTILINE)
        self.assertIsNotNone(found, done.stdout + done.stderr)
        return found[0] if found else ""

    def test_the_agents_file_names_the_engines_page(self) -> None:
        text = (DEPLOY / "agent.yaml").read_text()
        self.assertIn(f"\nengineMetrics: {PAGE}\n", text)
        self.assertRegex(self.settings(text), "^ok ")
        # Doctor does look at it.
        self.assertRegex(self.settings(text.replace(PAGE, "8000")), "^problem .*engineMetrics")

    def test_the_sidecars_settings_are_the_agents(self) -> None:
        text = (DEPLOY / "kubernetes-sidecar.yaml").read_text()
        self.assertIn(f"\n        - --set=engineMetrics={PAGE}\n", text)
        pairs = re.findall(r"^ +- --set=(\w+)=(.*)$", text, re.MULTILINE)
        self.assertRegex(self.settings("".join(f"{name}: {value}\n" for name, value in pairs)), "^ok ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
