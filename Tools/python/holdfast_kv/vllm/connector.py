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

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    SupportsHMA,
)

from .cache import Layer
from .compat import check_version
from .plan import HoldfastMetadata, Move, Shape
from .scheduler import Scheduler
from .worker import Worker

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.distributed.kv_events import KVCacheEvent
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

__all__ = ["HoldfastConnector", "HoldfastMetadata", "Layer", "Move", "Scheduler", "Shape", "Worker"]
_log = logging.getLogger("holdfast_kv.vllm")


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
