"""Holdfast as a connector of vLLM, for engines without the tier layer:

    --kv-transfer-config
    '{"kv_connector": "HoldfastConnector", "kv_connector_module_path": "holdfast_kv.vllm.connector", "kv_role": "kv_both",
      "kv_load_failure_policy": "recompute", "kv_connector_extra_config": {"socket": "/run/holdfast/agent.sock"}}'

The scheduler's half looks prompts up; the workers' half copies blocks between the cache and rows of host memory that
the agent maps, in the order of the device's own stream, and the agent moves the rows. Nothing waits for it: a look-up
that has no answer yet is asked again at the next step, a load ends as a completion or a failure, a save without a free
row is left out.
"""

from __future__ import annotations

import ctypes
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from vllm.distributed.kv_events import BlockRemoved, BlockStored, KVCacheEvent
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    SupportsHMA,
)
from vllm.v1.kv_cache_interface import AttentionSpec, MLAAttentionSpec

from ..arena import Lease, MappedArena, Reservation
from ..client import DEFAULT_SOCKET, Client, Settings
from ..namespace import EngineKeys, namespace_digest
from ..naming import NamedChain, Naming
from ..protocol import KEYS_MAX, Changed, Found, Loaded, Ownership, Saved
from ..regions import StagingRegion
from .compat import check_version, session_of

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

_log = logging.getLogger("holdfast_kv.vllm")
#: Blocks whose tokens are remembered for events.
_EVENT_KEYS_MAX: Final = 1 << 17


@dataclass(frozen=True)
class Move:
    """Blocks of one request and group: the hashes up to the last of them, and where they lie in the cache."""

    request: str
    group: int
    hashes: tuple[bytes, ...]
    first: int
    blocks: tuple[int, ...]


@dataclass
class HoldfastMetadata(KVConnectorMetadata):
    """What the scheduler tells the workers in a step."""

    loads: list[Move] = field(default_factory=list)
    saves: list[Move] = field(default_factory=list)


class Shape:
    """What both halves must agree on, from the engine's configuration alone."""

    def __init__(self, config: VllmConfig, cache: KVCacheConfig, tenant_salt: str) -> None:
        specs = [group.kv_cache_spec for group in cache.kv_cache_groups]
        parallel, model = config.parallel_config, config.model_config
        #: Why nothing can be cached, if so.
        self.reason = _reason(specs, parallel)
        self.block_tokens = int(specs[0].block_size) if specs else 1
        self.layers = [list(group.layer_names) for group in cache.kv_cache_groups]
        #: Blocks of the cache.
        self.count = int(cache.num_blocks)
        self.row = max(
            (spec.page_size_bytes * len(names) for spec, names in zip(specs, self.layers, strict=True)), default=1
        )
        self.is_replicated = bool(specs) and all(isinstance(spec, MLAAttentionSpec) for spec in specs)
        self.tensor = 1 if self.is_replicated else int(parallel.tensor_parallel_size)
        self.pipeline = int(parallel.pipeline_parallel_size)
        algorithm = str(config.cache_config.prefix_caching_hash_algo)
        seed = os.environ.get("PYTHONHASHSEED", "vllm-none-hash" if algorithm.startswith("sha") else "random")
        self.fields = {
            "block_tokens": str(self.block_tokens),
            "engine": "vllm-connector",
            "hash_scheme": f"vllm-{algorithm}",
            "hash_seed": seed,
            "head_size": ",".join(str(getattr(spec, "head_size", "")) for spec in specs),
            "kv_dtype": ",".join(str(getattr(spec, "dtype", "")) for spec in specs),
            "kv_heads": ",".join(str(getattr(spec, "num_kv_heads", "")) for spec in specs),
            "kv_scales": "",
            "layers": ",".join(str(len(names)) for names in self.layers),
            "memory_order": "layers",
            "model": str(model.model),
            "tenant_salt": tenant_salt,
            "tokenizer": str(model.tokenizer or ""),
            "revision": str(model.revision or ""),
            "row_bytes": str(self.row),
            "specs": ",".join(type(spec).__name__ for spec in specs),
            "tp_size": str(self.tensor),
            "pp_size": str(self.pipeline),
        }

    @property
    def shards(self) -> int:
        """Parts of a block, one a worker that holds bytes of its own."""
        return self.tensor * self.pipeline

    def blocks(self, tokens: int) -> int:
        """Full blocks of that many tokens."""
        return tokens // self.block_tokens


