"""A client of a store, for tools and tests: blocking, one request at a time, standard library only.

    key = bytes.fromhex("…")                       # of the store's file of tenants
    with StoreClient("127.0.0.1", 9460, "local", key) as store:
        demo = store.open_namespace("demo")
        name = ObjectName(hashlib.sha256(b"block").digest())
        store.put(demo, name, payload)
        assert store.get(demo, name) == payload

Every payload is verified before it is handed out. Checksums cost about 50 ms a MiB here: engines are served by the
agent, not by this.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import store_frames as wire
from .store_frames import (
    FrameError,
    Grants,
    Header,
    ListedObject,
    Metadata,
    Object,
    ObjectName,
    Operation,
    Status,
)

NO_METADATA = Metadata()


class StoreError(Exception):
    """The store did not do what it was asked."""

    def __init__(self, status: Status, reason: str = "") -> None:
        super().__init__(f"{status.name.lower()}: {reason}" if reason else status.name.lower())
        self.status = status
        self.reason = reason


class StoreGone(ConnectionError):
    """The connection has ended, or never began; what was under way has an unknown result."""


@dataclass(frozen=True)
class Notification:
    """What came or went in a namespace. ``OVERFLOW`` says that something was lost: forget what was told."""

    what: Operation
    namespace: int
    names: tuple[ObjectName, ...]


class StoreClient:
    """One session. Not for several threads at once."""

    def __init__(
        self,
        host: str,
        port: int,
        tenant: str,
        key: bytes,
        *,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connects and proves who it is.

        ``timeout`` is how many seconds each request may take; at its end the connection is closed, because a request
        without an end still owns the connection.
        """
        self.timeout = timeout
        self.notifications: deque[Notification] = deque()
        self._number = 0
        try:
            self._socket = socket.create_connection((host, port), timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        except OSError as error:
            raise StoreGone(f"no store answers at {host}:{port}: {error}") from error
        try:
            self.grants = self._prove(tenant, key)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the session."""
        self._socket.close()

    def __enter__(self) -> StoreClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Requests

    def open_namespace(self, name: str) -> int:
        """The session's handle of a namespace, made if the store makes unknown ones."""
        return self._ask(Operation.OPEN_NAMESPACE, wire.text(name))

    def look_up(self, namespace: int, names: Sequence[ObjectName]) -> list[bool]:
        """Which of the objects could be got now."""
        return self._each(self._ask(Operation.LOOK_UP, wire.names(names), namespace)[: len(names)], names)

    def put(self, namespace: int, name: ObjectName, payload: bytes, metadata: Metadata = NO_METADATA) -> bool:
        """Stores an object; returns when it is as durable as its namespace promises. False: it was there already."""
        body = wire.put_body(name, metadata, name.checksum(payload), len(payload))
        return self._ask(Operation.PUT, body, namespace, payload, also=(Status.ALREADY_PRESENT,)) is Status.OK

    def get(self, namespace: int, name: ObjectName) -> bytes | None:
        """An object's bytes, verified; None for a miss. One that comes damaged is a miss, and the store hears of it."""
        found = self.get_with_metadata(namespace, name)
        return found and found[0]

    def get_with_metadata(self, namespace: int, name: ObjectName) -> tuple[bytes, Metadata] | None:
        """An object's bytes, verified, and what is kept with it; None for a miss."""
        body = wire.get_body(name, self.grants.payload_bytes_max)
        answer = self._ask(Operation.GET, body, namespace, also=(Status.ABSENT, Status.CORRUPT))
        if isinstance(answer, Status):
            return None
        found, payload = answer
        if name.checksum(payload) != found.checksum:
            self.report_corrupt(namespace, name)
            return None
        return payload, found.metadata

    def pin(self, namespace: int, names: Sequence[ObjectName], owner: str, seconds: int = 0) -> list[Status]:
        """Keeps objects for ``owner``, for ever or for so many seconds."""
        return self._each(self._ask(Operation.PIN, wire.pin_body(seconds, owner, names), namespace), names)

    def unpin(self, namespace: int, names: Sequence[ObjectName], owner: str) -> list[Status]:
        """Ends pins of ``owner``."""
        return self._each(self._ask(Operation.UNPIN, wire.unpin_body(owner, names), namespace), names)

    def delete(self, namespace: int, names: Sequence[ObjectName]) -> list[Status]:
        """Forgets objects."""
        return self._each(self._ask(Operation.DELETE, wire.names(names), namespace), names)

    def list(self, namespace: int, page: int = 1000) -> Iterator[ListedObject]:
        """All objects of the namespace; the second half of each key is zero."""
        cursor = 0
        while True:
            objects, cursor = self._ask(Operation.LIST, wire.list_body(cursor, page), namespace)
            yield from objects
            if cursor == 0:
                return

    def describe(self, namespace: int, name: ObjectName) -> dict[str, Any] | None:
        """All that is known of one object; None if there is none."""
        answer = self._ask(Operation.DESCRIBE, bytes(name), namespace, also=(Status.ABSENT,))
        return None if isinstance(answer, Status) else json.loads(answer)

    def stat(self) -> dict[str, Any]:
        """How the store is doing; of its namespaces the first page."""
        return json.loads(self._ask(Operation.STAT))

    def namespaces(self) -> Iterator[dict[str, Any]]:
        """All namespaces that list this tenant, for operators all there are."""
        return self._pages("namespaces")

    def pins(self) -> Iterator[dict[str, Any]]:
        """All pins; operators only."""
        return self._pages("pins")

    def _pages(self, verb: str) -> Iterator[dict[str, Any]]:
        cursor = 0
        while True:
            page = self.administer(verb, cursor=cursor)
            yield from page[verb]
            cursor = page["next"]
            if cursor == 0:
                return

    def subscribe(self, namespace: int) -> None:
        """From now on ``notifications`` of the namespace come in."""
        self._ask(Operation.SUBSCRIBE, namespace=namespace)

    def report_corrupt(self, namespace: int, name: ObjectName) -> Status:
        """Has the store verify an object: OK, CORRUPT (it is gone now), ABSENT, FAILED or BUSY."""
        also = (Status.CORRUPT, Status.ABSENT, Status.FAILED, Status.BUSY)
        return self._ask(Operation.REPORT_CORRUPT, bytes(name), namespace, also=also)

    def administer(self, verb: str, **arguments: object) -> dict[str, Any]:
        """An operator's order."""
        body = wire.administer_body(verb, json.dumps(arguments) if arguments else "")
        return json.loads(self._ask(Operation.ADMINISTER, body))

    def cancel(self, number: int) -> None:
        """Cancels a request; with one at a time it has always ended already, which is no error."""
        self._ask(Operation.CANCEL, wire.cancel_body(number))

    def wait(self, seconds: float) -> Notification | None:
        """The next notification; None if none comes in time."""
        end = time.monotonic() + seconds
        while not self.notifications:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                # Only the first byte may be late: a frame that has begun comes whole, or the session is over.
                first = self._socket.recv(1)
            except TimeoutError:
                return None
            if not first:
                raise StoreGone("the store closed the connection")
            self._take_notification(*self._receive_frame(time.monotonic() + self.timeout, first))
        return self.notifications.popleft()

    # One request

    def _ask(
        self,
        operation: Operation,
        body: bytes = b"",
        namespace: int = 0,
        payload: bytes = b"",
        also: Sequence[Status] = (),
    ) -> Any:
        """Sends a request and takes its reply: the value of its body, or the status of one without.

        A status that is neither OK nor one of ``also`` is raised.
        """
        if len(payload) > self.grants.payload_bytes_max:
            raise StoreError(Status.INVALID, f"the store takes payloads of {self.grants.payload_bytes_max} bytes at most")
        self._number = self._number % 0xFFFFFFFF + 1
        end = time.monotonic() + self.timeout
        header = Header(operation, self._number, namespace, payload_bytes=len(payload))
        self._send(wire.frame(header, body) + payload, end)
        while True:
            header, data = self._receive_frame(end)
            if header.is_reply:
                break
            self._take_notification(header, data)
        if header.operation != operation or header.number != self._number:
            raise self._broken(f"a reply to a request that was not sent: {header}")
        value = wire.read_reply(header, data)
        if operation is Operation.GET and header.status is Status.OK:
            if not isinstance(value, Object) or value.payload_bytes != header.payload_bytes:
                raise self._broken(f"a get was answered with {value}")
            return value, self._receive(header.payload_bytes, end)
        if header.payload_bytes:
            raise self._broken("a payload where none belongs")
        if header.status is not Status.OK and header.status not in also:
            raise StoreError(header.status, value or "")
        return header.status if value is None or header.status is not Status.OK else value

    def _each(self, answers: Any, names: Sequence[ObjectName]) -> Any:
        if len(answers) != len(names):
            raise self._broken(f"{len(answers)} answers for {len(names)} names")
        return answers

    def _take_notification(self, header: Header, data: bytes) -> None:
        body = wire.Body(data)
        match header.operation:
            case Operation.ADDED | Operation.REMOVED:
                told = tuple(body.many(body.name))
            case Operation.OVERFLOW:
                told = ()
            case Operation.GOODBYE:
                raise self._broken(f"the store says goodbye: {data.decode()}")
            case _:
                raise self._broken(f"{header.operation.name} out of place")
        body.end()
        self.notifications.append(Notification(header.operation, header.namespace, told))

    def _prove(self, tenant: str, key: bytes) -> Grants:
        end = time.monotonic() + self.timeout
        hello = wire.hello(tenant, os.urandom(32))
        self._send(wire.frame(Header(Operation.HELLO), hello), end)
        about = wire.transcript(hello, self._expect(Operation.CHALLENGE, end))
        self._send(wire.frame(Header(Operation.PROOF), wire.client_proof(key, about)), end)
        return wire.read_welcome(key, about, self._expect(Operation.WELCOME, end))

    def _expect(self, operation: Operation, end: float) -> bytes:
        header, body = self._receive_frame(end)
        if header.operation is Operation.REFUSED:
            raise StoreError(header.status, body.decode())
        if header.operation is not operation:
            raise FrameError(f"{header.operation.name} in place of {operation.name}")
        return body

    # Bytes

    def _send(self, data: bytes, end: float) -> None:
        # One request at a time: the store reads all of it before it has anything long to say.
        try:
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(f"the request could not be sent: {error}") from error

    def _receive_frame(self, end: float, first: bytes = b"") -> tuple[Header, bytes]:
        try:
            announced = wire.read_header(first + self._receive(wire.HEADER_BYTES - len(first), end))
            body = self._receive(announced.body_bytes, end)
            announced.verify(body)
        except FrameError:
            self.close()
            raise
        return announced.header, body

    def _receive(self, count: int, end: float) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                self._socket.settimeout(max(0.001, end - time.monotonic()))
                received = self._socket.recv_into(view)
            except TimeoutError as error:
                raise self._broken("the store did not answer in time") from error
            except OSError as error:
                raise self._broken(str(error)) from error
            if received == 0:
                raise self._broken("the store closed the connection")
            view = view[received:]
        return bytes(data)

    def _broken(self, why: str) -> StoreGone:
        self.close()
        return StoreGone(why)
