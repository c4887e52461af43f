"""The package as its users meet it: what it imports, what the README tells them to write, the command, the client for asyncio."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import readme
from memory_agent import MemoryAgent

import holdfast_kv
from holdfast_kv.cli import ENGINES, main
from holdfast_kv.client import AsyncClient, Client, Settings
from holdfast_kv.namespace import REQUIRED_FIELDS
from holdfast_kv.protocol import Chain
from holdfast_kv.regions import StagingRegion

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "holdfast_kv"
BLOCK = 4096


def source(module: str) -> ast.Module:
    """The source of a module of the package."""
    return ast.parse((ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8"))


def keywords(module: str, name: str) -> set[str]:
    """The keywords that a class's constructor takes."""
    holder = next(node for node in source(module).body if isinstance(node, ast.ClassDef) and node.name == name)
    init = next(node for node in holder.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return {each.arg for each in (*init.args.args, *init.args.kwonlyargs)}


def settings_of(module: str) -> set[str]:
    """The names that a module's sources ask a configuration for."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / Path(*module.split("."))).parent.glob("*.py"))
    return set(re.findall(r'(?:extra|params|_params)\.get\("(\w+)"', text))


class PackageTest(unittest.TestCase):
    def test_importing_needs_the_standard_library_alone(self) -> None:
        modules = sorted(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in PACKAGE.rglob("*.py")
            if path.parent.name not in ("vllm", "sglang", "lmcache") and path.stem != "__main__"
        )
        self.assertGreater(len(modules), 15)
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "".join(f"import {name}\n" for name in modules)
        program += "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}))"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
        self.assertEqual((done.stderr, done.stdout.strip()), ("", "holdfast_kv"))

    def test_what_is_built_is_all_there_is(self) -> None:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        listed = re.search(r"^packages = (\[.*\])$", text, re.MULTILINE)
        assert listed is not None
        folders = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("*.py")}
        self.assertEqual(set(ast.literal_eval(listed.group(1))), folders)
        self.assertIn(f'version = "{holdfast_kv.__version__}"', text)
        self.assertTrue((PACKAGE / "py.typed").exists())

    # ---- the README

    def test_flags_of_vllm_name_what_is_there(self) -> None:
        tier, connector = readme.configurations("--kv-transfer-config")
        (entry,) = tier["kv_connector_extra_config"]["secondary_tiers"]
        taken = keywords(entry.pop("module_path"), entry.pop("type"))
        self.assertLessEqual(set(entry), taken)
        for name in ("store_namespace", "tenant_salt", "lookup_deadline", "load_deadline", "store_deadline", "enable_kv_events"):
            self.assertIn(name, taken)
            self.assertIn(f"`{name}`", readme.TEXT)
        self.assertIn("self", keywords(connector["kv_connector_module_path"], connector["kv_connector"]))
        asked = settings_of(connector["kv_connector_module_path"])
        self.assertLessEqual(set(connector["kv_connector_extra_config"]) | {"lookup_wait", "hand_over", "staging_bytes"}, asked)

    def test_flags_of_sglang_name_what_is_there(self) -> None:
        (extra,) = readme.configurations("--hicache-storage-backend-extra-config")
        self.assertIn("self", keywords(extra["module_path"], extra["class_name"]))
        self.assertLessEqual({"socket", "staging_bytes"}, settings_of(extra["module_path"]))

    def test_flags_of_lmcache_name_what_is_there(self) -> None:
        (plugin,) = readme.configurations("--l2-adapter")
        self.assertIn("params", keywords(plugin["module_path"], plugin["class_name"]))
        asked = settings_of(plugin["module_path"])
        self.assertLessEqual(set(plugin["adapter_params"]) | {"in_place", "hand_over", "staging_bytes"}, asked)
        text = readme.block("storage_plugins:")
        module, name = (re.search(rf"storage_plugin.holdfast.{what}: (\S+)", text) for what in ("module_path", "class_name"))
        assert module is not None and name is not None
        self.assertIn("config", keywords(module.group(1), name.group(1)))

    def test_versions_are_those_of_the_runs(self) -> None:
        runs = (ROOT.parent / "test-engines").read_text(encoding="utf-8")
        for engine, version in ENGINES.items():
            self.assertIn(f"[{engine}]={version}", runs)
            self.assertIn(f"{engine} {version}", readme.TEXT)


class AgentTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.socket = os.path.join(folder.name, "s")
        self.agent = MemoryAgent(self.socket)
        self.addCleanup(self.agent.stop)

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = main([*arguments, "--socket", self.socket, "--timeout", "15"])
        return code, out.getvalue(), errors.getvalue()

    def engine(self) -> Client:
        fields = dict.fromkeys(REQUIRED_FIELDS, "") | {"block_tokens": "32"}
        client = Client(self.socket, kind="test", store_namespace="n", fields=fields, block_bytes=BLOCK)
        self.addCleanup(client.close)
        self.assertTrue(client.wait_open(15))
        return client

    # ---- the command

    def test_the_doctor_finds_what_is_well(self) -> None:
        code, out, _ = self.run_command("doctor")
        self.assertRegex(out, r"ok +agent +memory, protocol")
        # Nothing was said about blocks: that is for the first engine.
        self.assertRegex(out, r"-- +block +no engine has come yet")
        self.assertEqual([hello.kind for hello in self.agent.hellos], ["visitor"])
        engine = self.engine()
        self.assertRegex(self.run_command("doctor")[1], rf"ok +block +{BLOCK} bytes, 32 tokens; each engine compared one .*: 1 here")
        engine.close()
        self.assertTrue(self.agent.wait(lambda: self.agent.numbers()["engines"] == 0))
        code, out, _ = self.run_command("doctor")
        self.assertRegex(out, rf"ok +block +{BLOCK} bytes, 32 tokens: saved, loaded, equal")
        # A small machine's /dev/shm may be too small; everything else is well.
        self.assertEqual([line for line in out.splitlines() if line.startswith("FAIL") and "/dev/shm" not in line], [])
        self.assertEqual(code, int("FAIL" in out))

    def test_the_doctor_names_what_is_missing(self) -> None:
        self.agent.stop()
        os.unlink(self.socket)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main(["doctor", "--socket", self.socket, "--timeout", "0.1"])
        self.assertEqual(code, 1)
        self.assertIn(f"no socket at {self.socket}: start `holdfast agent`", out.getvalue())

    def test_ping_tells_times(self) -> None:
        code, out, _ = self.run_command("ping", "--count", "3")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^3 answers: fastest \d+ µs, median \d+ µs, slowest \d+ µs$")

    def test_options_that_make_no_sense_are_refused(self) -> None:
        for verb, option, value in (
            ("ping", "--count", "0"), ("ping", "--count", "many"), ("ping", "--timeout", "nan"), ("doctor", "--timeout", "-1"),
            ("bench", "--blocks", "0"), ("bench", "--rounds", "-1"), ("bench", "--block-bytes", "1.5"), ("bench", "--timeout", "inf"),
        ):  # fmt: skip
            with self.assertRaises(SystemExit) as end, contextlib.redirect_stderr(io.StringIO()) as errors:
                main([verb, "--socket", self.socket, f"{option}={value}"])
            self.assertEqual(end.exception.code, 2)
            self.assertRegex(errors.getvalue(), rf"argument {option}: `{value}` is no (whole )?number")
        code, _, errors_of_bench = self.run_command("bench", "--blocks", "1000000", "--block-bytes", str(1 << 30))
        self.assertEqual(code, 1)
        self.assertRegex(errors_of_bench, r"^error: 1000000 blocks of 1073741824 bytes and a copy of them do not fit \d+ bytes")
        self.assertEqual([hello.kind for hello in self.agent.hellos], ["visitor"])

    def test_bench_fails_when_blocks_come_back_damaged(self) -> None:
        size = ("--block-bytes", str(BLOCK))
        code, out, errors = self.run_command("bench", "--blocks", "4", "--rounds", "1", *size)
        self.assertEqual(code, 0, out)
        self.assertIn(f"blocks have {BLOCK} bytes from now on", errors)
        self.agent.blocks.clear()
        self.agent.damages_blocks = True
        code, out, errors = self.run_command("bench", "--blocks", "4", "--rounds", "1")
        self.assertEqual(code, 1, out + errors)

    def test_bench_compares_what_was_kept_where_it_lies(self) -> None:
        # Fewer blocks are kept than were saved: what comes back fills the slots that were handed out first, not the first slots.
        self.agent.kept_max = 3
        code, out, errors = self.run_command("bench", "--blocks", "4", "--rounds", "1", "--block-bytes", "65536")
        self.assertEqual(code, 0, out + errors)
        self.assertIn("3 kept, 3 came back", out)

    # ---- asyncio

    def test_blocks_come_back_in_a_loop(self) -> None:
        fields = dict.fromkeys(REQUIRED_FIELDS, "") | {"block_tokens": "16"}
        client = Client(self.socket, kind="test", store_namespace="n", fields=fields, block_bytes=BLOCK,
                        settings=Settings(lookup_deadline=15.0))  # fmt: skip
        self.addCleanup(client.close)
        self.assertTrue(client.wait_open(15))
        staging = StagingRegion(BLOCK, 4)
        staging.region = client.add_region(staging.memory.fd, staging.memory.length)
        slots = staging.acquire(4) or []
        chain = Chain(tuple(hashlib.sha256(bytes([number])).digest() for number in range(4)))
        written = os.urandom(4 * BLOCK)
        staging.memory.view[:] = written

        async def session() -> None:
            ours = AsyncClient(client)
            self.assertTrue(await ours.ping())
            saved = await ours.save(chain, 0, staging.places(slots))
            self.assertEqual(saved.kept, 0b1111)
            ticket, found = await ours.lookup(chain, prompt_tokens=64)
            self.assertEqual(found.hit_blocks, 4)
            staging.memory.view[:] = bytes(4 * BLOCK)
            loaded = await ours.load(None, 0, staging.places(slots), request=ticket)
            self.assertEqual((loaded.first, loaded.end), (0, 4))
            self.assertEqual((await ours.statistics())["blocks"], 4)
            # A task that is cancelled does not end its job: the places stay the agent's until it says so.
            self.agent.holds = True
            task = asyncio.ensure_future(ours.load(chain, 0, staging.places(slots)))
            while not self.agent.held:
                await asyncio.sleep(0.001)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertEqual(client.open_jobs, 1)
            self.agent.holds = False
            peer, frame = self.agent.held.pop()
            peer.take(frame)
            while client.open_jobs:
                await asyncio.sleep(0.001)

        asyncio.run(asyncio.wait_for(session(), 30))
        self.assertEqual(bytes(staging.memory.view), written)


if __name__ == "__main__":
    unittest.main(verbosity=2)
