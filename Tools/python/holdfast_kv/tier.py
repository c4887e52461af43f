"""Look-ups asked key by key, and jobs that move blocks, made into chains and runs for the agent.

An engine asks for one key after another on its scheduler's thread and wants an answer at once. A ``Tier`` answers *ask
again*, sends one look-up a request when the step ends, and knows the answer at the next step. What is done for each key on
that thread is one access to a dictionary; keys are converted and answers taken in on the client's thread. It holds no
policy and never touches a block's bytes. Nothing in it waits, but ``drain``.

Its methods are called by one thread at a time, whichever that is.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from itertools import count, islice, repeat
from typing import Final

from .client import Client
from .namespace import EngineKeys
from .naming import NamedChain, Naming
from .protocol import KEYS_MAX, Found, Loaded, Places, Saved, StopReason

Slice = tuple[int, int, int]
"""Where a part of a block lies: region, offset, length."""

ENDED_REQUESTS_MAX: Final = 1024
"""Requests that are over and remembered for saves behind their ends."""

ENDED_NAMES_MAX: Final = 1 << 17
"""Names that all of them have together: some 15 MB."""

GROUP_BYTES: Final = 4
"""A block's name is the engine's hash of it with its group's number behind: four bytes, the most significant first."""


def name_of(hash: bytes, group: int = 0) -> bytes:
    """A block's name."""
    return hash + group.to_bytes(GROUP_BYTES, "big")


def group_of(name: bytes) -> int:
    """The group of layers of a block."""
    return int.from_bytes(name[-GROUP_BYTES:], "big")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a job: its name, and its slices in the order of its bytes."""

    name: bytes
    slices: tuple[Slice, ...]


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


class _Chain:
    """The blocks of one request and group in the order in which the engine named them."""

    __slots__ = ("answer", "asked", "asked_first", "group", "names", "naming", "places", "tickets")

    def __init__(self, group: int, keys: EngineKeys) -> None:
        self.group = group
        self.naming = Naming(keys, tail=GROUP_BYTES)
        self.names = self.naming.names
        #: Places of the leading names, made when a job needs them.
        self.places: dict[bytes, int] = {}
        #: Names that the latest look-up asked for, and its answer.
        self.asked = 0
        #: Names that its first look-up asked for.
        self.asked_first = 0
        self.answer: Future[Found] | None = None
        self.tickets: list[int] = []

    def place(self, name: bytes) -> int | None:
        """Where a block stands in the chain."""
        known = len(self.places)
        if known < len(self.names):
            self.places.update(zip(islice(self.names, known, None), count(known)))
        return self.places.get(name)


class _Request(dict[bytes, "bool | None"]):
    """Whether the blocks of a request can be loaded, in the order in which they were named; None: not known yet."""

    __slots__ = ("chains", "counted", "failed", "session", "sorted", "turn")

    def __init__(self, session: int, turn: int) -> None:
        super().__init__()
        self.session = session
        self.turn = turn
        self.chains: dict[int, _Chain] = {}
        #: How many of its names are in chains.
        self.sorted = 0
        #: How many of its names count against what may be remembered of requests that are over.
        self.counted = 0
        #: What could not be loaded, whatever an answer says.
        self.failed: set[bytes] = set()

    def settle(self, chain: _Chain, first: int, future: Future[Found]) -> None:
        """Takes an answer in. On the client's thread."""
        hits = max(first, min(future.result().hit_blocks, chain.asked))
        self.update(zip(islice(chain.names, first, hits), repeat(True)))
        self.update(zip(islice(chain.names, hits, chain.asked), repeat(False)))
        self.update(zip(tuple(self.failed), repeat(False)))
        chain.answer = None


class _Requests(dict[str, _Request]):
    __slots__ = ()

    def __missing__(self, name: str) -> _Request:
        request = self[name] = _Request(0, -1)
        return request


