"""Holdfast as a secondary tier of vLLM's offloading: ``TieringOffloadingSpec`` with

    {"type": "HoldfastTier", "module_path": "holdfast_kv.vllm.tier", "socket": "/run/holdfast/agent.sock"}

vLLM copies blocks between the GPU and its CPU region; the agent maps that region and moves whole rows of it to and from
its tiers. No block byte passes through this process's Python. Without an agent every look-up is a miss and every store
fails at once; vLLM counts that and goes on.
"""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vllm.v1.kv_offload.base import (
    Locality,
    LookupResult,
    Medium,
    OffloadingEvent,
    OffloadKey,
    ReqContext,
    RequestOffloadingContext,
    ScheduleEndContext,
    get_offload_block_hash,
    get_offload_group_idx,
)
from vllm.v1.kv_offload.file_mapper import FileMapper
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob

from ..client import DEFAULT_SOCKET, Client, Settings
from ..namespace import EngineKeys, namespace_digest, scales_of
from ..protocol import Changed, Ownership
from ..tier import Block, JobEnd, Tier
from .compat import check_version, end_of, hash_scheme, kv_dtype, session_of

if TYPE_CHECKING:
    from vllm.v1.kv_offload.base import OffloadingSpec

_log = logging.getLogger("holdfast_kv.vllm")
#: Blocks whose names are remembered for events; older ones leave without one.
_EVENT_KEYS_MAX: Final = 1 << 18
_RESULTS: Final = {None: LookupResult.RETRY, True: LookupResult.HIT, False: LookupResult.MISS}