def _reason(specs: Sequence[Any], parallel: Any) -> str:
    if not specs or not all(isinstance(spec, AttentionSpec) for spec in specs):
        return "a group of layers holds other state than attention's"
    if len({spec.block_size for spec in specs}) != 1:
        return "groups of layers have blocks of different lengths"
    if (
        getattr(parallel, "decode_context_parallel_size", 1) > 1
        or getattr(parallel, "prefill_context_parallel_size", 1) > 1
    ):
        return "the context is split over ranks"
    return ""


class HoldfastConnector(KVConnectorBase_V1, SupportsHMA):
    """Both halves; vLLM makes one in the scheduler and one in each worker."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        check_version()
        extra = self._kv_transfer_config.kv_connector_extra_config or {}
        shape = Shape(vllm_config, kv_cache_config, str(extra.get("tenant_salt", "")))
        if shape.reason:
            _log.warning("nothing is cached: %s", shape.reason)
        self._scheduler = Scheduler(shape, extra) if role == KVConnectorRole.SCHEDULER else None
        self._worker = Worker(shape, extra, vllm_config) if role == KVConnectorRole.WORKER else None

    @property
    def requires_kv_delivery(self) -> bool:
        """A cache: what is not kept is computed again."""
        return False

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler's half."""
        assert self._scheduler is not None
        return self._scheduler

    @property
    def worker(self) -> Worker:
        """The worker's half."""
        assert self._worker is not None
        return self._worker

    # ---- scheduler

    def on_new_request(self, request: Request) -> None:
        """A request has come: its look-up leaves."""
        self.scheduler.begin(request)

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Tokens behind the computed ones that can be loaded; None until the agent has answered."""
        return self.scheduler.match(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Places for what will be loaded."""
        self.scheduler.allocated(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> KVConnectorMetadata:
        """What the workers do in this step."""
        return self.scheduler.plan(scheduler_output)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """A request's end; nothing of it is held back."""
        return self.request_finished_all_groups(request, (block_ids,))

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """A request's end; nothing of it is held back: saves were copied in the stream's order."""
        self.scheduler.end(request)
        return False, None

    def take_events(self) -> Iterable[KVCacheEvent]:
        """Blocks that came to the agent and left it."""
        return self.scheduler.take_events()

    # ---- worker

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """The cache's tensors."""
        self.worker.register(kv_caches)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Loads leave."""
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, HoldfastMetadata)
        self.worker.load(metadata.loads)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Loads end between steps."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Blocks are saved whole."""

    def wait_for_save(self) -> None:
        """New blocks are copied out."""
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, HoldfastMetadata)
        self.worker.save(metadata.saves)

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        """Loads that have ended."""
        received, failed = self.worker.finished()
        self.worker.forget(finished_req_ids)
        return KVConnectorTransferResults(finished_recving=received, failed_recving=failed)

    def shutdown(self) -> None:
        """Leaves the agent."""
        for half in (self._scheduler, self._worker):
            if half is not None:
                half.close()


def _settings(extra: dict[str, Any]) -> Settings:
    return Settings(
        lookup_deadline=float(extra.get("lookup_deadline", 0.05)),
        load_deadline=float(extra.get("load_deadline", 5.0)),
        save_deadline=float(extra.get("store_deadline", 30.0)),
    )


def _client(shape: Shape, extra: dict[str, Any], **more: Any) -> Client:
    return Client(
        str(extra.get("socket", DEFAULT_SOCKET)),
        kind="vllm-connector",
        store_namespace=str(extra.get("store_namespace", "default")),
        fields=shape.fields,
        block_bytes=shape.row,
        ownership=Ownership.HOST,
        client="holdfast-kv vllm-connector",
        settings=_settings(extra),
        **more,
    )


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
    #: Its match was used; should the load fail, the prompt is computed and not asked for again.
    is_spent: bool = False


