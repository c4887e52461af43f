// The stores that people would use instead, started as processes of their own on ports of this machine, and the least
// client that speaks to them: blocking calls, requests under way as many as ours, payloads straight into their slots.

import CKernel
import Foundation
import KVModel
import KVSystem

/// A process that serves, and what it takes.
final class PeerProcess {
    let process = Process()

    init(_ arguments: [String], folder: String, input: Pipe? = nil, output: Pipe? = nil) throws {
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        process.standardInput = input ?? FileHandle.nullDevice
        process.standardOutput = output ?? FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
    }

    /// Processor seconds of all its threads so far.
    var processorSeconds: Double {
        let tasks = "/proc/\(process.processIdentifier)/task"
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
        return threads.reduce(0) { sum, thread in
            let text = (try? String(contentsOfFile: "\(tasks)/\(thread)/schedstat", encoding: .utf8)) ?? ""
            return sum + (text.split(separator: " ").first.flatMap { Double($0) } ?? 0) * 1e-9
        }
    }

    /// A port that nobody listens on now.
    static func freePort() throws -> UInt16 {
        let listener = unsafe try checked(hf_tcp_listen("127.0.0.1", 0, 1), "find a port")
        defer { hf_close(listener) }
        return UInt16(try checked(hf_socket_port(listener), "ask for a port"))
    }
}

/// Something that keeps blocks under numbers.
protocol PeerStore: AnyObject {
    var name: String { get }
    /// Puts or gets blocks 0 ..< count, so many under way; the processor's seconds are those of both ends.
    func run(isPut: Bool, blockBytes: Int, depth: Int, count: Int) throws -> LoadRun
    func stop()
}

/// How requests and answers of a text protocol look.
struct PeerDialect {
    let get: @Sendable (Int) -> String
    let put: @Sendable (Int, Int) -> String
    /// What follows a payload that is put.
    let putTail = "\r\n"
    /// What answers a put.
    let stored: String
    /// What follows a payload that was got.
    let gotTail: String

    static let redis = PeerDialect(
        get: { "*2\r\n$3\r\nGET\r\n$8\r\n\(key($0))\r\n" },
        put: { "*3\r\n$3\r\nSET\r\n$8\r\n\(key($0))\r\n$\($1)\r\n" }, stored: "+OK\r\n", gotTail: "\r\n")
    static let memcached = PeerDialect(
        get: { "get \(key($0))\r\n" }, put: { "set \(key($0)) 0 0 \($1)\r\n" }, stored: "STORED\r\n",
        gotTail: "\r\nEND\r\n")

    private static func key(_ number: Int) -> String { "k" + String(number + 1_000_000) }
}

/// A peer that speaks text and payloads over TCP.
@safe
final class TextPeer: PeerStore {
    let name: String
    private let dialect: PeerDialect
    private let server: PeerProcess
    private let socket: Int32
    private let memory: BlockMemory
    private let line: UnsafeMutableRawBufferPointer

