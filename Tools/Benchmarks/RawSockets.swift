// What blocks over TCP cost at the least: two threads, blocking calls, no protocol but a line of 64 bytes before each
// block, no checksum. The same socket options, sizes, memory and number of requests under way as the product's.

import CKernel
import Foundation
import KVModel
import KVSystem
import Synchronization

/// A server thread and a connection to it.
final class RawSockets: Sendable {
    private static let lineBytes = 64
    private let client: Int32
    private let thread: EngineThread
    private let clientMemory: BlockMemory
    private let blockBytes: Int
    private let blockCount: Int

    /// Serves blocks of one size out of (and into) a memory.
    init(server memory: BlockMemory, client clientMemory: BlockMemory, blockBytes: Int) throws {
        self.clientMemory = clientMemory
        self.blockBytes = blockBytes
        blockCount = unsafe memory.regions[0].count / blockBytes
        let listener = unsafe try checked(hf_tcp_listen("127.0.0.1", 0, 4), "listen")
        defer { hf_close(listener) }
        let port = UInt16(try checked(hf_socket_port(listener), "ask for a port"))
        client = unsafe try checked(hf_tcp_connect("127.0.0.1", port), "connect")
        var accepted: Int32 = -1
        while accepted < 0 { accepted = hf_accept(listener, nil, 0) }
        for descriptor in [client, accepted] {
            hf_tcp_configure(descriptor, 10_000, 0)
            _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
        }
        let server = accepted
        thread = try EngineThread("raw-server") {
            Self.serve(server, memory, blockBytes)
            hf_close(server)
        }
    }

    func shutDown() {
        hf_shut_down(client)
        thread.join()
        hf_close(client)
    }

    private static func serve(_ socket: Int32, _ memory: BlockMemory, _ blockBytes: Int) {
        let line = UnsafeMutableRawBufferPointer.allocate(byteCount: lineBytes, alignment: 64)
        defer { unsafe line.deallocate() }
        while unsafe receive(socket, line) {
            let block = unsafe Int(line.load(fromByteOffset: 8, as: UInt64.self))
            let bytes = unsafe memory[MemorySlice(offset: block * blockBytes, count: blockBytes)]
            if unsafe line.load(as: UInt64.self) == 0 {
                guard unsafe send(socket, line, bytes) else { return }
            } else {
                guard unsafe receive(socket, bytes), unsafe send(socket, line, nil) else { return }
            }
        }
    }

    private static func receive(_ socket: Int32, _ bytes: UnsafeMutableRawBufferPointer) -> Bool {
        var done = 0
        while done < bytes.count {
            let count = unsafe Int(hf_receive(socket, bytes.baseAddress! + done, bytes.count - done))
            guard count > 0 else { return false }
            done += count
        }
        return true
    }

    private static func send(
        _ socket: Int32, _ line: UnsafeMutableRawBufferPointer, _ bytes: UnsafeMutableRawBufferPointer?
    ) -> Bool {
        guard let bytes = unsafe bytes else {
            return unsafe hf_send(socket, line.baseAddress, line.count, 0) == Int64(line.count)
        }
        var done = unsafe Int(
            hf_send_two(socket, line.baseAddress, line.count, bytes.baseAddress, bytes.count))
        guard done >= line.count else { return false }
        done -= line.count
        while done < bytes.count {
            let count = unsafe Int(hf_send(socket, bytes.baseAddress! + done, bytes.count - done, 0))
            guard count > 0 else { return false }
            done += count
        }
        return true
    }

    /// Gets (or puts) `count` blocks in turn, `depth` of them under way.
    func run(isPut: Bool, depth: Int, count: Int) throws -> LoadRun {
        let line = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.lineBytes, alignment: 64)
        defer { unsafe line.deallocate() }
        var began = [Instant](repeating: .zero, count: depth)
        return try LoadRun.timed {
            var latencies: [Duration] = []
            latencies.reserveCapacity(count)
            var sent = 0
            func ask() -> Bool {
                let slot = sent % depth
                began[slot] = MonotonicClock.now
                unsafe line.storeBytes(of: isPut ? 1 : 0, as: UInt64.self)
                unsafe line.storeBytes(of: UInt64(sent % blockCount), toByteOffset: 8, as: UInt64.self)
                sent += 1
                return unsafe Self.send(client, line, isPut ? clientMemory[slice(slot)] : nil)
            }
            var isWell = true
            while sent < min(depth, count) { isWell = ask() && isWell }
            for number in 0..<count {
                isWell = unsafe isWell && Self.receive(client, line)
                if !isPut { isWell = unsafe isWell && Self.receive(client, clientMemory[slice(number % depth)]) }
                latencies.append(MonotonicClock.now - began[number % depth])
                if sent < count { isWell = ask() && isWell }
                if !isWell { throw BenchmarkFailure(what: "the raw connection broke") }
            }
            return latencies
        }
    }

    private func slice(_ slot: Int) -> MemorySlice { MemorySlice(offset: slot * blockBytes, count: blockBytes) }
}
