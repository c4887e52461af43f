"""Engines, agents and a store as processes: who shares what with whom, byte for byte, and what a killed one takes along."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any

from engine_process import FIELDS, chain_of
from processes import WHY_NOT, AgentProcess, Certificates, StoreProcess, program

from holdfast_kv.cli import main
from holdfast_kv.client import Client
from holdfast_kv.protocol import Chain, Changed, Ownership
from holdfast_kv.regions import StagingRegion

BLOCK = 65_536


class EngineProcess:
    """An engine of ``engine_process.py``."""

    def __init__(self, socket: str, arena: str | None = None) -> None:
        script = str(Path(__file__).with_name("engine_process.py"))
        self.process = subprocess.Popen(
            [sys.executable, script, socket, str(BLOCK)] + ([] if arena is None else [arena]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, what: str, **order: Any) -> Any:
        """Gives an order and waits for the answer."""
        self.begin(what, **order)
        return self.end()

    def begin(self, what: str, **order: Any) -> None:
        """Gives an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what} | order) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        """The answer to the oldest order."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """Ends it as a crash does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@unittest.skipUnless(program(), WHY_NOT)
class ProcessesTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def agent(self, name: str = "agent", **more: Any) -> AgentProcess:
        agent = AgentProcess(self.folder, name, **more)
        self.addCleanup(agent.kill)
        return agent

    def engine(self, agent: AgentProcess, arena: str | None = None) -> EngineProcess:
        engine = EngineProcess(agent.socket, arena)
        self.addCleanup(engine.kill)
        self.assertEqual(engine.do("wait"), {"open": True})
        return engine

    def await_numbers(self, engine: EngineProcess, **wanted: int) -> Any:
        """Waits until the agent's numbers are as wanted; they are told some milliseconds late."""
        deadline = time.monotonic() + 20
        while True:
            numbers = engine.do("numbers")
            if all(numbers[name] == value for name, value in wanted.items()):
                return numbers
            self.assertLess(time.monotonic(), deadline, f"{numbers} are not {wanted}")
            time.sleep(0.01)

    def test_both_halves_of_an_engine_compare_a_block_when_they_come_at_once(self) -> None:
        agent = self.agent(dram="8MiB")
        for number in range(8):
            fields = FIELDS | {"tenant_salt": str(number)}
            halves = [
                Client(agent.socket, kind="test", store_namespace="processes", fields=fields, block_bytes=BLOCK,
                       ownership=Ownership.HOST, arena=arena)
                for arena in (None, "writing")
            ]  # fmt: skip
            for half in halves:
                self.assertTrue(half.wait_open(30))
            self.assertEqual([half.checked for half in halves], [True, True], f"round {number}")
            for half in halves:
                half.close(20)

    def command(self, agent: AgentProcess, *arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main([*arguments, "--socket", agent.socket, "--timeout", "20", "--store-namespace", "processes"])
        return code, out.getvalue()

    def doctor_says(self, agent: AgentProcess, pattern: str) -> None:
        """Waits until the doctor says it; the agent's numbers are told some milliseconds late."""
        deadline = time.monotonic() + 60
        while not re.search(pattern, seen := self.command(agent, "doctor")[1]):
            self.assertLess(time.monotonic(), deadline, f"{pattern} is not in {seen}")

    def test_who_asks_how_the_agent_is_decides_nothing_about_its_blocks(self) -> None:
        agent = self.agent()
        self.doctor_says(agent, "-- +block +no engine has come yet")
        self.assertEqual(self.command(agent, "ping", "--count", "3")[0], 0)
        engine = self.engine(agent)
        self.assertEqual(engine.do("save", chain="h", count=4), {"kept": 4})
        self.doctor_says(agent, rf"ok +block +{BLOCK} bytes, 16 tokens; each engine compared one .*: 1 here")
        code, seen = self.command(agent, "bench", "--blocks", "4", "--rounds", "1")
        # Its namespace is not that of the engine which is here.
        self.assertEqual((code, "engine: holdfast-kv | test" in seen), (1, True), seen)
        engine.kill()
        self.doctor_says(agent, rf"ok +block +{BLOCK} bytes, 16 tokens: saved, loaded, equal")
        deadline = time.monotonic() + 60
        while self.command(agent, "bench", "--blocks", "4", "--rounds", "1")[0] != 0:
            self.assertLess(time.monotonic(), deadline, "the agent is not free for a bench")

    def test_two_engines_share_what_one_agent_keeps(self) -> None:
        agent = self.agent()
        first, second = self.engine(agent), self.engine(agent)
        self.assertEqual(second.do("look_up", chain="a", count=20), {"hits": 0})
        self.assertEqual(first.do("save", chain="a", count=20), {"kept": 20})
        self.assertEqual(second.do("look_up", chain="a", count=24), {"hits": 20})
        self.assertEqual(second.do("load", chain="a", count=20), {"came": 20, "right": 20})
        # What an engine saved outlives it.
        first.kill()
        self.assertEqual(second.do("load", chain="a", count=20), {"came": 20, "right": 20})

    def test_a_second_agent_hits_what_the_first_one_saved(self) -> None:
        store = StoreProcess(self.folder)
        self.addCleanup(store.kill)
        near, far = self.agent("near", store=store), self.agent("far", store=store)
        here, there = self.engine(near), self.engine(far)
        self.assertEqual(here.do("save", chain="b", count=16), {"kept": 16})
        deadline = time.monotonic() + 20
        while (found := there.do("look_up", chain="b", count=16)) != {"hits": 16}:
            self.assertLess(time.monotonic(), deadline, f"the store never has all of it: {found}")
            time.sleep(0.05)
        self.assertEqual(there.do("load", chain="b", count=16), {"came": 16, "right": 16})
        # And without the agent that saved it.
        near.kill()
        self.assertEqual(there.do("load", chain="b", count=16), {"came": 16, "right": 16})

    def test_a_subscriber_hears_what_its_agent_keeps_and_what_it_drops_by_itself(self) -> None:
        # 2 MiB are 32 blocks, 28 of them for good; the first to come is the first to go.
        agent = self.agent(dram="2MiB", more=["--set", "policy=lru"])
        heard: list[Changed] = []
        staging = StagingRegion(BLOCK, 8)
        client = Client(agent.socket, kind="test", store_namespace="processes", fields=FIELDS, block_bytes=BLOCK,
                        on_changed=heard.append)  # fmt: skip
        self.addCleanup(client.close, 1.0)
        self.assertTrue(client.wait_open(20))
        staging.region = client.add_region(staging.memory.fd, staging.memory.length)
        slots = staging.acquire(8) or []
        kept: set[bytes] = set()
        deadline = time.monotonic() + 20
        number = 0
        while not any(changed.removed for changed in list(heard)):
            self.assertLess(time.monotonic(), deadline, f"nobody hears of what {number} prompts pushed out")
            chain = chain_of({"chain": f"subscriber {number}", "count": 8})
            saved = client.save(chain, 0, staging.places(slots)).result()
            kept |= {key for at, key in enumerate(chain.keys) if saved.is_kept(at)}
            number += 1
        added = {name.key for changed in heard for name in changed.added}
        removed = {name.key for changed in heard for name in changed.removed}
        self.assertGreater(number, 3)
        self.assertLessEqual(removed, added)
        self.assertLessEqual(removed, kept | {name.key for changed in heard for name in changed.added if name.group == 0xFFFF})
        for key in removed & kept:
            ticket, found = client.lookup(Chain((key,)), prompt_tokens=16)
            self.assertEqual(found.result().hit_blocks, 0)
            client.finished(ticket)

    def test_a_block_is_a_hit_only_if_every_rank_has_its_part(self) -> None:
        agent = self.agent()
        ranks = [self.engine(agent) for _ in range(4)]
        for rank, engine in enumerate(ranks):
            count = 5 if rank == 2 else 8
            saved = engine.do("save", chain="c", count=count, shard=rank, shards=4)
            self.assertEqual(saved, {"kept": count})
        # As a scheduler asks: once for each part, and the shortest answer counts.
        hits = [ranks[0].do("look_up", chain="c", count=8, shard=rank, shards=4)["hits"] for rank in range(4)]
        self.assertEqual(hits, [8, 8, 5, 8])
        for rank, engine in enumerate(ranks):
            loaded = engine.do("load", chain="c", count=min(hits), shard=rank, shards=4)
            self.assertEqual(loaded, {"came": 5, "right": 5}, f"rank {rank}")
        # Another number of ranks is another layout: nothing of it is found.
        self.assertEqual(ranks[0].do("look_up", chain="c", count=8, shard=0, shards=2), {"hits": 0})

    def test_what_one_engine_writes_in_place_another_reads_in_place_and_nothing_is_copied(self) -> None:
        agent = self.agent()
        writer, reader = self.engine(agent, "writing"), self.engine(agent, "reading")
        self.assertEqual(reader.do("take", chain="e", count=24), {"came": 0, "right": 0, "in_force": False})
        self.assertEqual(writer.do("write", chain="e", count=24), {"kept": 24})
        for verify in (True, False):
            taken = reader.do("take", chain="e", count=30, verify=verify)
            self.assertEqual(taken, {"came": 24, "right": 24, "in_force": True})
        # A reader cannot write, and its reservation is none.
        self.assertEqual(reader.do("reserve", count=4), {"slots": 0})
        numbers = self.await_numbers(
            reader, handover_bytes_adopted_total=24 * BLOCK, handover_bytes_lent_total=48 * BLOCK, handover_loaned_bytes=0
        )
        self.assertEqual((numbers["bytes_into_engine_total"], numbers["bytes_out_of_engine_total"]), (0, 0))

    def test_a_killed_engines_leases_and_reservations_come_back(self) -> None:
        agent = self.agent()
        victim, other = self.engine(agent, "writing"), self.engine(agent, "writing")
        self.assertEqual(victim.do("write", chain="f", count=20), {"kept": 20})
        self.assertEqual(victim.do("take", chain="f", count=20, keep=True)["in_force"], True)
        self.assertEqual(victim.do("reserve", count=30), {"slots": 30})
        self.await_numbers(other, handover_loaned_bytes=50 * BLOCK)
        victim.kill()
        self.await_numbers(other, handover_loaned_bytes=0, handover_loans_orphaned_total=2)
        self.assertEqual(other.do("take", chain="f", count=20), {"came": 20, "right": 20, "in_force": True})

    def test_a_lease_held_too_long_ends_and_its_reader_sees_it(self) -> None:
        agent = self.agent()
        engine = self.engine(agent, "writing")
        self.assertEqual(engine.do("write", chain="g", count=8), {"kept": 8})
        self.assertEqual(engine.do("take", chain="g", count=8, lifetime=0.05, keep=True)["right"], 8)
        self.assertEqual(engine.do("reserve", count=8, lifetime=0.05), {"slots": 8})
        deadline = time.monotonic() + 20
        while engine.do("in_force") != {"in_force": 0, "kept": 2}:
            self.assertLess(time.monotonic(), deadline, "a loan outlives its time")
            time.sleep(0.01)
        self.await_numbers(engine, handover_loans_expired_total=2)
        # When the agent dies, what was lent stays readable: nobody uses its memory any more.
        self.assertEqual(engine.do("take", chain="g", count=8, keep=True)["right"], 8)
        agent.kill()
        self.assertEqual(engine.do("in_force"), {"in_force": 1, "kept": 3})

    def test_agents_share_a_store_that_trusts_certificates_alone(self) -> None:
        certificates = Certificates(self.folder)
        with StoreProcess(self.folder, tls=certificates) as process:
            store: Any = process
            first, second = (
                self.engine(self.agent(name, store=store, more=certificates.of_agent("agent"))) for name in ("a", "b")
            )
            self.assertEqual(first.do("save", chain="t", count=24), {"kept": 24})
            # What is saved goes to the store behind the engine's back.
            deadline = time.monotonic() + 60
            while second.do("look_up", chain="t", count=24) != {"hits": 24}:
                self.assertLess(time.monotonic(), deadline, "the other agent does not find it")
                time.sleep(0.01)
            self.assertEqual(second.do("load", chain="t", count=24), {"came": 24, "right": 24})
            # Nobody without a certificate of the authority gets in, and goes on by himself.
            for name, certificate in (("none", None), ("stranger", "stranger")):
                engine = self.engine(self.agent(name, store=store, more=certificates.of_agent(certificate)))
                while engine.do("numbers")["store_lost_total"] == 0:
                    self.assertLess(time.monotonic(), deadline, "the store has not refused it")
                    time.sleep(0.01)
                self.assertEqual(engine.do("look_up", chain="t", count=24), {"hits": 0})
                self.assertEqual(engine.do("save", chain="u", count=4), {"kept": 4})
                self.assertEqual(engine.do("load", chain="u", count=4), {"came": 4, "right": 4})
            numbers = second.do("numbers")
            self.assertEqual((numbers["bytes_store_get_total"], numbers["store_lost_total"]), (24 * BLOCK, 0))
            self.assertEqual(second.do("look_up", chain="u", count=4), {"hits": 0})

    def test_engines_go_on_when_their_agent_is_killed_and_use_the_next_one(self) -> None:
        agent = self.agent()
        engines = [self.engine(agent) for _ in range(2)]
        self.assertEqual(engines[0].do("save", chain="d", count=32), {"kept": 32})
        whole, nothing = {"came": 32, "right": 32}, {"came": 0, "right": 0}
        outcomes: list[Any] = []
        timer: threading.Timer | None = None
        deadline = time.monotonic() + 60
        # Killed in the middle of loads, once some have come; until one comes to nothing.
        while timer is None or nothing not in outcomes:
            self.assertLess(time.monotonic(), deadline, f"{outcomes[-4:]}")
            for engine in engines:
                engine.begin("load", chain="d", count=32)
            outcomes += [engine.end() for engine in engines]
            if timer is None and whole in outcomes:
                timer = threading.Timer(0.02, agent.kill)
                timer.start()
        timer.join()
        self.assertEqual([each for each in outcomes if each["came"] != each["right"]], [])
        again = self.agent()
        for engine in engines:
            self.assertEqual(engine.do("wait"), {"open": True})
        self.assertEqual(engines[1].do("look_up", chain="d", count=32), {"hits": 0})
        self.assertEqual(engines[1].do("save", chain="d", count=32), {"kept": 32})
        self.assertEqual(engines[0].do("load", chain="d", count=32), {"came": 32, "right": 32})
        self.assertIsNone(again.process.poll())


if __name__ == "__main__":
    unittest.main(verbosity=2)