    init(_ name: String, _ dialect: PeerDialect, _ memory: BlockMemory, folder: String, command: (UInt16) -> [String])
        throws
    {
        self.name = name
        self.dialect = dialect
        self.memory = memory
        let port = try PeerProcess.freePort()
        server = try PeerProcess(command(port), folder: folder)
        unsafe line = .allocate(byteCount: 256, alignment: 16)
        let deadline = MonotonicClock.now + Duration(seconds: 10)
        while true {
            let tried = unsafe try checked(hf_tcp_connect("127.0.0.1", port), "connect to \(name)")
            var waiting = pollfd(fd: tried, events: Int16(POLLOUT), revents: 0)
            _ = unsafe poll(&waiting, 1, 1000)
            if hf_socket_error(tried) == 0 {
                socket = tried
                break
            }
            hf_close(tried)
            guard MonotonicClock.now < deadline else { throw BenchmarkFailure(what: "\(name) does not listen") }
            Thread.sleep(forTimeInterval: 0.05)
        }
        hf_tcp_configure(socket, 10_000, 0)
        _ = fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK)
    }

    func stop() {
        hf_close(socket)
        server.stop()
        unsafe line.deallocate()
    }

    func run(isPut: Bool, blockBytes: Int, depth: Int, count: Int) throws -> LoadRun {
        let before = server.processorSeconds
        var sent = 0
        var run = try LoadRun.timed {
            func ask() throws {
                if isPut {
                    try send(dialect.put(sent, blockBytes))
                    unsafe try send(UnsafeRawBufferPointer(memory[slice(sent % depth, blockBytes)]))
                    try send(dialect.putTail)
                } else {
                    try send(dialect.get(sent))
                }
                sent += 1
            }
            while sent < min(depth, count) { try ask() }
            for number in 0..<count {
                if isPut {
                    try expect(dialect.stored)
                } else {
                    try takeLine()
                    unsafe try receive(memory[slice(number % depth, blockBytes)])
                    try expect(dialect.gotTail)
                }
                if sent < count { try ask() }
            }
            return []
        }
        run.processor += server.processorSeconds - before
        return run
    }

    private func slice(_ slot: Int, _ bytes: Int) -> MemorySlice { MemorySlice(offset: slot * bytes, count: bytes) }

    private func send(_ text: String) throws {
        var text = text
        try text.withUTF8 { unsafe try send(UnsafeRawBufferPointer($0)) }
    }

    private func send(_ bytes: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < bytes.count {
            let count = unsafe Int(hf_send(socket, bytes.baseAddress! + done, bytes.count - done, 0))
            guard count > 0 else { throw BenchmarkFailure(what: "\(name) broke off") }
            done += count
        }
    }

    private func receive(_ bytes: UnsafeMutableRawBufferPointer) throws {
        var done = 0
        while done < bytes.count {
            let count = unsafe Int(hf_receive(socket, bytes.baseAddress! + done, bytes.count - done))
            guard count > 0 else { throw BenchmarkFailure(what: "\(name) broke off") }
            done += count
        }
    }

    private func expect(_ text: String) throws {
        unsafe try receive(UnsafeMutableRawBufferPointer(rebasing: line[0..<text.utf8.count]))
        guard unsafe line[0..<text.utf8.count].elementsEqual(text.utf8) else {
            throw BenchmarkFailure(what: "\(name) answers otherwise than \(text.debugDescription)")
        }
    }

    /// The line before a payload, byte by byte: it is short, and what follows it must stay in the socket.
    private func takeLine() throws {
        var last: UInt8 = 0
        var first: UInt8 = 0
        repeat {
            unsafe try receive(UnsafeMutableRawBufferPointer(rebasing: line[0..<1]))
            last = unsafe line[0]
            if first == 0 { first = last }
        } while last != UInt8(ascii: "\n")
        guard first == UInt8(ascii: "$") || first == UInt8(ascii: "V") else {
            throw BenchmarkFailure(what: "\(name) does not have the block")
        }
    }
}

/// Mooncake Store: its master, a process that lends memory, and its own client in a third.
final class MooncakePeer: PeerStore {
    let name = "Mooncake Store"
    private let processes: [PeerProcess]
    private let client: PeerProcess
    private let input = Pipe()
    private let output = Pipe()

    init(python: String, script: String, folder: String) throws {
        let rpc = try PeerProcess.freePort()
        let meta = try PeerProcess.freePort()
        let master = URL(fileURLWithPath: python).deletingLastPathComponent().appendingPathComponent("mooncake_master")
        processes = [
            try PeerProcess(
                [
                    master.path, "-rpc_port=\(rpc)", "-enable_http_metadata_server=true",
                    "-http_metadata_server_host=127.0.0.1", "-http_metadata_server_port=\(meta)", "-metrics_port=0",
                ], folder: folder),
            try PeerProcess([python, script, "lend", "\(rpc)", "\(meta)"], folder: folder, input: Pipe()),
        ]
        client = try PeerProcess(
            [python, script, "ask", "\(rpc)", "\(meta)"], folder: folder, input: input, output: output)
        guard try line() == "ready" else { throw BenchmarkFailure(what: "Mooncake Store does not start") }
    }

    func stop() { for process in [client] + processes { process.stop() } }

    func run(isPut: Bool, blockBytes: Int, depth: Int, count: Int) throws -> LoadRun {
        let all = [client] + processes
        let before = all.reduce(0) { $0 + $1.processorSeconds }
        input.fileHandleForWriting.write(Data("\(isPut ? "put" : "get") \(blockBytes) \(depth) \(count)\n".utf8))
        guard let wall = Double(try line()) else { throw BenchmarkFailure(what: "Mooncake Store failed") }
        var run = LoadRun()
        run.wall = wall
        run.processor = all.reduce(0) { $0 + $1.processorSeconds } - before
        return run
    }

    /// Seconds of a call that asks whether so many keys are there, the median of some calls; all are.
    func lookUpSeconds(keys: Int, calls: Int) throws -> Double {
        input.fileHandleForWriting.write(Data("look \(keys) \(calls)\n".utf8))
        guard let wall = Double(try line()) else {
            throw BenchmarkFailure(what: "Mooncake Store does not find its keys")
        }
        return wall
    }

    private func line() throws -> String {
        var text = ""
        while true {
            let byte = output.fileHandleForReading.readData(ofLength: 1)
            guard let byte = byte.first else { throw BenchmarkFailure(what: "Mooncake Store's client ended") }
            if byte == UInt8(ascii: "\n") {
                if text.hasPrefix("> ") { return String(text.dropFirst(2)) }
                text = ""
            } else {
                text.append(Character(UnicodeScalar(byte)))
            }
        }
    }
}