class HoldfastTier(SecondaryTierManager):
    """The agent as a tier. One instance an engine, in the scheduler's process."""

    medium: ClassVar[Medium | None] = Medium.STORAGE
    #: Ends of jobs are seen between steps, too.
    tolerates_off_thread_polling: ClassVar[bool] = True

    def __init__(
        self,
        offloading_spec: OffloadingSpec,
        primary_kv_view: memoryview,
        tier_type: str,
        socket: str = DEFAULT_SOCKET,
        store_namespace: str = "default",
        tenant_salt: str = "",
        revision: str = "",
        tokenizer: str = "",
        kv_scales: str = "",
        lookup_deadline: float = 0.05,
        load_deadline: float = 5.0,
        store_deadline: float = 30.0,
        enable_kv_events: bool = False,
        region_path: str | None = None,
        locality: str | None = None,
        backpressure_detector: Any = None,
    ) -> None:
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        check_version()
        self.locality = Locality(locality) if locality is not None else None
        config = offloading_spec.config
        if enable_kv_events and not offloading_spec.kv_events_config.enable_kv_cache_events:
            _log.warning("enable_kv_events: vLLM publishes no events; give it --kv-events-config")
            enable_kv_events = False
        self._row = self.block_size_bytes
        fields = namespace_fields(offloading_spec, self._row, tenant_salt, revision, tokenizer, kv_scales)
        self._client = Client(
            socket,
            kind="vllm-tier",
            store_namespace=store_namespace,
            fields=fields,
            block_bytes=self._row,
            ownership=Ownership.ENGINE,
            client="holdfast-kv vllm",
            settings=Settings(lookup_deadline=lookup_deadline, load_deadline=load_deadline, save_deadline=store_deadline),
            on_changed=self._changed if enable_kv_events else None,
        )
        digest = namespace_digest(fields)
        self._tier = Tier(self._client, digest, block_tokens=int(fields["block_tokens"]), groups=max(1, len(config.groups)))
        path = region_path or f"/dev/shm/vllm_offload_{config.engine_id}.mmap"
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._region = self._client.add_region(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        #: Loads under way, with their keys.
        self._loads: dict[int, list[OffloadKey]] = {}
        self._engine_keys = EngineKeys(digest)
        self._events: deque[OffloadingEvent] | None = deque(maxlen=4096) if enable_kv_events else None
        #: Keys of stores under way, for their event, and names of what was stored, for the event of its end.
        self._storing: dict[int, list[OffloadKey]] = {}
        self._stored: OrderedDict[bytes, OffloadKey] = OrderedDict()

    # ---- look-ups

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """A request is seen for the first time."""
        session, turn = session_of(req_context.kv_transfer_params)
        self._tier.begin(req_context.req_id, session=session, turn=turn)
        return RequestOffloadingContext()

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        """Whether a chunk can be promoted; RETRY until the agent has answered."""
        return _RESULTS[self._tier.look_up(req_context.req_id, key)]

    def on_schedule_end(self, context: ScheduleEndContext) -> None:
        """The step is over: its look-ups leave, one message a request."""
        self._tier.flush()

    def touch(self, keys: Collection[OffloadKey], req_context: ReqContext) -> None:
        """Chunks were used out of vLLM's own tiers."""
        by_group: dict[int, list[bytes]] = {}
        for key in keys:
            by_group.setdefault(get_offload_group_idx(key), []).append(key)
        for names in by_group.values():
            self._tier.touch(names)

    def on_request_finished(self, req_context: ReqContext) -> None:
        """A request's end; its jobs go on to theirs."""
        reason, resumes = end_of(req_context.kv_transfer_params)
        self._tier.finished(req_context.req_id, reason=reason, resumes_after=resumes)

    # ---- jobs

    def submit_store(self, job_metadata: TransferJob) -> None:
        """Offers rows of the region; vLLM keeps them pinned until the job is reported."""
        if self._events is not None:
            self._storing[job_metadata.job_id] = list(job_metadata.keys)
        self._tier.save(job_metadata.job_id, job_metadata.req_context.req_id, self._blocks(job_metadata))

    def submit_load(self, job_metadata: TransferJob) -> None:
        """Wants chunks in rows of the region."""
        self._loads[job_metadata.job_id] = list(job_metadata.keys)
        self._tier.load(job_metadata.job_id, job_metadata.req_context.req_id, self._blocks(job_metadata))

    def _blocks(self, job: TransferJob) -> list[Block]:
        # vLLM's key is the tier's name of a block: its hash, and behind it its group in four bytes.
        return [
            Block(key, ((self._region, int(chunk) * self._row, self._row),))
            for key, chunk in zip(job.keys, job.chunk_ids, strict=True)
        ]

    def get_finished_jobs(self) -> Iterable[JobResult]:
        """The jobs that have ended since the last call, each once."""
        return [self._result(end) for end in self._tier.ended()]

    def _result(self, end: JobEnd) -> JobResult:
        keys = self._loads.pop(end.job, None)
        stored = self._storing.pop(end.job, None)
        if stored is not None and self._events is not None and end.done:
            self._note_stored([stored[index] for index in end.done])
        # What the agent did not want to keep is no failure of a store: it was taken and judged.
        success = end.is_whole if keys is not None else bool(end.done)
        partial = tuple(keys[index] for index in end.done) if keys is not None and not success and end.done else None
        return JobResult(
            job_id=end.job,
            success=success,
            successful_keys=partial,
            transfer_time=end.seconds,
            transfer_bytes=end.size,
        )

    def has_pending_work(self) -> bool:
        """Whether requests wait for a load: then the engine keeps stepping."""
        return bool(self._loads)

    def drain_jobs(self) -> None:
        """Waits until nothing touches the region; each job has a deadline, so this ends."""
        self._tier.drain()

    # ---- events

    def _note_stored(self, keys: list[OffloadKey]) -> None:
        assert self._events is not None
        for key in keys:
            self._stored[self._engine_keys(get_offload_block_hash(key))] = key
        while len(self._stored) > _EVENT_KEYS_MAX:
            self._stored.popitem(last=False)
        self._events.append(OffloadingEvent(keys=keys, medium=Medium.STORAGE, removed=False, locality=self.locality))

    def _changed(self, changed: Changed) -> None:
        """On the client's thread: what the agent dropped by itself."""
        gone = [key for name in changed.removed if (key := self._stored.pop(name.key, None)) is not None]
        if gone and self._events is not None:
            self._events.append(OffloadingEvent(keys=gone, medium=Medium.STORAGE, removed=True, locality=self.locality))

    def take_events(self) -> Iterable[OffloadingEvent]:
        """What was stored and what left since the last call."""
        while self._events:
            yield self._events.popleft()

    def shutdown(self) -> None:
        """Leaves the agent, after the last byte."""
        if not self._client.close(timeout=5.0):
            _log.warning("the agent still holds rows of the region; it lets go of them when this process ends")


def namespace_fields(
    spec: OffloadingSpec, row: int, tenant_salt: str, revision: str = "", tokenizer: str = "", kv_scales: str = ""
) -> dict[str, str]:
    """What must be equal for two engines to share blocks: vLLM's own storage fields, the row, the hash's seed.

    vLLM tells a tier the KV's dtype by name and its layers, and nothing of heads, revision, tokenizer and scales.
    """
    config = spec.config
    run = FileMapper.from_offloading_spec(
        root_dir="", offloading_spec=spec, blocks_per_file=config.cache.blocks_per_chunk, parallel_agnostic=True
    ).get_run_config()
    scheme, seed = hash_scheme()
    layers = [name for group in config.groups for name in group.layer_names]
    dtype = kv_dtype(str(config.model.dtype).removeprefix("torch."))
    order = "canonical" if config.canonical_layout else "rows"
    return {
        "block_tokens": str(config.cache.tokens_per_hash * config.cache.blocks_per_chunk),
        "engine": "vllm",
        "hash_scheme": scheme,
        "hash_seed": seed,
        "head_size": "",
        "kv_dtype": dtype,
        "kv_heads": "",
        "kv_scales": kv_scales or scales_of(dtype),
        "layers": str(len(layers)),
        "memory_order": f"{order} {getattr(config, 'kv_cache_layout', None) or ''}".strip(),
        "model": config.model.name,
        "tenant_salt": tenant_salt,
        "tokenizer": tokenizer,
        "revision": revision,
        "row_bytes": str(row),
        "vllm_storage": json.dumps(run, sort_keys=True, separators=(",", ":")),
    }
