"""An agent for tests of clients: the protocol over a real socket, blocks in a dictionary, regions really mapped.

It keeps everything it is offered and loads the leading run that it has. What tests want to go wrong is set as attributes.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import random
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Iterable

from holdfast_kv import protocol as p

Key = tuple[bytes, int, int]


class MemoryAgent:
    """Serves engines on ``path`` until ``stop``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.blocks: dict[Key, bytes] = {}
        #: The blocks that clients check at attach, apart.
        self.canaries: dict[Key, bytes] = {}
        #: How many more times the block that a client checks at attach is not kept.
        self.canaries_missed = 0
        #: The blocks that it keeps of one save, from the first on; the others have no room.
        self.kept_max = 1 << 30
        #: What it gives back has a byte flipped.
        self.damages = False
        #: The same, but for the block that is compared at the attach.
        self.damages_blocks = False
        self.hints: list[p.Frame] = []
        #: Everything that engines said, in order.
        self.heard: list[p.Frame] = []
        self.ends: list[p.Finished] = []
        self.hellos: list[p.Hello] = []
        #: Jobs and look-ups are taken and not answered; a CANCEL answers them, unless ``holds_cancels``.
        self.holds = False
        self.holds_cancels = False
        self.held: list[tuple[_Peer, p.Frame]] = []
        #: Who comes is let in and hears nothing.
        self.is_mute = False
        self.refuses: p.Refused | None = None
        self._number = random.getrandbits(64)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._peers: list[_Peer] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peer = _Peer(self, connection, self._number)
            self._peers.append(peer)
            peer.start()

    def numbers(self) -> dict[str, int]:
        """What it says of itself."""
        engines = [hello for hello in self.hellos if hello.kind != "visitor"]
        numbers = {"blocks": len(self.blocks), "engines": sum(peer.is_engine for peer in self._peers)}
        if engines:
            numbers |= {"block_payload_bytes": engines[0].block_bytes, "block_tokens": engines[0].block_tokens}
        return numbers

    def cut(self) -> None:
        """Cuts all connections, as a crash does; goes on listening."""
        # Who comes back at once is not cut again.
        peers, self._peers = self._peers, []
        for peer in peers:
            peer.cut()

    def drop(self, keys: Iterable[Key]) -> None:
        """Lets blocks go, as an agent does that needs their room, and tells those who want to know."""
        gone = tuple(key for key in keys if self.blocks.pop(key, None) is not None)
        self.tell(p.Changed((), tuple(p.Name(key, group, shard) for key, group, shard in gone)))

    def tell(self, changed: p.Changed) -> None:
        """Tells subscribers what came and went."""
        for peer in self._peers:
            if peer.is_subscribed:
                peer.say(changed)

    def acknowledge(self) -> None:
        """Answers what was cancelled while ``holds_cancels``."""
        self.holds_cancels = False
        cancelled = {frame.ticket for frame in self.heard if isinstance(frame, p.Cancel)}
        held, self.held = self.held, []
        for peer, job in held:
            if job.ticket in cancelled:
                peer.say(p.Cancelled(job.ticket))
            else:
                self.held.append((peer, job))

    def recall(self, loan: p.Loan) -> None:
        """Ends a loan before its engine does."""
        for peer in self._peers:
            if peer.arena is not None:
                peer.arena.end(loan)

    def stop(self) -> None:
        """Ends, and nobody listens any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def wait(self, condition: object, timeout: float = 30.0) -> bool:
        """Waits until a condition (a function) holds."""
        deadline = time.monotonic() + timeout
        while not condition():  # type: ignore[operator]
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True


class _Arena:
    """Slots that one engine maps. What it commits goes to the dictionary, what it takes is brought here."""

    def __init__(self, block_bytes: int, writable: bool, slots: int = 64) -> None:
        size = -(-block_bytes // 4096) * 4096
        self.shape = p.ArenaOpened(size, size * slots, slots, 256, 60_000_000_000, writable)
        self.block_bytes = block_bytes
        self.fd, self.words_fd = (os.memfd_create(name) for name in ("arena", "words"))
        os.ftruncate(self.fd, self.shape.length)
        os.ftruncate(self.words_fd, 8 * self.shape.loans)
        self.view = memoryview(mmap.mmap(self.fd, self.shape.length))
        self.words = memoryview(mmap.mmap(self.words_fd, 8 * self.shape.loans)).cast("Q")
        self.free = list(range(slots))
        self.loans: dict[int, list[int]] = {}

    def row(self, slot: int) -> memoryview:
        return self.view[slot * self.shape.slot_bytes :][: self.block_bytes]

    def take(self, count: int) -> list[int]:
        taken, self.free = self.free[:count], self.free[count:]
        return taken

    def lend(self, slots: list[int]) -> p.Loan:
        number = next(number for number in range(self.shape.loans) if number not in self.loans)
        self.loans[number] = slots
        self.words[number] += 1
        return p.Loan(number, self.words[number])

    def end(self, loan: p.Loan) -> bool:
        if self.words[loan.number] != loan.generation:
            return False
        self.words[loan.number] += 1
        self.free += self.loans.pop(loan.number)
        return True

    def hand_in(self, loan: p.Loan, slots: tuple[int, ...]) -> bool:
        if self.words[loan.number] != loan.generation or not set(slots) <= set(self.loans[loan.number]):
            return False
        self.loans[loan.number] = [slot for slot in self.loans[loan.number] if slot not in slots]
        self.free += slots
        if not self.loans[loan.number]:
            self.end(loan)
        return True


class _Peer(threading.Thread):
    def __init__(self, agent: MemoryAgent, connection: socket.socket, number: int) -> None:
        super().__init__(daemon=True)
        self.agent = agent
        self.connection = connection
        self.number = number
        self.regions: dict[int, mmap.mmap] = {}
        self.requests: dict[int, p.AnyChain] = {}
        self.descriptors: list[int] = []
        self.is_subscribed = False
        self.is_engine = False
        self.block_bytes = 0
        self.arena: _Arena | None = None

    def say(self, frame: p.Frame) -> None:
        with contextlib.suppress(OSError):
            self.connection.sendall(p.encode(frame))

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        splitter = p.Splitter()
        with contextlib.suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self.connection, 1 << 16, 4)
                self.descriptors += descriptors
                if not data:
                    break
                for frame in splitter.feed(data):
                    self.take(frame)
        self.is_engine = False
        self.connection.close()

    def take(self, frame: p.Frame) -> None:
        agent = self.agent
        agent.heard.append(frame)
        if agent.is_mute:
            return
        if agent.holds and isinstance(frame, (p.LookUp, p.Load, p.Save, p.Take, p.Commit)):
            agent.held.append((self, frame))
        elif isinstance(frame, p.Hello):
            agent.hellos.append(frame)
            self.block_bytes = frame.block_bytes
            self.is_engine = frame.kind != "visitor"
            self.say(agent.refuses or p.Welcome(1, self.number, program="memory"))
        elif isinstance(frame, p.RegionAdd):
            fd = self.descriptors.pop(0)
            self.regions[frame.region] = mmap.mmap(fd, frame.length)
            os.close(fd)
            self.say(p.RegionAdded(frame.region))
        elif isinstance(frame, p.RegionDrop):
            self.regions.pop(frame.region).close()
            self.say(p.RegionDropped(frame.region))
        elif isinstance(frame, p.LookUp):
            self.requests[frame.ticket] = frame.chain
            hits = self.run_of(frame.chain, 0, len(frame.chain.keys))
            self.say(p.Found(frame.ticket, hits, 0, hits))
        elif isinstance(frame, p.Load):
            self.load(frame)
        elif isinstance(frame, p.Save):
            self.save(frame)
        elif isinstance(frame, p.Arena):
            self.arena = _Arena(self.block_bytes, frame.writable)
            descriptors = [self.arena.fd, self.arena.words_fd]
            socket.send_fds(self.connection, [p.encode(self.arena.shape)], descriptors)
        elif isinstance(frame, (p.Take, p.Reserve, p.Commit, p.Release)):
            assert self.arena is not None
            self.say(self.hand_over(frame, self.arena))
        elif isinstance(frame, p.Finished):
            agent.ends.append(frame)
            self.requests.pop(frame.ticket, None)
        elif isinstance(frame, p.Cancel):
            if not agent.holds_cancels:
                agent.held = [(peer, job) for peer, job in agent.held if job.ticket != frame.ticket]
                self.say(p.Cancelled(frame.ticket))
        elif isinstance(frame, p.Pin):
            held = self.run_of(frame.chain, 0, len(frame.chain.keys))
            outcome = p.PinOutcome.GRANTED if held else p.PinOutcome.NOTHING_HERE
            self.say(p.Pinned(frame.ticket, outcome, held))
        elif isinstance(frame, p.Stats):
            self.say(p.Statistics(frame.ticket, agent.numbers()))
        elif isinstance(frame, p.Ping):
            self.say(p.Pong(frame.ticket, frame.payload))
        elif isinstance(frame, p.Subscribe):
            self.is_subscribed = True
        elif isinstance(frame, p.Goodbye):
            self.cut()
        else:
            agent.hints.append(frame)

    def table(self, chain: p.AnyChain) -> dict[Key, bytes]:
        return self.agent.canaries if chain.group == 0xFFFF else self.agent.blocks

    def run_of(self, chain: p.AnyChain, first: int, end: int) -> int:
        count = 0
        for key in chain.keys[first:end]:
            if (key, chain.group, chain.shard) not in self.table(chain):
                break
            count += 1
        return count

    def load(self, job: p.Load) -> None:
        chain = job.chain if job.chain.keys else self.requests[job.request]
        count = self.run_of(chain, job.first, job.first + job.places.blocks)
        slices = job.places.slices
        size = 0
        for index in range(count):
            block = self.table(chain)[(chain.keys[job.first + index], chain.group, chain.shard)]
            if self.agent.damages or (self.agent.damages_blocks and chain.group != 0xFFFF):
                block = bytes([block[0] ^ 1]) + block[1:]
            for region, offset, length in slices[index * job.places.segments : (index + 1) * job.places.segments]:
                self.regions[region][offset : offset + length] = block[:length]
                block = block[length:]
                size += length
        self.say(p.Loaded(job.ticket, job.first, job.first + count, size, 1))

    def hand_over(self, frame: p.Take | p.Reserve | p.Commit | p.Release, arena: _Arena) -> p.Frame:
        if isinstance(frame, p.Reserve):
            slots = arena.take(frame.slots)
            return p.Reserved(frame.ticket, arena.lend(slots), 1, tuple(slots)) if slots else p.Reserved(frame.ticket)
        if isinstance(frame, p.Release):
            return p.Released(frame.ticket, arena.end(frame.loan))
        chain = frame.chain
        if isinstance(frame, p.Commit):
            kept = arena.hand_in(frame.loan, frame.slots)
            for key, slot in zip(chain.keys[frame.first :], frame.slots, strict=True):
                if kept:
                    self.table(chain)[(key, chain.group, chain.shard)] = bytes(arena.row(slot))
            self.agent.tell(p.Changed(tuple(p.Name(key, chain.group, chain.shard) for key in chain.keys[frame.first :])))
            count = len(frame.slots)
            return p.Committed(frame.ticket, count, (1 << count) - 1 if kept else 0, count * self.block_bytes, 1)
        chain = chain if chain.keys else self.requests[frame.request]
        slots = arena.take(self.run_of(chain, frame.first, frame.first + frame.blocks))
        for index, slot in enumerate(slots):
            block = self.table(chain)[(chain.keys[frame.first + index], chain.group, chain.shard)]
            arena.row(slot)[: len(block)] = block
        if not slots:
            return p.Taken(frame.ticket, frame.first)
        return p.Taken(frame.ticket, frame.first, arena.lend(slots), 1, tuple((slot, 0) for slot in slots))

    def save(self, job: p.Save) -> None:
        slices = job.places.slices
        size = 0
        if job.chain.group == 0xFFFF and self.agent.canaries_missed > 0:
            self.agent.canaries_missed -= 1
            return self.say(p.Saved(job.ticket, job.places.blocks, 0, 0, 1))
        kept = min(job.places.blocks, self.agent.kept_max)
        for index in range(kept):
            parts = slices[index * job.places.segments : (index + 1) * job.places.segments]
            block = b"".join(self.regions[region][offset : offset + length] for region, offset, length in parts)
            self.table(job.chain)[(job.chain.keys[job.first + index], job.chain.group, job.chain.shard)] = block
            size += len(block)
        chain = job.chain
        if chain.group != 0xFFFF:
            agent = self.agent
            saved = chain.keys[job.first : job.first + kept]
            agent.tell(p.Changed(tuple(p.Name(key, chain.group, chain.shard) for key in saved)))
        self.say(p.Saved(job.ticket, job.places.blocks, (1 << kept) - 1, size, 1))


class AgentTest(unittest.TestCase):
    """Tests with an agent in memory of their own, ``agent``, at ``socket``; what the package logs is not shown."""

    def setUp(self) -> None:
        logging.getLogger("holdfast_kv").setLevel(logging.CRITICAL)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.socket = os.path.join(folder.name, "s")
        self.agent = MemoryAgent(self.socket)
        self.addCleanup(self.agent.stop)
