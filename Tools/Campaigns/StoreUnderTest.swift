// A real `holdfast store` in a process of its own, and the blocks that the campaigns keep in it.

import Foundation
import KVModel
import KVStore
import KVSystem
import KVTransport
import Synchronization

/// A server of this repository in a process of its own.
struct ServingProcess {
    /// What a server said before it ended without serving.
    struct DidNotStart: Error { let log: String }

    let process = Process()
    /// Where it serves on 127.0.0.1.
    let port: UInt16

    /// Starts a binary that lies beside this one and waits, at most a minute, until its log says where it serves.
    init(_ binary: String, _ arguments: [String], log: String, says words: String) throws {
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        process.executableURL = own.appendingPathComponent(binary)
        process.arguments = arguments
        // To a file: nobody has to empty it.
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        process.standardError = FileHandle(forWritingAtPath: log)
        process.standardOutput = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let started = Started(process: process)
        Self.started.withLock { $0.append(started) }
        let deadline = Date() + 60
        var text = ""
        while true {
            text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
            if let found = text.range(of: words + "127.0.0.1:") {
                let digits = text[found.upperBound...].prefix { $0.isNumber }
                if digits.endIndex < text.endIndex, let port = UInt16(digits) {
                    self.port = port
                    return
                }
            }
            guard process.isRunning, Date() < deadline else { break }
            usleep(5000)
        }
        process.terminate()
        throw DidNotStart(log: text)
    }

    /// A process may be asked about from any thread.
    private struct Started: @unchecked Sendable {
        let process: Process

        func kill() {
            guard process.isRunning else { return }
            Glibc.kill(process.processIdentifier, SIGKILL)
        }
    }

    private static let started = Mutex<[Started]>([])
    private static let interrupts = Mutex<[Interrupt]>([])

    private struct Interrupt: @unchecked Sendable { let source: any DispatchSourceSignal }

    /// When this process is asked to end, what it started ends first: a server that is held still would stay for ever.
    static func endAllWithThis() {
        for number in [SIGINT, SIGTERM] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                for child in started.withLock({ $0 }) { child.kill() }
                exit(128 + number)
            }
            source.resume()
            let interrupt = Interrupt(source: source)
            interrupts.withLock { $0.append(interrupt) }
        }
    }
}

/// A store that serves one file, and can be killed.
final class StoreUnderTest: Sendable {
    let port: UInt16
    let identifier: Int32
    /// The file with its tenants' keys.
    let keys: String
    private let process: Process

    /// Starts it and waits until it serves.
    ///
    /// - Parameter slowMicroseconds: How long each command holds its drive up; 0: the drive as it is.
    init(_ folder: ScratchFolder, size: String, memory: String, slowMicroseconds: Int = 0) throws {
        let drive = folder.path + "/store.flash"
        keys = drive + ".tenants"
        var arguments = [
            "--data", drive, "--size", size, "--extent", "64KiB", "--payload-max", "1MiB", "--dram", memory,
        ]
        if slowMicroseconds > 0 {
            arguments = ["slow-store"] + arguments + ["--slow-microseconds", "\(slowMicroseconds)"]
        } else {
            arguments = ["store"] + arguments + ["--listen", "127.0.0.1:0", "--http", ""]
        }
        let started = try ServingProcess(
            slowMicroseconds > 0 ? "holdfast-campaign" : "holdfast", arguments, log: folder.path + "/store.log",
            says: "address=tcp ")
        (process, port, identifier) = (started.process, started.port, started.process.processIdentifier)
    }

    deinit { kill() }

