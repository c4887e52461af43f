"""The scheduler's half: looks prompts up, plans loads and saves, tells of blocks that came and went.

Called by the scheduler's thread alone. A look-up without an answer is asked for again at the next step, but for a moment
that is waited once a request: the client's thread needs the interpreter, and a step that goes on holds it 5 ms at a time.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vllm.distributed.kv_events import BlockRemoved, BlockStored, KVCacheEvent

from ..namespace import EngineKeys, namespace_digest
from ..naming import Naming
from ..protocol import KEYS_MAX, Changed, Found
from .compat import end_of, first_token_seconds, session_of
from .plan import HoldfastMetadata, Move, Shape, client_of

if TYPE_CHECKING:
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

#: Blocks whose tokens are remembered for events.
_EVENT_KEYS_MAX: Final = 1 << 17


@dataclass(slots=True)
class _Asked:
    """A request as the scheduler's half knows it."""

    naming: Naming
    answers: list[Future[Found]] = field(default_factory=list)
    tickets: list[int] = field(default_factory=list)
    #: Blocks of the latest match: from, to.
    match: tuple[int, int] = (0, 0)
    blocks: list[list[int]] = field(default_factory=list)
    #: Leading blocks that need no save.
    saved: int = 0
    has_waited: bool = False
    #: Tokens that were there when it was first scheduled; −1: it was not.
    cached: int = -1
    #: Seconds to its first token, seen at the step behind it; 0: it has none.
    first_token: float = 0.0
    #: Its match was used; should the load fail, the prompt is computed and not asked for again.
    is_spent: bool = False


