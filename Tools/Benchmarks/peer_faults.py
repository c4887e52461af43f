"""What stores lose to kill -9 after acknowledged puts, and whether they serve bytes that rotted where they persist them.

usage: peer_faults.py PATH_OF_HOLDFAST

Needs redis-server and memcached, and takes Mooncake Store in where its Python package is installed beside this interpreter
(`.build-bench-peers/bin/python` after `Tools/bench peers`). Prints a table: per store and fault the blocks put, lost, served wrong.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

try:
    from mooncake.store import MooncakeDistributedStore
except ImportError:
    MooncakeDistributedStore = None

COUNT = 256
BYTES = 64 << 10
FLIPS = 64
HOLDFAST = os.path.abspath(sys.argv[1])


def block(number):
    return random.Random(number).randbytes(BYTES)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def connect(port):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            time.sleep(0.05)
    return None


class Text:
    """A line-and-payload protocol over one connection."""

    def __init__(self, port):
        self.stream = connect(port).makefile("rwb")

    def ask(self, *parts):
        for part in parts:
            self.stream.write(part)
        self.stream.flush()
        return self.stream.readline()


class Redis:
    def __init__(self, name, options):
        self.name, self.options = name, options

    def start(self, folder):
        port = free_port()
        command = ["redis-server", "--port", str(port), "--dir", folder, *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.text = Text(port) if connect(port) else None
        for _ in range(200):
            if self.text is None or self.process.poll() is not None:
                return False
            try:
                if b"LOADING" not in self.text.ask(b"PING\r\n"):
                    return True
            except OSError:
                return False
            time.sleep(0.02)
        return False

    def put(self, number):
        key = b"k%06d" % number
        head = b"*3\r\n$3\r\nSET\r\n$7\r\n%s\r\n$%d\r\n" % (key, BYTES)
        return self.text.ask(head, block(number), b"\r\n") == b"+OK\r\n"

    def get(self, number):
        line = self.text.ask(b"*2\r\n$3\r\nGET\r\n$7\r\nk%06d\r\n" % number)
        if not line.startswith(b"$") or line == b"$-1\r\n":
            return None
        return self.text.stream.read(int(line[1:]) + 2)[:-2]

    def end(self):
        self.text.stream.write(b"SHUTDOWN\r\n")
        self.text.stream.flush()
        self.process.wait()

    def files(self, folder):
        return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]


class Memcached(Redis):
    def start(self, folder):
        port = free_port()
        command = ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-m", "256", "-I", "32m"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.text = Text(port) if connect(port) else None
        return self.text is not None

    def put(self, number):
        return self.text.ask(b"set k%06d 0 0 %d\r\n" % (number, BYTES), block(number), b"\r\n") == b"STORED\r\n"

    def get(self, number):
        line = self.text.ask(b"get k%06d\r\n" % number)
        if not line.startswith(b"VALUE"):
            return None
        return self.text.stream.read(BYTES + 7)[:BYTES]

    def end(self):
        self.process.terminate()
        self.process.wait()


class Mooncake:
    """Mooncake Store as its package runs: a master, and a process that lends the memory. Both are killed."""

    name = "Mooncake Store"

    def start(self, folder):
        # What killed processes leave behind must not answer for the next ones.
        for process in getattr(self, "processes", []):
            process.kill()
            process.wait()
        rpc, meta = free_port(), free_port()
        master = [
            os.path.join(os.path.dirname(sys.executable), "mooncake_master"), f"-rpc_port={rpc}", "-metrics_port=0",
            "-enable_http_metadata_server=true", "-http_metadata_server_host=127.0.0.1",
            f"-http_metadata_server_port={meta}",
        ]  # fmt: skip
        lender = [sys.executable, os.path.join(os.path.dirname(__file__), "mooncake_peer.py"), "lend", str(rpc), str(meta)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        self.processes = [subprocess.Popen(command, **quiet) for command in (master, lender)]
        self.process = self
        self.store = MooncakeDistributedStore()
        for _ in range(100):
            if self.store.setup("127.0.0.1", f"http://127.0.0.1:{meta}/metadata", 0, 64 << 20, "tcp", "", f"127.0.0.1:{rpc}") == 0:
                break
            time.sleep(0.2)
        for _ in range(100):
            if self.store.put("probe", b"there") == 0:
                return True
            time.sleep(0.2)
        return False

    def send_signal(self, number):
        for process in self.processes:
            process.send_signal(number)

    def wait(self):
        for process in self.processes:
            process.wait()
        self.store.close()

    def put(self, number):
        return self.store.put(f"k{number:06}", block(number)) == 0

    def get(self, number):
        return self.store.get(f"k{number:06}") or None

    def end(self):
        self.send_signal(signal.SIGTERM)
        time.sleep(1)
        self.send_signal(signal.SIGKILL)
        self.wait()

    def files(self, folder):
        return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]


def look(peer):
    lost = wrong = 0
    for number in range(COUNT):
        got = peer.get(number)
        lost += got is None
        wrong += got is not None and got != block(number)
    return lost, wrong


def row(name, fault, lost, wrong, note=""):
    print(f"{name:34} {fault:12} {COUNT:5} {lost:>6} {wrong:>6}  {note}", flush=True)


def kill(peer):
    with tempfile.TemporaryDirectory() as folder:
        peer.start(folder)
        assert all(peer.put(number) for number in range(COUNT))
        peer.process.send_signal(signal.SIGKILL)
        peer.process.wait()
        if not peer.start(folder):
            return row(peer.name, "kill -9", COUNT, 0, "does not start")
        row(peer.name, "kill -9", *look(peer))
        peer.end()


def rot(peer):
    """Flips one bit in each of some blocks where they are persisted."""
    with tempfile.TemporaryDirectory() as folder:
        peer.start(folder)
        assert all(peer.put(number) for number in range(COUNT))
        peer.end()
        flipped = 0
        for path in peer.files(folder):
            with open(path, "r+b") as file:
                content = file.read()
                for number in range(0, COUNT, COUNT // FLIPS):
                    place = content.find(block(number)[:64])
                    if place < 0:
                        continue
                    flipped += 1
                    file.seek(place + 1000)
                    file.write(bytes([content[place + 1000] ^ 1]))
        if flipped == 0:
            return row(peer.name, "bit flips", COUNT, 0, "nothing is persisted")
        note = f"{flipped} blocks were hit"
        if not peer.start(folder):
            return row(peer.name, "bit flips", COUNT, 0, note + "; does not start, all is lost")
        row(peer.name, "bit flips", *look(peer), note)
        peer.end()


def holdfast(fault):
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data")
        port = free_port()
        address = f"127.0.0.1:{port}"
        command = [HOLDFAST, "store", "--data", data, "--size", "64MiB", "--extent", "64KiB", "--listen", address]
        command += ["--payload-max", "64KiB"]
        command += ["--http", "", "--tenants", data + ".tenants"]
        source = os.path.join(folder, "blocks")
        with open(source, "wb") as file:
            for number in range(COUNT):
                file.write(block(number))

        def ctl(verb):
            keys = ["--store", address, "--keys", data + ".tenants"]
            return subprocess.run(
                [HOLDFAST, "ctl", verb, "n", source, "--block", "64KiB", *keys], capture_output=True, text=True
            )

        def start():
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            connect(port)
            return process

        process = start()
        filled = ctl("put")
        assert filled.returncode == 0, filled.stderr
        process.send_signal(signal.SIGKILL if fault == "kill -9" else signal.SIGTERM)
        process.wait()
        note = ""
        if fault != "kill -9":
            with open(data, "r+b") as file:
                content = file.read()
                hit = 0
                for number in range(0, COUNT, COUNT // FLIPS):
                    place = content.find(block(number)[:64])
                    if place < 0:
                        continue
                    hit += 1
                    file.seek(place + 1000)
                    file.write(bytes([content[place + 1000] ^ 1]))
            note = f"{hit} blocks were hit"
        process = start()
        said = ctl("check").stdout
        found = re.search(r"(\d+) blocks right, (\d+) missing, (\d+) wrong", said)
        row("Holdfast, restart-safe", fault, found.group(2), found.group(3), note)
        process.terminate()
        process.wait()


print(f"{'store':34} {'fault':12} {'put':>5} {'lost':>6} {'wrong':>6}")
quiet = ["--bind", "127.0.0.1", "--save"]
peers = [
    Redis("redis, appendfsync always", [*quiet, "", "--appendonly", "yes", "--appendfsync", "always"]),
    Redis("redis, appendfsync everysec", [*quiet, "", "--appendonly", "yes", "--appendfsync", "everysec"]),
    Redis("redis, snapshot at shutdown", [*quiet, "3600 1000000"]),
    Redis("redis, snapshot without checksum", [*quiet, "3600 1000000", "--rdbchecksum", "no"]),
    Memcached("memcached", []),
]
for fault in ("kill -9", "bit flips"):
    holdfast(fault)
if MooncakeDistributedStore is None:
    print("Mooncake Store is left out: its package is not installed beside this interpreter", file=sys.stderr)
else:
    peers.append(Mooncake())
for peer in peers:
    kill(peer)
    rot(peer)