class Scheduler:
    """Looks prompts up and plans moves. Called by the scheduler's thread alone."""

    def __init__(self, shape: Shape, extra: dict[str, Any]) -> None:
        self._shape = shape
        self._keys = EngineKeys(namespace_digest(shape.fields))
        self._requests: dict[str, tuple[Request, _Asked]] = {}
        self._loads: list[Move] = []
        self._has_events = bool(extra.get("enable_kv_events", False))
        self.client = _client(shape, extra, on_changed=self._changed if self._has_events else None)
        self._changes: deque[Changed] = deque(maxlen=4096)
        self._known: OrderedDict[bytes, tuple[Any, Any, list[int]]] = OrderedDict()

    def begin(self, request: Request) -> None:
        """A request's look-up: each group and each shard that its workers need."""
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
                    prompt_tokens=request.num_tokens,
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
        if not all(answer.done() for answer in asked.answers):
            return None, False
        # The last token is computed always: its logits are what the prompt was sent for.
        most = self._shape.blocks(request.num_tokens - 1)
        hits = min(most, *(answer.result().hit_blocks for answer in asked.answers))
        first = self._shape.blocks(computed)
        if computed % self._shape.block_tokens or hits <= first:
            return 0, False
        asked.match = (first, hits)
        return (hits - first) * self._shape.block_tokens, True

    def allocated(self, request: Request, blocks: KVCacheBlocks, tokens: int) -> None:
        """Places for a match; called again without tokens when it has ended."""
        if tokens == 0 or request.request_id not in self._requests:
            return
        asked = self._requests[request.request_id][1]
        first = asked.match[0]
        end = first + self._shape.blocks(tokens)
        hashes = tuple(asked.naming.names[:end])
        for group, ids in enumerate(blocks.get_block_ids()):
            self._loads.append(Move(request.request_id, group, hashes, first, tuple(ids[first:end])))
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
            entry[1].saved = max(entry[1].saved, self._shape.blocks(new.num_computed_tokens))
            self._save(plan, new.req_id, new.num_computed_tokens + output.num_scheduled_tokens[new.req_id])
        cached = output.scheduled_cached_reqs
        resumed = set(getattr(cached, "resumed_req_ids", ()))
        for index, name in enumerate(cached.req_ids):
            entry = self._requests.get(name)
            if entry is None:
                continue
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
            plan.saves.append(Move(name, group, hashes, asked.saved, tuple(ids[asked.saved : end])))
        asked.saved = end

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
        for ticket in entry[1].tickets:
            self.client.finished(ticket, cached_tokens=max(-1, getattr(request, "num_cached_tokens", -1)))

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


class Layer:
    """A layer's tensor as rows of bytes, one a block."""

    def __init__(self, tensor: torch.Tensor, blocks: int) -> None:
        self.tensor = tensor
        self.axis = next(axis for axis in range(tensor.dim()) if tensor.shape[axis] == blocks)
        self.size = tensor.numel() // blocks * tensor.element_size()

    def read(self, blocks: torch.Tensor) -> torch.Tensor:
        """Blocks as bytes: one row each."""
        chosen = self.tensor.index_select(self.axis, blocks).movedim(self.axis, 0)
        return chosen.contiguous().view(torch.uint8).reshape(len(blocks), self.size)

    def write(self, blocks: torch.Tensor, rows: torch.Tensor) -> None:
        """Bytes into blocks."""
        shape = [size for axis, size in enumerate(self.tensor.shape) if axis != self.axis]
        chosen = rows.contiguous().view(self.tensor.dtype).reshape(len(blocks), *shape).movedim(0, self.axis)
        self.tensor.index_copy_(self.axis, blocks, chosen)


@dataclass(slots=True)
class _Load:
    move: Move
    naming: Naming
    #: Blocks in place.
    done: int = 0
    #: Blocks to be read in place, with the arena's rows; or copied by the agent into rows of ours.
    lease: Future[Lease | None] | None = None
    arena: torch.Tensor | None = None
    job: Future[Loaded] | None = None
    slots: list[int] = field(default_factory=list)
    #: Whether reading in place came to its end: the rest is copied.
    copies: bool = False

    @property
    def is_idle(self) -> bool:
        return self.lease is None and self.job is None


