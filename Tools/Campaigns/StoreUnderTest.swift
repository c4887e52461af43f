// A real `holdfast store` in a process of its own, and the blocks that the campaigns keep in it.

import Foundation
import KVModel
import KVStore
import KVSystem
import KVTransport

/// A store that serves one file, and can be killed.
final class StoreUnderTest: Sendable {
    /// What a store said before it ended without serving.
    struct DidNotStart: Error { let log: String }

    let port: UInt16
    let identifier: Int32
    private let process = Process()
    private let keys: String

    /// Starts it and waits, at most a minute, until it serves.
    init(_ folder: ScratchFolder, size: String, memory: String) throws {
        let drive = folder.path + "/store.flash"
        let log = folder.path + "/store.log"
        keys = drive + ".tenants"
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        process.executableURL = own.appendingPathComponent("holdfast")
        process.arguments = [
            "store", "--data", drive, "--size", size, "--extent", "64KiB", "--payload-max", "1MiB", "--dram", memory,
            "--listen", "127.0.0.1:0", "--http", "",
        ]
        // To a file: nobody has to empty it.
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        process.standardError = FileHandle(forWritingAtPath: log)
        process.standardOutput = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        try process.run()
        identifier = process.processIdentifier
        let deadline = Date() + 60
        var text = ""
        while true {
            text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
            if let match = text.firstMatch(of: /address=tcp 127\.0\.0\.1:(\d+).*\n/), let port = UInt16(match.1) {
                self.port = port
                return
            }
            guard process.isRunning, Date() < deadline else { break }
            usleep(5000)
        }
        process.terminate()
        throw DidNotStart(log: text)
    }

    deinit { kill() }

    /// Ends it as a power supply would end it, without a word.
    func kill() {
        guard process.isRunning else { return }
        Glibc.kill(identifier, SIGKILL)
        process.waitUntilExit()
    }

    /// A client with `slotCount` slots of 1 MiB.
    func connect(slotCount: Int) throws -> StoreBlocks {
        guard let tenant = try Tenants(file: keys).byName["local"] else { throw DidNotStart(log: "no tenant") }
        let memory = try BlockMemory(byteCount: slotCount << 20)
        let client = try StoreClient(
            StoreClientConfiguration(
                routes: [.tcp(host: "127.0.0.1", port: port)], tenant: "local", secret: tenant.secret),
            memory: memory, sink: { _ in })
        return StoreBlocks(client: client, memory: memory)
    }

    /// Bytes resident, and open descriptors.
    var footprint: (bytes: Int, descriptors: Int) {
        let statm = (try? String(contentsOfFile: "/proc/\(identifier)/statm", encoding: .utf8)) ?? ""
        let pages = statm.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(identifier)/fd").count) ?? -1
        return (pages * 4096, open)
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
