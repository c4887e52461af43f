"""What an engine asked and the agent has not answered: each with a future, and a deadline that somebody watches.

All of it under the lock of its client. Futures are ended outside of that lock, by whoever was handed them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from .protocol import (
    Cancelled,
    Committed,
    Found,
    Frame,
    Kind,
    Loaded,
    Pinned,
    PinOutcome,
    Pong,
    Released,
    Saved,
    Statistics,
)
from .settings import Counters


@dataclass(slots=True)
class Pending:
    """Something that waits for the agent's answer."""

    future: Future[Any]
    kind: int
    deadline: float
    first: int = 0
    count: int = 0
    is_cancelled: bool = False
    #: Of a request: the agent's answer came too late for anybody to wait for it.
    is_dead: bool = False


class Ledger:
    """Requests, jobs and questions of one client, by their tickets."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._tickets = 0
        #: Prompts that were looked up, until they have finished.
        self.requests: dict[int, Pending] = {}
        #: What moves blocks: until it ends, places or slots are not the engine's.
        self.jobs: dict[int, Pending] = {}
        #: What is only asked.
        self.questions: dict[int, Pending] = {}
        #: Who waits for a cancelled request's end.
        self.cancelling: dict[int, Future[None]] = {}
        #: Jobs of a connection that ended: the agent may be at their places still.
        self.orphans: list[Pending] = []
        #: No deadline passes before this one.
        self.next_deadline = float("inf")
        #: A look-up came to nothing in its time: until the agent says something again, nobody waits for it.
        self.is_stalled = False

    def ticket(self) -> int:
        """A number that no other has."""
        self._tickets += 1
        return self._tickets

    def pending(self, kind: int, deadline: float, first: int = 0, count: int = 0) -> Pending:
        """Something to wait for, in no table yet."""
        if deadline < self.next_deadline:
            self.next_deadline = deadline
        return Pending(running_future(), kind, deadline, first, count)

    def knows(self, request: int) -> bool:
        """Whether a request can be named to the agent."""
        owner = self.requests.get(request)
        return owner is not None and not owner.is_dead

    def open_futures(self) -> list[Future[Any]]:
        """Those of jobs whose places are not the engine's yet."""
        return [job.future for job in (*self.jobs.values(), *self.orphans)]

    # ---- how things end

    def settle(self, frame: Frame, lend: Callable[[Frame], Any]) -> list[tuple[Future[Any], Any]]:
        """Which futures a frame ends, and with what; ``lend`` makes loans of what the agent lends."""
        if isinstance(frame, Cancelled):
            return self._settle_cancelled(frame.ticket)
        pending: Pending | None
        result: Any = frame
        if isinstance(frame, Found):
            pending = self.requests.get(frame.ticket)
            if pending is not None and pending.is_dead:
                pending = None
        elif isinstance(frame, (Pinned, Statistics, Pong, Released)):
            pending = self.questions.pop(frame.ticket, None)
            if isinstance(frame, Statistics):
                result = frame.values
            elif isinstance(frame, Pong):
                result = True
            elif isinstance(frame, Released):
                result = frame.was_in_force
        else:
            pending = self.jobs.pop(frame.ticket, None)
            if not isinstance(frame, (Loaded, Saved)):
                result = lend(frame)
        return [(pending.future, result)] if pending is not None else []

    def _settle_cancelled(self, ticket: int) -> list[tuple[Future[Any], Any]]:
        ended: list[tuple[Future[Any], Any]] = []
        for pending in (self.jobs.pop(ticket, None), self.requests.pop(ticket, None)):
            if pending is not None:
                ended.append((pending.future, nothing(ticket, pending)))
        done = self.cancelling.pop(ticket, None)
        if done is not None:
            ended.append((done, None))
        return ended

    def expire(self, now: float, cancel: Callable[[int], object]) -> list[tuple[int, Pending]]:
        """What nobody waits for any more; what moves blocks is cancelled, and ends when the agent says so."""
        late: list[tuple[int, Pending]] = []
        for ticket, pending in self.requests.items():
            if pending.future.done() or pending.is_dead or now < pending.deadline:
                continue
            self._counters.lookups_late += 1
            self.is_stalled = True
            pending.is_dead = True
            cancel(ticket)
            late.append((ticket, pending))
        for ticket, pending in self.jobs.items():
            if not pending.is_cancelled and now >= pending.deadline:
                pending.is_cancelled = True
                self._counters.loads_cancelled += pending.kind == Kind.LOAD
                cancel(ticket)
        for ticket in [t for t, pending in self.questions.items() if now >= pending.deadline]:
            late.append((ticket, self.questions.pop(ticket)))
        waiting = [p.deadline for p in self.requests.values() if not (p.future.done() or p.is_dead)]
        waiting += [p.deadline for p in self.jobs.values() if not p.is_cancelled]
        waiting += [p.deadline for p in self.questions.values()]
        self.next_deadline = min(waiting, default=float("inf"))
        return late

    def lose(self) -> tuple[list[tuple[int, Pending]], list[Future[None]]]:
        """The connection ended: what ends with it now, and whose wait for a cancelled request does. Jobs are orphans."""
        asked = [*self.requests.items(), *self.questions.items()]
        self.requests.clear()
        self.questions.clear()
        self.orphans += self.jobs.values()
        self._counters.orphaned_jobs += len(self.jobs)
        self.jobs.clear()
        cancelling = list(self.cancelling.values())
        self.cancelling.clear()
        if cancelling and self.orphans:
            # Whoever waits for a request's end waits for its jobs' places.
            self.orphans += [Pending(done, Kind.CANCEL, 0.0) for done in cancelling]
            cancelling = []
        return asked, cancelling


def running_future() -> Future[Any]:
    """A future that cannot be cancelled: whoever stops waiting must not make a place look free."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def nothing(ticket: int, pending: Pending) -> Any:
    """What a caller hears when there is no cache."""
    if pending.kind == Kind.LOOKUP:
        return Found(ticket)
    if pending.kind == Kind.LOAD:
        return Loaded(ticket, pending.first, pending.first)
    if pending.kind == Kind.SAVE:
        return Saved(ticket, pending.count)
    if pending.kind == Kind.COMMIT:
        return Committed(ticket, pending.count)
    if pending.kind == Kind.PIN:
        return Pinned(ticket, PinOutcome.NOTHING_HERE)
    if pending.kind == Kind.STATS:
        return {}
    return False if pending.kind in (Kind.PING, Kind.RELEASE) else None
