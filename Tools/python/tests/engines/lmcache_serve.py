"""``lmcache server`` as README.md starts it, driven by LMCache's own client of it: chunks that left the server's memory come back
from the agent, compared byte for byte; and a killed agent, of which the client does not learn.
"""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import serving
from processes import AgentProcess

#: Two layers of two heads: chunks of 256 tokens are this long.
SHAPE, CHUNK = "(2,64,16,2,64):float16:2", 2 * 2 * 256 * 2 * 64 * 2


class LmcacheServeTest(serving.ServingTest):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.port, cls.http = serving.free_port(), serving.free_port()
        words = serving.command("lmcache server --l1-size-gb", cls.agent.socket)
        assert words[:2] == ["lmcache", "server"], words
        words[0] = cls.program = str(Path(sys.executable).parent / "lmcache")
        # The last one said counts. Without a GPU the engine copies, into memory that the server shares.
        words += [
            "--l1-size-gb", "0.25", "--supported-transfer-mode", "engine_driven", "--port", str(cls.port),
            "--http-port", str(cls.http),
        ]  # fmt: skip
        more = {"LMCACHE_DISABLE_BANNER": "1", "LMCACHE_TRACK_USAGE": "false"}
        cls.server = serving.Server(cls.folder, words, cls.http, health="/healthcheck", more=more)
        cls.addClassCleanup(cls.server.stop)

    def requests(self, first: int, count: int, *, known: int) -> dict[str, str]:
        """Requests of two chunks each: looked up, of which ``known`` must be found, retrieved or stored; then looked up and
        retrieved once more, into zeros. The sum of what came, by request.
        """
        done = subprocess.run([
            self.program, "bench", "server", "--mode", "cpu", "--transfer-mode", "engine_driven",
            "--rpc-url", f"tcp://localhost:{self.port}", "--url", f"http://localhost:{self.http}",
            "--kvcache-shape-spec", SHAPE, "--num-blocks", "64", "--num-tokens", "512", "--interval", "0",
            "--start", str(first), "--end", str(first + count),
        ], capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said + self.server.said())
        self.assertEqual(len(re.findall(rf"/cold\] LOOKUP: {known}/2 chunks hit", said)), count, said)
        self.assertEqual(len(re.findall(r"/warm\] LOOKUP: 2/2 chunks hit", said)), count, said)
        # What it stored itself it compares itself.
        self.assertEqual(len(re.findall("CHECKSUM MATCH OK", said)), count if known == 0 else 0, said)
        sums = dict(re.findall(r"\[seq (\d+)/warm\] CHECKSUM: (\w+)", said))
        self.assertEqual(len(sums), count, said)
        return sums

    def clear(self) -> None:
        """Nothing is in the server's own memory any more."""
        done = subprocess.run(
            [self.program, "kvcache", "clear", "--url", f"http://localhost:{self.http}"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_1_chunks_that_left_the_server_come_from_the_agent(self) -> None:
        stored = self.requests(0, 3, known=0)
        serving.wait(lambda: serving.kept(self.agent) >= 6 * CHUNK, "six chunks are kept")
        self.clear()
        given = serving.given(self.agent)
        self.assertEqual(self.requests(0, 3, known=2), stored)
        came = serving.given(self.agent) - given
        self.assertGreaterEqual(came, 6 * CHUNK)
        print(f"lmcache server: {came // CHUNK} chunks of {CHUNK} bytes came from the agent, compared", flush=True)

    def test_2_a_killed_agent_is_no_failure_and_the_next_one_is_used(self) -> None:
        self.requests(10, 1, known=0)
        self.agent.kill()
        self.clear()
        # What was with the agent is stored again.
        self.requests(10, 2, known=0)
        type(self).agent = AgentProcess(self.folder)
        serving.wait(lambda: serving.numbers(self.agent).get("engines", 0) > 0, "the next agent is found")
        self.requests(20, 2, known=0)
        serving.wait(lambda: serving.kept(self.agent) >= 4 * CHUNK, "the next agent is used")
        print(f"lmcache server: the next agent got {serving.kept(self.agent)} bytes", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
