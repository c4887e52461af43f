"""How patient a client is, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_SOCKET: Final = "/run/holdfast/agent.sock"


@dataclass(frozen=True, slots=True)
class Settings:
    """How patient a client is."""

    #: Seconds a look-up may take; then it is a miss.
    lookup_deadline: float = 0.05
    #: Seconds a load may take unless its caller says otherwise; then it is cancelled.
    load_deadline: float = 5.0
    #: Seconds a save may take; then it is cancelled.
    save_deadline: float = 30.0
    #: Seconds in which a block must have come back at an attach; then the agent is used without.
    check_deadline: float = 10.0
    #: Seconds from HELLO to WELCOME.
    hello_deadline: float = 10.0
    #: Seconds before the second try to connect again, the first is made at once; doubles up to ``backoff_max``, and
    #: begins anew behind a connection that lived as long.
    backoff: float = 0.1
    backoff_max: float = 10.0
    #: Seconds for which there must be no socket before its agent is believed to have ended: a living one makes a socket that
    #: was removed anew within a second.
    absence: float = 3.0
    #: Bytes of frames that may wait for the agent to read them; beyond it everything is a miss.
    queue_bytes: int = 8 << 20


@dataclass(slots=True)
class Counters:
    """What a client saw."""

    connections: int = 0
    refusals: int = 0
    lookups: int = 0
    lookups_late: int = 0
    loads: int = 0
    loads_cancelled: int = 0
    saves: int = 0
    takes: int = 0
    commits: int = 0
    misses_without_agent: int = 0
    queue_full: int = 0
    orphaned_jobs: int = 0
