"""What the connectors share: look-ups asked key by key, and jobs that move blocks, made into chains and runs.

Engines ask for one key after another on their scheduler's thread and want an answer at once. A ``Tier`` answers *ask again*,
sends one look-up a request when the step ends, and knows the answer at the next step. It holds no policy and never
touches a block's bytes. Nothing in it waits, but ``drain``.

Its methods are called by one thread at a time, whichever that is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from .client import Client
from .namespace import EngineKeys
from .protocol import KEYS_MAX, Chain, Found, Loaded, Places, Saved, StopReason

Slice = tuple[int, int, int]
"""Where a part of a block lies: region, offset, length."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a job: the engine's hash of it, its group of layers, and its slices in the order of its bytes."""

    hash: bytes
    slices: tuple[Slice, ...]
    group: int = 0


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The end of a job. Its places are the engine's again."""

    job: int
    #: Which of its blocks came through, by their index in the job, rising.
    done: tuple[int, ...]
    count: int
    size: int
    seconds: float

    @property
    def is_whole(self) -> bool:
        """Whether all of it came through."""
        return len(self.done) == self.count


@dataclass(slots=True)
class _Chain:
    """The keys of one request and group in the order in which the engine named them."""

    group: int
    keys: list[bytes] = field(default_factory=list)
    index: dict[bytes, int] = field(default_factory=dict)
    #: None: not known yet.
    verdicts: list[bool | None] = field(default_factory=list)
    #: Keys that the latest look-up asked for, and its answer.
    asked: int = 0
    answer: Future[Found] | None = None
    tickets: list[int] = field(default_factory=list)

    def settle(self) -> None:
        """Takes the answer in if it has come."""
        if self.answer is None or not self.answer.done():
            return
        hits = self.answer.result().hit_blocks
        self.answer = None
        for place in range(self.asked):
            if self.verdicts[place] is None:
                self.verdicts[place] = place < hits


@dataclass(slots=True)
class _Request:
    session: int
    turn: int
    chains: dict[int, _Chain] = field(default_factory=dict)


@dataclass(slots=True)
class _Run:
    """Neighbours in a chain that move together, as one job of the agent."""

    future: Future[Loaded] | Future[Saved]
    first: int
    #: Their indexes in the engine's job, in chain order.
    members: list[int]


@dataclass(slots=True)
class _Job:
    number: int
    count: int
    size: int
    begun: float
    runs: list[_Run]
    #: Of a load: whose verdicts change when it fails.
    loaded: list[tuple[_Chain, int]] | None