class Scheduler:
    """Looks prompts up and plans moves. Called by the scheduler's thread alone."""

    def __init__(self, shape: Shape, extra: dict[str, Any]) -> None:
        self._shape = shape
        self._keys = EngineKeys(namespace_digest(shape.fields))
        self._requests: dict[str, tuple[Request, _Asked]] = {}
        self._loads: list[Move] = []
        self._patience = float(extra.get("lookup_wait", 0.001))
        self._has_events = bool(extra.get("enable_kv_events", False))
        self.client = client_of(shape, extra, on_changed=self._changed if self._has_events else None)
        self._changes: deque[Changed] = deque(maxlen=4096)
        self._known: OrderedDict[bytes, tuple[Any, Any, list[int]]] = OrderedDict()

    def begin(self, request: Request) -> None:
        """A request's look-up: each group and each shard that its workers need. The first carries the prompt's tokens, or
        the agent would count the prompt once for each."""
        asked = _Asked(Naming(self._keys))
        self._requests[request.request_id] = (request, asked)
        if self._shape.reason or not self.client.is_open:
            return
        self._name(request, asked)
        if not asked.naming:
            return
        session, turn = session_of(request.kv_transfer_params)
        count = min(len(asked.naming), KEYS_MAX)
        for group in range(len(self._shape.layers)):
            for shard in range(self._shape.shards):
                ticket, answer = self.client.lookup(
                    asked.naming.chain(count, group, shard, self._shape.shards),
                    prompt_tokens=0 if asked.tickets else request.num_tokens,
                    session=session,
                    turn=turn,
                )
                asked.tickets.append(ticket)
                asked.answers.append(answer)

    def match(self, request: Request, computed: int) -> tuple[int | None, bool]:
        """Tokens that can be loaded behind the computed ones."""
        if request.request_id not in self._requests:
            self.begin(request)
        asked = self._requests[request.request_id][1]
        if not asked.answers or asked.is_spent:
            return 0, False
        if not all(answer.done() for answer in asked.answers) and not self._wait(asked):
            return None, False
        # The last token is computed always: its logits are what the prompt was sent for.
        most = self._shape.blocks(request.num_tokens - 1)
        hits = min(most, *(answer.result().hit_blocks for answer in asked.answers))
        first = self._shape.blocks(computed)
        if computed % self._shape.block_tokens or hits <= first:
            return 0, False
        asked.match = (first, hits)
        return (hits - first) * self._shape.block_tokens, True

    def _wait(self, asked: _Asked) -> bool:
        """Gives the answers a moment, once a request; whether they all came."""
        if asked.has_waited:
            return False
        asked.has_waited = True
        deadline = time.monotonic() + self._patience
        try:
            for answer in asked.answers:
                answer.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            return False
        return True

    def allocated(self, request: Request, blocks: KVCacheBlocks, tokens: int) -> None:
        """Places for a match; called again without tokens when it has ended."""
        if tokens == 0 or request.request_id not in self._requests:
            return
        asked = self._requests[request.request_id][1]
        first = asked.match[0]
        end = first + self._shape.blocks(tokens)
        hashes = tuple(asked.naming.names[:end])
        for group, ids in enumerate(blocks.get_block_ids()):
            self._loads.append(self._move(request.request_id, asked, group, hashes, first, tuple(ids[first:end])))
        asked.saved = max(asked.saved, end)
        asked.is_spent = True

    def plan(self, output: SchedulerOutput) -> HoldfastMetadata:
        """Loads that have places, and saves of blocks that this step completes."""
        plan = HoldfastMetadata(loads=self._loads)
        self._loads = []
        if self._shape.reason or not self.client.is_open:
            return plan
        for new in output.scheduled_new_reqs:
            entry = self._requests.get(new.req_id)
            if entry is None:
                continue
            entry[1].blocks = [list(ids) for ids in new.block_ids]
            entry[1].cached = new.num_computed_tokens
            entry[1].saved = max(entry[1].saved, self._shape.blocks(new.num_computed_tokens))
            self._save(plan, new.req_id, new.num_computed_tokens + output.num_scheduled_tokens[new.req_id])
        cached = output.scheduled_cached_reqs
        resumed = set(getattr(cached, "resumed_req_ids", ()))
        for index, name in enumerate(cached.req_ids):
            entry = self._requests.get(name)
            if entry is None:
                continue
            entry[1].first_token = entry[1].first_token or first_token_seconds(entry[0])
            added = cached.new_block_ids[index]
            if name in resumed:
                entry[1].blocks = [list(ids) for ids in added or ()]
            elif added is not None:
                for ids, more in zip(entry[1].blocks, added, strict=False):
                    ids += more
            self._save(plan, name, cached.num_computed_tokens[index] + output.num_scheduled_tokens[name])
        return plan

    def _save(self, plan: HoldfastMetadata, name: str, tokens: int) -> None:
        request, asked = self._requests[name]
        self._name(request, asked)
        end = min(self._shape.blocks(tokens), len(asked.naming), KEYS_MAX, *(len(ids) for ids in asked.blocks or [[]]))
        if end <= asked.saved:
            return
        hashes = tuple(asked.naming.names[:end])
        for group, ids in enumerate(asked.blocks):
            plan.saves.append(self._move(name, asked, group, hashes, asked.saved, tuple(ids[asked.saved : end])))
        asked.saved = end

    def _move(
        self, name: str, asked: _Asked, group: int, hashes: tuple[bytes, ...], first: int, blocks: tuple[int, ...]
    ) -> Move:
        """A move that tells the workers whose turn it is."""
        shards = self._shape.shards
        tickets = tuple(asked.tickets[group * shards : (group + 1) * shards])
        return Move(name, group, hashes, first, blocks, tickets, self.client.number)

    def _name(self, request: Request, asked: _Asked) -> None:
        known = len(asked.naming)
        asked.naming.names += map(bytes, request.block_hashes[known:])
        if not self._has_events:
            return
        for index in range(known, len(asked.naming)):
            tokens = request.all_token_ids[index * self._shape.block_tokens : (index + 1) * self._shape.block_tokens]
            parent = request.block_hashes[index - 1] if index else None
            self._known[self._keys(asked.naming.names[index])] = (request.block_hashes[index], parent, list(tokens))
            if len(self._known) > _EVENT_KEYS_MAX:
                self._known.popitem(last=False)

    def end(self, request: Request) -> None:
        """A request's end."""
        entry = self._requests.pop(request.request_id, None)
        if entry is None:
            return
        asked = entry[1]
        reason, resumes = end_of(request.kv_transfer_params)
        first, *others = asked.tickets or [0]
        self.client.finished(
            first,
            reason=reason,
            cached_tokens=min(asked.cached, getattr(request, "num_prompt_tokens", asked.cached)),
            time_to_first_token=asked.first_token or first_token_seconds(request),
            resumes_after=resumes,
            answer_tokens=getattr(request, "num_output_tokens", 0),
        )
        for ticket in others:
            self.client.finished(ticket, reason=reason, resumes_after=resumes)

    def _changed(self, changed: Changed) -> None:
        """On the client's thread."""
        self._changes.append(changed)

    def take_events(self) -> Iterable[KVCacheEvent]:
        """What came to the agent and what left it, as far as its tokens are known here."""
        while self._changes:
            changed = self._changes.popleft()
            for name in changed.added:
                known = self._known.get(name.key)
                if known is not None and name.shard == 0:
                    yield BlockStored(
                        block_hashes=[known[0]], parent_block_hash=known[1], token_ids=known[2],
                        block_size=self._shape.block_tokens, lora_id=None, medium="STORAGE", lora_name=None,
                        group_idx=name.group,
                    )  # fmt: skip
            gone = [known[0] for name in changed.removed if (known := self._known.get(name.key)) and name.shard == 0]
            if gone:
                yield BlockRemoved(block_hashes=gone, medium="STORAGE")

    def close(self) -> None:
        """Leaves the agent."""
        self.client.close()
