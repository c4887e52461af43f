"""Real agents and stores for tests: processes of the built ``holdfast``, each ended with its owner.

The program is the one that ``HOLDFAST`` names, else that of the last build; where there is none, tests that need one are
skipped, and say so.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[3]


def program() -> str | None:
    """The program, if it is built."""
    path = os.environ.get("HOLDFAST", str(_ROOT / ".build/release/holdfast"))
    return path if os.access(path, os.X_OK) else None


WHY_NOT = "no holdfast is built: Tools/build, or name one by HOLDFAST"


class _Process:
    def __init__(self, folder: str, name: str, arguments: list[str]) -> None:
        binary = program()
        assert binary is not None, WHY_NOT
        self.log = os.path.join(folder, f"{name}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([binary, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Waits until the log says something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(pattern, Path(self.log).read_text()):
                return found
            time.sleep(0.01)
        self.kill()
        raise AssertionError(f"{self.process.args} says no {pattern}: {Path(self.log).read_text()}")

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def kill(self) -> None:
        """Ends it as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Certificates:
    """An authority, and certificates of it and of another one, made by openssl."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        for authority in ("authority", "other"):
            self._openssl("req", "-x509", *self._new_key(authority), "-out", self.path(authority), "-days", "2",
                          "-subj", f"/CN={authority}")  # fmt: skip
        for name, authority in (("store", "authority"), ("agent", "authority"), ("stranger", "other")):
            self._openssl("req", "-new", *self._new_key(name), "-out", self.path(name, "csr"), "-subj", f"/CN={name}")
            Path(self.path(name, "ext")).write_text(f"subjectAltName=DNS:{name}.test")
            self._openssl("x509", "-req", "-in", self.path(name, "csr"), "-CA", self.path(authority), "-CAkey",
                          self.path(authority, "key"), "-CAcreateserial", "-days", "2", "-extfile",
                          self.path(name, "ext"), "-out", self.path(name))  # fmt: skip

    def path(self, name: str, kind: str = "pem") -> str:
        """The file of a certificate, or of its key."""
        return os.path.join(self._folder, f"{name}.{kind}")

    def of_agent(self, name: str | None) -> list[str]:
        """What an agent is told to trust the store, and to be trusted as ``name``."""
        settings = [f"tlsAuthority={self.path('authority')}", "tlsName=store.test"]
        if name is not None:
            settings += [f"tlsCertificate={self.path(name)}", f"tlsKey={self.path(name, 'key')}"]
        return [part for setting in settings for part in ("--set", setting)]

    def _new_key(self, name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.path(name, "key")]

    @staticmethod
    def _openssl(*arguments: str) -> None:
        run = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
        assert run.returncode == 0, f"openssl {arguments[0]} failed; Tools/install --tests installs it: {run.stderr}"


class StoreProcess(_Process):
    """A store in a file. With certificates it serves TLS alone, and only clients that have one, too."""

    def __init__(self, folder: str, *, size: str = "256MiB", tls: Certificates | None = None) -> None:
        drive = os.path.join(folder, "store.flash")
        ways = ["--listen", "127.0.0.1:0"]
        if tls is not None:
            ways = ["--listen", "", "--tls-listen", "127.0.0.1:0", "--tls-certificate", tls.path("store"), "--tls-key",
                    tls.path("store", "key"), "--tls-client-authority", tls.path("authority")]  # fmt: skip
        super().__init__(folder, "store", [
            "store", "--data", drive, "--size", size, "--extent", "64KiB", "--payload-max", "2MiB", "--dram", "16MiB",
            "--http", "", *ways,
        ])  # fmt: skip
        self.address = self.wait_for(r"address=\w+ (127\.0\.0\.1:\d+)").group(1)
        self.keys = drive + ".tenants"


class AgentProcess(_Process):
    """An agent that always loads what it finds: on a busy machine its planner would rather have it computed."""

    def __init__(self, folder: str, name: str = "agent", *, dram: str = "64MiB",
                 store: StoreProcess | None = None, more: Sequence[str] = ()) -> None:  # fmt: skip
        self.socket = os.path.join(folder, f"{name}.sock")
        more = [*more, "--store", store.address, "--keys", store.keys] if store else more
        super().__init__(folder, name, [
            "agent", "--socket", self.socket, "--dram", dram, "--http", "", "--set", "planner=always", *more,
        ])  # fmt: skip
        deadline = time.monotonic() + 60
        while not os.path.exists(self.socket) and time.monotonic() < deadline:
            time.sleep(0.01)
