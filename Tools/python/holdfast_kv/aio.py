"""The client for asyncio: what ``Client`` answers with futures is awaited here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .protocol import AnyChain, Found, Loaded, Places, Saved

if TYPE_CHECKING:
    from .client import Client


class AsyncClient:
    """The same for asyncio: what ``Client`` answers with futures is awaited here."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def lookup(self, keys: Sequence[bytes] | AnyChain, *, prompt_tokens: int, **more: Any) -> tuple[int, Found]:
        """See ``Client.lookup``."""
        ticket, future = self.client.lookup(keys, prompt_tokens=prompt_tokens, **more)
        return ticket, await asyncio.wrap_future(future)

    async def load(self, keys: Sequence[bytes] | AnyChain | None, first: int, places: Places, **more: Any) -> Loaded:
        """See ``Client.load``. Cancelling the waiting task does not cancel the job: its places stay the agent's."""
        return await asyncio.shield(asyncio.wrap_future(self.client.load(keys, first, places, **more)))

    async def save(self, keys: Sequence[bytes] | AnyChain, first: int, places: Places, **more: Any) -> Saved:
        """See ``Client.save``."""
        return await asyncio.shield(asyncio.wrap_future(self.client.save(keys, first, places, **more)))

    async def cancel(self, request: int) -> None:
        """See ``Client.cancel``."""
        await asyncio.shield(asyncio.wrap_future(self.client.cancel(request)))

    async def statistics(self) -> Mapping[str, int]:
        """See ``Client.statistics``."""
        return await asyncio.wrap_future(self.client.statistics())

    async def ping(self) -> bool:
        """See ``Client.ping``."""
        return await asyncio.wrap_future(self.client.ping())
