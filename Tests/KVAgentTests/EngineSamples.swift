// What the door's tests share: names, hellos, random frames, waiting with a deadline.

import CKernel
import Foundation
import KVAgent
import KVIdentity
import KVModel
import KVSystem
import KVTiering
import Synchronization
import Testing

enum Sample {
    static let blockBytes = 4096

    static func fields(model: String = "test") -> [String: String] {
        var fields = Dictionary(uniqueKeysWithValues: NamespaceIdentity.required.map { ($0, "1") })
        fields["block_tokens"] = "16"
        fields["model"] = model
        return fields
    }

    static func hello(model: String = "test", kind: String = "replay") -> EngineHello {
        EngineHello(
            kind: kind, process: 0, ownership: .engine, namespace: fields(model: model), storeNamespace: "default",
            blockTokens: 16, blockBytes: blockBytes)
    }

    /// An engine that waits long enough for a machine that is busy.
    static func patient(_ path: String, _ hello: EngineHello = hello()) -> EngineClientConfiguration {
        var configuration = EngineClientConfiguration(path: path, hello: hello)
        configuration.lookUpLimit = Duration(seconds: 10)
        configuration.jobLimit = Duration(seconds: 10)
        return configuration
    }

    static func greeting(_ hello: EngineHello = hello()) throws -> EngineGreeting {
        EngineGreeting(
            digest: try NamespaceIdentity(fields: hello.namespace).digest, client: "tests", hello: hello)
    }

    static func names(_ seed: UInt64, _ count: Int, group: UInt16 = 0) -> [ObjectName] {
        var random = RandomSource(seed: seed)
        return (0..<count).map { _ in
            ObjectName(FullKey(random.next(), random.next(), random.next(), random.next()), group: group)
        }
    }

    static func rows(_ rows: [Int], region: Int32 = 0) -> EnginePlaces {
        EnginePlaces(slices: rows.map { MemorySlice(region: region, offset: $0 * blockBytes, count: blockBytes) })
    }

    /// A folder of this test's own, removed at the end.
    static func inFolder(_ body: (String) throws -> Void) throws {
        let path = NSTemporaryDirectory() + "hf-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(path)
    }

    /// Waits until something holds; false after ten seconds.
    static func wait(_ condition: () -> Bool) -> Bool {
        let deadline = MonotonicClock.now + Duration(seconds: 10)
        while !condition() {
            guard MonotonicClock.now < deadline else { return false }
            usleep(500)
        }
        return true
    }
}

/// A value that one thread leaves for another.
final class Box<Value: Sendable>: Sendable {
    private let content = Mutex<Value?>(nil)
    func set(_ value: Value) { content.withLock { $0 = value } }
    var value: Value? { content.withLock { $0 } }
    /// Waits for it, at most ten seconds.
    func wait() -> Value? {
        _ = Sample.wait { self.value != nil }
        return value
    }
}

/// Memory of an engine in a file of its own; block i holds the byte i + 1 at first.
@safe
final class EngineMemory: @unchecked Sendable {
    let descriptor: Int32
    private let bytes: UnsafeMutableRawBufferPointer

    /// - Parameter sealed: Without, it is as vLLM makes its region: a plain file in /dev/shm, which cannot be sealed.
    /// - Parameter name: What the process's list of mappings calls it.
    init(blocks: Int, sealed: Bool = true, name: String = "engine") throws {
        let count = blocks * Sample.blockBytes
        if sealed {
            descriptor = try checked(unsafe hf_memory_file(name, Int64(count), 0), "make a memory file")
        } else {
            let path = "/dev/shm/hf-test-\(UInt64.random(in: 0 ... .max))"
            descriptor = try checked(unsafe hf_open_direct(path, HF_OPEN_CREATING | HF_OPEN_CACHED), "make \(path)")
            unsafe unlink(path)
            try #require(ftruncate(descriptor, count) == 0)
        }
        var address: UnsafeMutableRawPointer?
        _ = try checked(unsafe hf_map_shared(descriptor, count, 1, &address), "map it")
        unsafe bytes = UnsafeMutableRawBufferPointer(start: address, count: count)
        for place in 0..<count { unsafe bytes[place] = UInt8(truncatingIfNeeded: place / Sample.blockBytes + 1) }
    }

    var byteCount: Int { unsafe bytes.count }

    func holds(_ value: UInt8, at block: Int) -> Bool {
        unsafe bytes[(block * Sample.blockBytes)..<((block + 1) * Sample.blockBytes)].allSatisfy { $0 == value }
    }

    deinit {
        unsafe munmap(bytes.baseAddress, bytes.count)
        hf_close(descriptor)
    }
}
