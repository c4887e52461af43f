"""An agent for tests of clients: the protocol over a real socket, blocks in a dictionary, regions really mapped.

It keeps everything it is offered and loads the leading run that it has. What tests want to go wrong is set as attributes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import socket
import threading
import time
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
        #: What it gives back has a byte flipped.
        self.damages = False
        self.hints: list[p.Frame] = []
        self.ends: list[p.Finished] = []
        self.hellos: list[p.Hello] = []
        #: Jobs and look-ups are taken and not answered; a CANCEL answers them, unless ``holds_cancels``.
        self.holds = False
        self.holds_cancels = False
        self.held: list[tuple[_Peer, p.Frame]] = []
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

    def cut(self) -> None:
        """Cuts all connections, as a crash does; goes on listening."""
        for peer in self._peers:
            peer.cut()
        self._peers.clear()

    def drop(self, keys: Iterable[Key]) -> None:
        """Lets blocks go, as an agent does that needs their room, and tells those who want to know."""
        gone = tuple(key for key in keys if self.blocks.pop(key, None) is not None)
        self.tell(p.Changed((), tuple(p.Name(key, group, shard) for key, group, shard in gone)))

    def tell(self, changed: p.Changed) -> None:
        """Tells subscribers what came and went."""
        for peer in self._peers:
            if peer.is_subscribed:
                peer.say(changed)

    def stop(self) -> None:
        """Ends, and nobody listens any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def wait(self, condition: object, timeout: float = 5.0) -> bool:
        """Waits until a condition (a function) holds."""
        deadline = time.monotonic() + timeout
        while not condition():  # type: ignore[operator]
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
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
        self.connection.close()

    def take(self, frame: p.Frame) -> None:
        agent = self.agent
        if agent.holds and isinstance(frame, (p.LookUp, p.Load, p.Save)):
            agent.held.append((self, frame))
        elif isinstance(frame, p.Hello):
            agent.hellos.append(frame)
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
            self.say(p.Statistics(frame.ticket, {"blocks": len(agent.blocks)}))
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
            if self.agent.damages:
                block = bytes([block[0] ^ 1]) + block[1:]
            for region, offset, length in slices[index * job.places.segments : (index + 1) * job.places.segments]:
                self.regions[region][offset : offset + length] = block[:length]
                block = block[length:]
                size += length
        self.say(p.Loaded(job.ticket, job.first, job.first + count, size, 1))

    def save(self, job: p.Save) -> None:
        slices = job.places.slices
        size = 0
        for index in range(job.places.blocks):
            parts = slices[index * job.places.segments : (index + 1) * job.places.segments]
            block = b"".join(self.regions[region][offset : offset + length] for region, offset, length in parts)
            self.table(job.chain)[(job.chain.keys[job.first + index], job.chain.group, job.chain.shard)] = block
            size += len(block)
        chain = job.chain
        if chain.group != 0xFFFF:
            agent = self.agent
            agent.tell(p.Changed(tuple(p.Name(key, chain.group, chain.shard) for key in chain.keys[job.first :])))
        self.say(p.Saved(job.ticket, job.places.blocks, (1 << job.places.blocks) - 1, size, 1))