class _Ended(OrderedDict[str, _Request]):
    """Requests that are over, the latest last: their last blocks are saved behind their ends."""

    def __init__(self) -> None:
        super().__init__()
        self._names = 0

    def keep(self, name: str, request: _Request) -> None:
        """Remembers a request with the names that it has now."""
        self.drop(name)
        self[name] = request
        request.counted = len(request)
        self._names += request.counted
        while len(self) > ENDED_REQUESTS_MAX or (self._names > ENDED_NAMES_MAX and len(self) > 1):
            self.drop(next(iter(self)))

    def drop(self, name: str) -> None:
        """Forgets a request."""
        if (request := self.pop(name, None)) is not None:
            self._names -= request.counted


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
    #: Of a load: whose verdicts change when it fails, and the names of its blocks.
    loaded: _Request | None
    names: list[bytes]


class Tier:
    """Chains, verdicts and jobs of one engine process, whose blocks are in groups ``0 ..< groups``."""

    def __init__(
        self, client: Client, digest: bytes, *, shard: int = 0, shards: int = 1, block_tokens: int = 1, groups: int = 1
    ) -> None:
        self.client: Final = client
        self._keys = EngineKeys(digest)
        self._shard = shard
        self._shards = shards
        self._block_tokens = block_tokens
        self._groups = groups
        self._requests = _Requests()
        self._over = _Ended()
        #: Requests that look-ups could not be answered for.
        self._unasked: dict[str, _Request] = {}
        self._latest = ""
        self._jobs: dict[int, _Job] = {}
        self._ended: list[JobEnd] = []

    # ---- requests

    def begin(self, request: str, *, session: int = 0, turn: int = -1) -> None:
        """A request was seen for the first time."""
        if request not in self._requests:
            self._over.drop(request)
            self._requests[request] = _Request(session, turn)

    def look_up(self, request: str, name: bytes) -> bool | None:
        """Whether a block can be loaded; None: ask again at the next step. Costs no call into the kernel."""
        # One access tells what is known, and notes what is not.
        verdict = self._requests[request].setdefault(name)
        if verdict is None:
            if not self.client.is_open:
                return False
            if request != self._latest:
                self._latest = request
                self._unasked[request] = self._requests[request]
        return verdict

    def flush(self) -> None:
        """The step is over: asks for what was named in it, one look-up a request and group."""
        if not self._unasked:
            return
        waiting: dict[str, _Request] = {}
        for name, request in self._unasked.items():
            self._sort(request)
            for chain in request.chains.values():
                end = min(len(chain.names), KEYS_MAX)
                if chain.asked < end and chain.answer is not None:
                    waiting[name] = request  # one answer at a time
                elif chain.asked < end:
                    self._ask(request, chain, end)
                if len(chain.names) > KEYS_MAX:
                    request.update(zip(islice(chain.names, KEYS_MAX, None), repeat(False)))
        self._unasked = waiting
        self._latest = ""

    def _ask(self, request: _Request, chain: _Chain, end: int) -> None:
        first, chain.asked = chain.asked, end
        # A request's first look-up carries its tokens; groups and later pieces are parts of the same prompt.
        is_part = any(other.tickets for other in request.chains.values())
        ticket, answer = self.client.lookup(
            self._wire(chain, end),
            prompt_tokens=0 if is_part else end * self._block_tokens,
            session=request.session,
            turn=request.turn,
        )
        chain.asked_first = chain.asked_first or end
        chain.tickets.append(ticket)
        chain.answer = answer
        answer.add_done_callback(lambda future: request.settle(chain, first, future))

    def _sort(self, request: _Request) -> None:
        """Puts names that are new into their chains."""
        new = list(islice(request, request.sorted, None))
        request.sorted = len(request)
        if self._groups == 1:
            self._chain(request, 0).naming.names += new
            return
        for name in new:
            self._chain(request, group_of(name)).names.append(name)

    def finished(
        self,
        request: str,
        *,
        reason: StopReason = StopReason.UNKNOWN,
        cached_tokens: int = -1,
        time_to_first_token: float = 0.0,
        resumes_after: float = 0.0,
        answer_tokens: int = 0,
    ) -> None:
        """A request's end. Its jobs go on to theirs, and blocks of it may still be saved."""
        owner = self._requests.pop(request, None)
        if owner is None:
            return
        self._unasked.pop(request, None)
        if self._latest == request:
            self._latest = ""
        # Counted once, like the prompt's tokens; the reason is that of every part.
        first, *others = sorted(ticket for chain in owner.chains.values() for ticket in chain.tickets) or [0]
        self.client.finished(
            first,
            reason=reason,
            cached_tokens=cached_tokens,
            time_to_first_token=time_to_first_token,
            resumes_after=resumes_after,
            answer_tokens=answer_tokens,
        )
        for ticket in others:
            self.client.finished(ticket, reason=reason, resumes_after=resumes_after)
        self._over.keep(request, owner)

    def touch(self, names: Sequence[bytes]) -> None:
        """Blocks of one group were used without being asked for."""
        if names and self.client.is_open:
            naming = Naming(self._keys, names[:KEYS_MAX], tail=GROUP_BYTES)
            self.client.touch(naming.chain(None, group_of(names[0]), self._shard, self._shards))

    # ---- jobs

    def load(self, job: int, request: str, blocks: Sequence[Block], *, deadline: float | None = None) -> None:
        """Brings blocks to their places; ``ended`` tells the end, whatever happens."""
        runs: list[_Run] = []
        owner = self._owner(request)
        for chain, members, first in self._runs(owner, blocks):
            # The first run is the request's own load; the agent counts what lies behind a gap with it. The first look-up has
            # the prompt's tokens.
            end = first + len(members)
            ticket = chain.tickets[0] if chain.tickets else 0
            is_own = request in self._requests and not runs and end <= chain.asked_first
            keys = None if is_own else self._wire(chain, end)
            places = Places.of([part for member in members for part in blocks[member].slices], len(blocks[0].slices))
            future = self.client.load(keys, first, places, request=ticket, deadline=deadline)
            runs.append(_Run(future, first, members))
        self._begin(job, blocks, runs, owner)

    def save(
        self, job: int, request: str, blocks: Sequence[Block], *, eviction_class: int = 0, deadline: float | None = None
    ) -> None:
        """Offers blocks; their places stay as they are until ``ended`` tells the end. The request may be over."""
        runs: list[_Run] = []
        owner = self._owner(request)
        for chain, members, first in self._runs(owner, blocks):
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
        if request not in self._requests:
            self._over.keep(request, owner)
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
                except FutureTimeoutError:
                    return False
        return True

    # ---- inside

    def _chain(self, request: _Request, group: int) -> _Chain:
        chain = request.chains.get(group)
        if chain is None:
            chain = request.chains[group] = _Chain(group, self._keys)
        return chain

    def _wire(self, chain: _Chain, end: int) -> NamedChain:
        return chain.naming.chain(end, chain.group, self._shard, self._shards)

    def _owner(self, name: str) -> _Request:
        """The request of a job. One that nobody began, or that was over long ago, gets no place among the open ones."""
        owner = self._requests.get(name)
        if owner is None:
            owner = self._over.get(name)
        return _Request(0, -1) if owner is None else owner

    def _runs(self, request: _Request, blocks: Sequence[Block]) -> Iterable[tuple[_Chain, list[int], int]]:
        """Neighbours of a chain: the chain, their indexes in the job in chain order, the place of the first."""
        for block in blocks:
            request.setdefault(block.name)
        self._sort(request)
        by_group: dict[int, list[tuple[int, int]]] = {}
        for member, block in enumerate(blocks):
            group = group_of(block.name) if self._groups > 1 else 0
            place = self._chain(request, group).place(block.name)
            if place is not None and place < KEYS_MAX:
                by_group.setdefault(group, []).append((place, member))
        for group, placed in by_group.items():
            placed.sort()
            start = 0
            for at in range(1, len(placed) + 1):
                if at == len(placed) or placed[at][0] != placed[at - 1][0] + 1:
                    yield request.chains[group], [member for _, member in placed[start:at]], placed[start][0]
                    start = at

    def _begin(self, job: int, blocks: Sequence[Block], runs: list[_Run], loaded: _Request | None) -> None:
        size = sum(part[2] for block in blocks for part in block.slices)
        names = [block.name for block in blocks] if loaded is not None else []
        self._jobs[job] = _Job(job, len(blocks), size, time.monotonic(), runs, loaded, names)

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
            missed = [name for member, name in enumerate(job.names) if member not in came]
            job.loaded.failed.update(missed)
            job.loaded.update(zip(missed, repeat(False)))
        size = job.size * len(done) // job.count if job.count else 0
        return JobEnd(job.number, tuple(done), job.count, size, time.monotonic() - job.begun)