class Tier:
    """Chains, verdicts and jobs of one engine process."""

    def __init__(self, client: Client, digest: bytes, *, shard: int = 0, shards: int = 1, block_tokens: int = 1) -> None:
        self.client: Final = client
        self._keys = EngineKeys(digest)
        self._shard = shard
        self._shards = shards
        self._block_tokens = block_tokens
        self._requests: dict[str, _Request] = {}
        #: Chains with keys that were not asked for yet.
        self._unasked: dict[tuple[str, int], _Chain] = {}
        self._jobs: dict[int, _Job] = {}
        self._ended: list[JobEnd] = []

    # ---- requests

    def begin(self, request: str, *, session: int = 0, turn: int = -1) -> None:
        """A request was seen for the first time."""
        self._requests.setdefault(request, _Request(session, turn))

    def look_up(self, request: str, key: bytes, group: int = 0) -> bool | None:
        """Whether a block can be loaded; None: ask again at the next step. Costs no call into the kernel."""
        chain = self._chain(request, group)
        place = chain.index.get(key)
        if place is None:
            if not self.client.is_open or len(chain.keys) >= KEYS_MAX:
                return False
            place = self._append(chain, key)
            self._unasked[(request, group)] = chain
        verdict = chain.verdicts[place]
        if verdict is None and chain.answer is not None:
            chain.settle()
            verdict = chain.verdicts[place]
        return verdict

    def flush(self) -> None:
        """The step is over: asks for what was named in it, one look-up a request and group."""
        if not self._unasked:
            return
        for name, chain in list(self._unasked.items()):
            chain.settle()
            if chain.answer is not None:
                continue
            del self._unasked[name]
            owner = self._requests.get(name[0])
            ticket, chain.answer = self.client.lookup(
                self._wire(chain),
                prompt_tokens=len(chain.keys) * self._block_tokens,
                session=owner.session if owner else 0,
                turn=owner.turn if owner else -1,
            )
            chain.asked = len(chain.keys)
            chain.tickets.append(ticket)

    def finished(
        self,
        request: str,
        *,
        reason: StopReason = StopReason.UNKNOWN,
        cached_tokens: int = -1,
        time_to_first_token: float = 0.0,
        answer_tokens: int = 0,
    ) -> None:
        """A request's end. Its jobs go on to theirs."""
        owner = self._requests.pop(request, None)
        if owner is None:
            return
        for group, chain in owner.chains.items():
            self._unasked.pop((request, group), None)
            for ticket in chain.tickets:
                self.client.finished(
                    ticket,
                    reason=reason,
                    cached_tokens=cached_tokens,
                    time_to_first_token=time_to_first_token,
                    answer_tokens=answer_tokens,
                )

    def touch(self, keys: Sequence[bytes], group: int = 0) -> None:
        """Blocks were used without being asked for."""
        if keys and self.client.is_open:
            self.client.touch(Chain(tuple(self._keys(key) for key in keys[:KEYS_MAX]), group, self._shard, self._shards))

    # ---- jobs

    def load(self, job: int, request: str, blocks: Sequence[Block], *, deadline: float | None = None) -> None:
        """Brings blocks to their places; ``ended`` tells the end, whatever happens."""
        runs: list[_Run] = []
        loaded: list[tuple[_Chain, int]] = [(chain := self._chain(request, block.group), self._place(chain, block.hash))
                                            for block in blocks]  # fmt: skip
        for chain, members, first in self._runs(request, blocks):
            # The first run is the request's own load; what lies behind a gap is a job of its own.
            ticket = chain.tickets[-1] if chain.tickets and not runs and first + len(members) <= chain.asked else 0
            keys = None if ticket else self._wire(chain, first + len(members))
            places = Places.of([part for member in members for part in blocks[member].slices], len(blocks[0].slices))
            future = self.client.load(keys, first, places, request=ticket, deadline=deadline)
            runs.append(_Run(future, first, members))
        self._begin(job, blocks, runs, loaded)

    def save(
        self, job: int, request: str, blocks: Sequence[Block], *, eviction_class: int = 0, deadline: float | None = None
    ) -> None:
        """Offers blocks; their places stay as they are until ``ended`` tells the end."""
        runs: list[_Run] = []
        for chain, members, first in self._runs(request, blocks):
            places = Places.of([part for member in members for part in blocks[member].slices], len(blocks[0].slices))
            future = self.client.save(
                self._wire(chain, first + len(members)),
                first,
                places,
                request=chain.tickets[-1] if chain.tickets else 0,
                eviction_class=eviction_class,
                deadline=deadline,
            )
            runs.append(_Run(future, first, members))
        self._begin(job, blocks, runs, None)

    def ended(self) -> list[JobEnd]:
        """The jobs that have ended since the last call, each once."""
        for number, job in list(self._jobs.items()):
            if all(run.future.done() for run in job.runs):
                del self._jobs[number]
                self._ended.append(self._end(job))
        ended, self._ended = self._ended, []
        return ended

    @property
    def open_jobs(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until every job has ended; each has a deadline, so this does. ``ended`` tells of them afterwards."""
        limit = None if timeout is None else time.monotonic() + timeout
        for job in self._jobs.values():
            for run in job.runs:
                left = None if limit is None else max(0.0, limit - time.monotonic())
                try:
                    run.future.exception(left)
                except TimeoutError:
                    return False
        return True

    # ---- inside

    def _chain(self, request: str, group: int) -> _Chain:
        owner = self._requests.get(request)
        if owner is None:
            owner = self._requests[request] = _Request(0, -1)
        chain = owner.chains.get(group)
        if chain is None:
            chain = owner.chains[group] = _Chain(group)
        return chain

    def _append(self, chain: _Chain, key: bytes) -> int:
        place = chain.index[key] = len(chain.keys)
        chain.keys.append(self._keys(key))
        chain.verdicts.append(None)
        return place

    def _place(self, chain: _Chain, key: bytes) -> int:
        place = chain.index.get(key)
        return self._append(chain, key) if place is None else place

    def _wire(self, chain: _Chain, end: int | None = None) -> Chain:
        return Chain(tuple(chain.keys if end is None else chain.keys[:end]), chain.group, self._shard, self._shards)

    def _runs(self, request: str, blocks: Sequence[Block]) -> Iterable[tuple[_Chain, list[int], int]]:
        """Neighbours of a chain: the chain, their indexes in the job in chain order, the place of the first."""
        by_group: dict[int, list[tuple[int, int]]] = {}
        for member, block in enumerate(blocks):
            place = self._place(self._chain(request, block.group), block.hash)
            by_group.setdefault(block.group, []).append((place, member))
        for group, placed in by_group.items():
            chain = self._chain(request, group)
            placed.sort()
            start = 0
            for at in range(1, len(placed) + 1):
                if at == len(placed) or placed[at][0] != placed[at - 1][0] + 1:
                    yield chain, [member for _, member in placed[start:at]], placed[start][0]
                    start = at

    def _begin(
        self, job: int, blocks: Sequence[Block], runs: list[_Run], loaded: list[tuple[_Chain, int]] | None
    ) -> None:
        size = sum(part[2] for block in blocks for part in block.slices)
        self._jobs[job] = _Job(job, len(blocks), size, time.monotonic(), runs, loaded)

    @staticmethod
    def _end(job: _Job) -> JobEnd:
        done: list[int] = []
        for run in job.runs:
            result = run.future.result()
            if isinstance(result, Loaded):
                end = max(0, result.end - run.first) if result.first == run.first else 0
                done += run.members[:end]
            else:
                done += [member for at, member in enumerate(run.members) if result.is_kept(at)]
        done.sort()
        if job.loaded is not None and len(done) < job.count:
            # What could not be loaded is a miss from here on, or the engine would ask for it for ever.
            came = set(done)
            for member, (chain, place) in enumerate(job.loaded):
                if member not in came:
                    chain.verdicts[place] = False
        size = job.size * len(done) // job.count if job.count else 0
        return JobEnd(job.number, tuple(done), job.count, size, time.monotonic() - job.begun)