@dataclass(slots=True)
class _Save:
    first: int
    chain: NamedChain
    #: Rows of ours, or slots of a reservation.
    slots: list[int]
    event: Any
    reservation: Reservation | None = None
    job: Future[Saved] | None = None


@dataclass(slots=True)
class _Stock:
    """Reserved slots that wait for blocks."""

    reservation: Reservation
    #: The arena's rows.
    rows: torch.Tensor
    #: Filled only until then: a copy on its way must not outlive the reservation.
    until: float
    used: int = 0

    @property
    def free(self) -> int:
        is_usable = time.monotonic() < self.until and self.reservation.in_force
        return len(self.reservation) - self.used if is_usable else 0


class Worker:
    """Moves blocks between the cache and the agent's arena. Called by the worker's thread alone.

    Blocks are written into reserved slots of the arena and read there under a lease: the copy between the cache and host
    memory is the only one. Where there is no slot or no lease, rows of ours stand between, which the agent copies.
    """

    def __init__(self, shape: Shape, extra: dict[str, Any], config: VllmConfig) -> None:
        self._shape = shape
        parallel = config.parallel_config
        rank = int(parallel.rank)
        tensor_rank, stage = rank % parallel.tensor_parallel_size, rank // parallel.tensor_parallel_size
        self._shard = stage * shape.tensor + (0 if shape.is_replicated else tensor_rank)
        self._saves_here = not shape.is_replicated or tensor_rank == 0
        self.client = _client(shape, extra, arena="writing" if extra.get("hand_over", True) else None)
        self._arena: MappedArena | None = None
        self._arena_rows: torch.Tensor | None = None
        self._stocks: list[_Stock] = []
        self._wish: tuple[float, torch.Tensor, Future[Reservation | None]] | None = None
        self._wishes_at = 0.0
        rows = max(4, int(extra.get("staging_bytes", 256 << 20)) // shape.row)
        self._staging = StagingRegion(shape.row, rows)
        self._staging.region = self.client.add_region(self._staging.memory.fd, self._staging.memory.length)
        self._rows = torch.frombuffer(self._staging.memory.view, dtype=torch.uint8).view(rows, shape.row)
        self._layers: list[list[Layer]] = []
        self._device = torch.device("cpu")
        self._loads: dict[str, list[_Load]] = {}
        self._saves: list[_Save] = []
        self._failed: set[str] = set()
        self._keys = EngineKeys(namespace_digest(shape.fields))
        #: The keys of requests whose blocks moved here.
        self._namings: dict[str, Naming] = {}
        #: Blocks that came, of those read in place; went, of those written in place; and found no row.
        self.counts = {"loaded": 0, "lent": 0, "saved": 0, "adopted": 0, "dropped": 0}

    def register(self, caches: dict[str, torch.Tensor]) -> None:
        """The cache's tensors, and the pinning of rows where copies come from another device."""
        self._layers = [
            [Layer(caches[name], self._shape.count) for name in names if name in caches] for names in self._shape.layers
        ]
        self._device = next(iter(caches.values())).device
        if self._device.type == "cuda":
            self._pin()

    def _pin(self) -> None:
        memory = self._staging.memory
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory.view))
        if int(torch.cuda.cudart().cudaHostRegister(address, memory.length, 0)) != 0:
            _log.warning("rows of host memory cannot be pinned; copies are slower")

    # ---- the arena

    def _slots(self) -> torch.Tensor | None:
        """The arena's slots as rows, while the agent is there."""
        arena = self.client.arena
        if arena is not self._arena:
            self._arena, self._arena_rows, self._stocks = arena, None, []
            if arena is not None:
                shape = arena.shape
                whole = torch.frombuffer(arena.view, dtype=torch.uint8)[: shape.slots * shape.slot_bytes]
                self._arena_rows = whole.view(shape.slots, shape.slot_bytes)[:, : self._shape.row]
        return self._arena_rows

    def _restock(self) -> None:
        """Sees to it that there are reserved slots before a block needs one: its copy cannot wait for them."""
        now = time.monotonic()
        if self._wish is not None and self._wish[2].done():
            until, rows, wish = self._wish
            self._wish = None
            reservation = wish.result()
            if reservation is not None:
                self._stocks.append(_Stock(reservation, rows, until))
            else:
                self._wishes_at = now + 0.1
        rows = self._slots()
        if rows is None or self._arena is None or not self._saves_here:
            return
        kept: list[_Stock] = []
        for stock in self._stocks:
            if stock.free:
                kept.append(stock)
            elif stock.used < len(stock.reservation) and not self._is_filling(stock.reservation):
                stock.reservation.release()
        self._stocks = kept
        wanted = max(4, min(512, self._arena.shape.slots // 32))
        if self._wish is None and now >= self._wishes_at and sum(stock.free for stock in kept) <= wanted // 2:
            until = now + self._arena.shape.lifetime_max / 2e9
            self._wish = (until, rows, self.client.reserve(wanted))

    def _is_filling(self, reservation: Reservation) -> bool:
        return any(save.reservation is reservation and save.job is None for save in self._saves)

    # ---- loads

    def load(self, moves: Iterable[Move]) -> None:
        """Loads begin; null blocks, which sliding windows leave behind, get none."""
        for move in moves:
            self._loads.setdefault(move.request, []).append(_Load(move, self._naming(move)))
        self._step_loads()

    def _step_loads(self) -> None:
        for name, loads in self._loads.items():
            for load in loads:
                if name not in self._failed and load.is_idle and load.done < len(load.move.blocks):
                    self._begin(load)

    def _begin(self, load: _Load) -> None:
        rows = None if load.copies else self._slots()
        if rows is not None:
            first = load.move.first + load.done
            count = len(load.move.blocks) - load.done
            load.arena = rows
            load.lease = self.client.take(self._chain(load.move, load.naming, first + count), first, count)
            return
        count = min(len(load.move.blocks) - load.done, self._staging.free)
        slots = self._staging.acquire(count) if count else None
        if slots is None:
            return
        first = load.move.first + load.done
        chain = self._chain(load.move, load.naming, first + count)
        load.slots = slots
        load.job = self.client.load(chain, first, self._staging.places(slots))

    def _read(self, load: _Load) -> None:
        """Takes in what may be read in place. What of it is missing is copied."""
        assert load.lease is not None and load.arena is not None
        lease, rows = load.lease.result(), load.arena
        load.lease, load.arena, load.copies = None, None, True
        if lease is None or lease.taken.first != load.move.first + load.done:
            return
        blocks = load.move.blocks[load.done : load.done + len(lease)]
        wanted = [(block, slot) for block, (slot, _) in zip(blocks, lease.taken.blocks, strict=True) if block > 0]
        chosen = rows.index_select(0, torch.tensor([slot for _, slot in wanted])) if wanted else None
        # After the last byte: what was read is the blocks' only if they were ours until here.
        is_right = lease.in_force
        lease.release()
        if not is_right:
            return
        if chosen is not None:
            self._write(load.move.group, [block for block, _ in wanted], chosen)
        load.done += len(blocks)
        self.counts["loaded"] += len(blocks)
        self.counts["lent"] += len(blocks)

    def _end(self, load: _Load) -> bool:
        """Takes a piece of a load in; False: it has failed."""
        assert load.job is not None
        result = load.job.result()
        count = len(load.slots)
        is_whole = result.end - result.first == count
        if is_whole:
            blocks = load.move.blocks[load.done : load.done + count]
            wanted = [(block, slot) for block, slot in zip(blocks, load.slots, strict=True) if block > 0]
            if wanted:
                rows = self._rows.index_select(0, torch.tensor([slot for _, slot in wanted]))
                self._write(load.move.group, [block for block, _ in wanted], rows)
            load.done += count
            self.counts["loaded"] += count
        self._staging.release(load.slots)
        load.job, load.slots = None, []
        return is_whole

    def _write(self, group: int, blocks: Sequence[int], rows: torch.Tensor) -> None:
        where = torch.tensor(list(blocks), device=self._device)
        at = 0
        for layer in self._layers[group]:
            layer.write(where, rows[:, at : at + layer.size].to(self._device))
            at += layer.size

    # ---- saves

    def save(self, moves: Iterable[Move]) -> None:
        """Copies blocks out, in the stream's order; a block without a free row is left out."""
        if not self._saves_here or not self.client.is_open:
            return
        self._restock()
        for move in moves:
            if not all(move.blocks):
                self.counts["dropped"] += len(move.blocks)
                continue
            done = 0
            for stock in self._stocks:
                count = min(stock.free, len(move.blocks) - done)
                if count:
                    slots = list(stock.reservation.slots[stock.used : stock.used + count])
                    stock.used += count
                    self._copy_out(move, done, slots, stock.rows, stock.reservation)
                    done += count
            rest = len(move.blocks) - done
            taken = self._staging.acquire(rest) if rest else None
            if taken is not None:
                self._copy_out(move, done, taken, self._rows, None)
            else:
                self.counts["dropped"] += rest
        self._step_saves()

    def _copy_out(
        self, move: Move, begin: int, slots: list[int], rows: torch.Tensor, reservation: Reservation | None
    ) -> None:
        """Copies blocks of a move from ``begin`` on into rows, in the stream's order."""
        end = begin + len(slots)
        blocks = torch.tensor(move.blocks[begin:end], device=self._device)
        parts = [layer.read(blocks) for layer in self._layers[move.group]]
        for row, slot in enumerate(slots):
            at = 0
            for part in parts:
                rows[slot, at : at + part.shape[1]].copy_(part[row], non_blocking=True)
                at += part.shape[1]
            rows[slot, at:].zero_()
        event = None
        if self._device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
        first = move.first + begin
        chain = self._chain(move, self._naming(move), first + len(slots))
        self._saves.append(_Save(first, chain, slots, event, reservation))

    def _step_saves(self) -> None:
        self._restock()
        open_: list[_Save] = []
        for save in self._saves:
            if save.job is None and (save.event is None or save.event.query()):
                if save.reservation is not None:
                    save.job = self.client.commit(save.reservation.loan, save.slots, save.chain)
                else:
                    save.job = self.client.save(save.chain, save.first, self._staging.places(save.slots))
            if save.job is not None and save.job.done():
                kept = save.job.result().kept.bit_count()
                self.counts["saved"] += kept
                if save.reservation is None:
                    self._staging.release(save.slots)
                else:
                    self.counts["adopted"] += kept
            else:
                open_.append(save)
        self._saves = open_

    def _naming(self, move: Move) -> Naming:
        naming = self._namings.get(move.request)
        if naming is None:
            naming = self._namings[move.request] = Naming(self._keys)
        naming.names += move.hashes[len(naming) :]
        return naming

    def _chain(self, move: Move, naming: Naming, count: int) -> NamedChain:
        return naming.chain(count, move.group, self._shard, self._shape.shards)

    def forget(self, requests: Iterable[str]) -> None:
        """Requests that are finished."""
        for name in requests:
            self._namings.pop(name, None)

    def finished(self) -> tuple[set[str], set[str]]:
        """Requests whose loads have ended since the last call, and of those the ones that failed."""
        self._step_saves()
        received: set[str] = set()
        for name, loads in self._loads.items():
            for load in loads:
                if load.lease is not None and load.lease.done():
                    self._read(load)
                if load.job is not None and load.job.done() and not self._end(load):
                    self._failed.add(name)
            is_failed = name in self._failed
            # A failed one waits for its open jobs, too: until they have ended the agent may write to their rows.
            if all(load.is_idle and (is_failed or load.done == len(load.move.blocks)) for load in loads):
                received.add(name)
        for name in received:
            del self._loads[name]
        failed = received & self._failed
        self._failed -= received
        self._step_loads()
        return received, failed

    def close(self) -> None:
        """Leaves the agent; the rows stay mapped until the process ends if a job has not."""
        self.client.close()