    /// Ends it as a power supply would end it, without a word.
    func kill() {
        guard process.isRunning else { return }
        Glibc.kill(identifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Holds it still, with all that it has open.
    func pause() { Glibc.kill(identifier, SIGSTOP) }

    func resume() { Glibc.kill(identifier, SIGCONT) }

    /// A client with `slotCount` slots of 1 MiB.
    func connect(slotCount: Int) throws -> StoreBlocks {
        guard let tenant = try Tenants(file: keys).byName["local"] else {
            throw OperatorError("the store made no tenant", at: keys)
        }
        let memory = try BlockMemory(byteCount: slotCount << 20)
        let client = try StoreClient(
            StoreClientConfiguration(
                routes: [.tcp(host: "127.0.0.1", port: port)], tenant: "local", secret: tenant.secret),
            memory: memory, sink: { _ in })
        return StoreBlocks(client: client, memory: memory)
    }
}

/// Blocks whose name, length and bytes follow from a number, and a client that keeps them.
struct StoreBlocks: Sendable {
    static let extentBytes = 64 << 10
    private static let limit = Duration(seconds: 30)
    let client: StoreClient
    let memory: BlockMemory

    /// What came of a get.
    enum Got: Equatable {
        case right, absent, wrong, cut, late, other(String)
    }

    static func name(_ number: UInt64) -> ObjectName {
        ObjectName(FullKey(mixBits(number), number, mixBits(number ^ 1), mixBits(number ^ 2)))
    }

    static func payloadBytes(_ number: UInt64) -> Int { 4096 + Int(mixBits(number ^ 99) % (220 << 10)) }

    func slot(_ slot: Int, _ count: Int) -> MemorySlice { MemorySlice(offset: slot << 20, count: count) }

    func open() async -> NamespaceHandle? {
        let response = await client.call(.openNamespace(name: "campaign"), within: Self.limit)
        guard response.status == .ok, case .namespace(let handle) = response.body else { return nil }
        return handle
    }

    func put(_ handle: NamespaceHandle, _ number: UInt64, slot number2: Int) async -> Status {
        let place = slot(number2, Self.payloadBytes(number))
        unsafe Self.fill(memory[place], number)
        let checksum = unsafe BlockChecksum.of(Self.name(number), UnsafeRawBufferPointer(memory[place]))
        let request = Request.put(
            handle, Self.name(number), ObjectMetadata(), payloadBytes: place.count, checksum: checksum)
        return await client.call(request, slot: place, within: Self.limit).status
    }

    /// Gets a block and looks at each of its bytes.
    func get(_ handle: NamespaceHandle, _ number: UInt64, slot number2: Int) async -> Got {
        let place = slot(number2, 1 << 20)
        let response = await client.call(.get(handle, Self.name(number)), slot: place, within: Self.limit)
        switch response.status {
        case .ok:
            guard case .object(let count, _, _) = response.body, count == Self.payloadBytes(number) else {
                return .wrong
            }
            return unsafe Self.holds(UnsafeRawBufferPointer(memory[place.prefix(count)]), number) ? .right : .wrong
        case .absent: return .absent
        case .disconnected: return .cut
        case .deadlinePassed: return .late
        default: return .other("\(response.status)")
        }
    }

    func delete(_ handle: NamespaceHandle, _ number: UInt64) async -> Status {
        let response = await client.call(.delete(handle, [Self.name(number)]), within: Self.limit)
        guard case .statuses(let statuses) = response.body, let status = statuses.first else { return response.status }
        return status
    }

    /// Extents that all listed objects need, and how many there are. Nil: the store did not say.
    func listed(_ handle: NamespaceHandle) async -> (objects: Int, extents: Int)? {
        var cursor: UInt64 = 0
        var (objects, extents) = (0, 0)
        repeat {
            let response = await client.call(.list(handle, cursor: cursor, countMax: 1000), within: Self.limit)
            guard response.status == .ok, case .page(let page, let next) = response.body else { return nil }
            objects += page.count
            extents += page.reduce(0) { $0 + (Int($1.payloadBytes) + Self.extentBytes - 1) / Self.extentBytes }
            cursor = next
        } while cursor != 0
        return (objects, extents)
    }

    func status() async -> StoreStatus? {
        let response = await client.call(.stat, within: Self.limit)
        guard response.status == .ok, case .text(let text) = response.body else { return nil }
        return try? JSONDecoder().decode(StoreStatus.self, from: Data(text))
    }

    private static func fill(_ bytes: UnsafeMutableRawBufferPointer, _ number: UInt64) {
        var source = RandomSource(seed: number)
        let whole = bytes.count / 8 * 8
        for offset in stride(from: 0, to: whole, by: 8) {
            unsafe bytes.storeBytes(of: source.next(), toByteOffset: offset, as: UInt64.self)
        }
        for offset in whole..<bytes.count { unsafe bytes[offset] = UInt8(truncatingIfNeeded: number) }
    }

    private static func holds(_ bytes: UnsafeRawBufferPointer, _ number: UInt64) -> Bool {
        var source = RandomSource(seed: number)
        let whole = bytes.count / 8 * 8
        for offset in stride(from: 0, to: whole, by: 8) {
            guard unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) == source.next() else {
                return false
            }
        }
        for offset in whole..<bytes.count {
            guard unsafe bytes[offset] == UInt8(truncatingIfNeeded: number) else { return false }
        }
        return true
    }
}
