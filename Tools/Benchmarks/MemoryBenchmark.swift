// Node memory: a block copied into the engine's memory, with and without its checksum, against memcpy of the same bytes on
// the same pages; and how long another process needs to attach to an arena.

import Foundation
import KVMemory
import KVModel
import KVSystem

struct MemoryBenchmark: Benchmark {
    let name = "memory"
    let purpose = "DRAM hits copied into the engine's memory, and attaching to an arena, against memcpy and a bound."
    private static let regionBytes = 256 << 20
    private static let batchBytes = 64 << 20

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        var rows: [BenchmarkRow] = []
        for blockBytes in [2 << 20, 16 << 20] {
            let load = try MemoryLoad(blockBytes: blockBytes, regionBytes: Self.regionBytes)
            for check in [CopyCheck.none, .compare] {
                let pairs = PairedRuns(
                    count: setting.pairCount, ours: { seconds { load.throughEngine(check) } },
                    reference: { seconds { load.throughMemcpy() } })
                let kind = check == .none ? "no checksum" : "checksum"
                rows.append(
                    pairs.row(
                        name: "memory: \(blockBytes >> 20) MiB hit, \(kind)", unit: "s/\(Self.regionBytes >> 20) MiB",
                        referenceName: "memcpy (bound: \(check == .none ? "0.95" : "0.85"))",
                        conditions:
                            "engine-owned; arena to a second shared mapping, both on \(load.pages) pages; one copy "
                            + "thread, batches of \(Self.batchBytes >> 20) MiB; processor time, hand-over included"))
            }
            load.shutDown()
        }
        rows.append(try attachRow(setting))
        return rows
    }

    /// A Python process, as engines are, opens the file of an arena of 4 GiB, maps it and reads its two ends. The arena is not touched by it otherwise, so that its size does not matter.
    private func attachRow(_ setting: BenchmarkSetting) throws -> BenchmarkRow {
        var configuration = ArenaConfiguration(slotBytes: 2 << 20, slotCount: 2048)
        configuration.wantsPinning = false
        let arena = try MemoryArena(configuration)
        unsafe arena.memory[arena.slice(0, 1)][0] = 11
        unsafe arena.memory.regions[0][arena.byteCount - 1] = 22
        var measured: [Double] = []
        for _ in 0..<max(6, setting.longRunCount) { measured.append(try Attachment.seconds(to: arena, setting.python)) }
        return boundRow(
            name: "memory: attach to 4 GiB", unit: "s", measured: measured, bound: 1, boundName: "1 s",
            conditions: "a second process, from opening the memory file to having read the first and the last byte")
    }
}

/// Two mappings full of blocks, and a copy engine between them.
private final class MemoryLoad {
    let pages: String
    private let arena: MemoryArena
    private let engineMemory: MemoryArena
    private let engine: CopyEngine
    private let done: DispatchSemaphore
    private let batches: [[BlockCopy]]

    init(blockBytes: Int, regionBytes: Int) throws {
        var configuration = ArenaConfiguration(slotBytes: blockBytes, slotCount: regionBytes / blockBytes)
        configuration.wantsPinning = false
        let ready = DispatchSemaphore(value: 0)
        let tell: @Sendable (ArenaStatus) -> Void = { if $0.isComplete { ready.signal() } }
        arena = try MemoryArena(configuration, progress: tell)
        engineMemory = try MemoryArena(configuration, progress: tell)
        ready.wait()
        ready.wait()
        pages = arena.status.pages.rawValue
        let done = DispatchSemaphore(value: 0)
        self.done = done
        engine = try CopyEngine(workerCount: 1, batchesMax: 64) { batch in
            precondition(batch.copies.allSatisfy(\.isWhole), "a copy that is not right")
            done.signal()
        }
        var source = RandomSource(seed: 3)
        let words = unsafe arena.memory.regions[0].bindMemory(to: UInt64.self)
        for index in words.indices { unsafe words[index] = source.next() }
        var copies: [BlockCopy] = []
        for slot in 0..<arena.slotCount {
            let name = ObjectName(FullKey(UInt64(slot), 1, 2, 3))
            let bytes = unsafe UnsafeRawBufferPointer(arena.memory[arena.slice(slot, blockBytes)])
            // Another order on the other side, as slots are never in order.
            let target = (slot * 5 + 1) % arena.slotCount
            copies.append(
                BlockCopy(
                    from: arena.slice(slot, blockBytes), to: arena.slice(target, blockBytes), name: name,
                    checksum: unsafe BlockChecksum.of(name, bytes)))
        }
        let perBatch = max(1, (64 << 20) / blockBytes)
        batches = stride(from: 0, to: copies.count, by: perBatch).map {
            Array(copies[$0..<min(copies.count, $0 + perBatch)])
        }
    }

    func throughEngine(_ check: CopyCheck) {
        for (tag, copies) in batches.enumerated() {
            let batch = CopyBatch(
                tag: UInt64(tag), source: arena.memory, target: engineMemory.memory, copies: copies, check: check)
            precondition(engine.post(batch) == .accepted, "a copy engine without room")
        }
        for _ in batches { done.wait() }
    }

    func throughMemcpy() {
        for copies in batches {
            for copy in copies {
                unsafe memcpy(
                    engineMemory.memory[copy.to].baseAddress!, arena.memory[copy.from].baseAddress!, copy.from.count)
            }
        }
    }

    func shutDown() { engine.shutDown() }
}

/// A second process that attaches to an arena.
private enum Attachment {
    private static let script = """
        import mmap, os, sys, time
        start = time.monotonic_ns()
        file = os.open(sys.argv[1], os.O_RDWR)
        memory = mmap.mmap(file, os.fstat(file).st_size)
        assert (memory[0], memory[-1]) == (11, 22)
        print(time.monotonic_ns() - start)
        """

    static func seconds(to arena: MemoryArena, _ python: String) throws -> Double {
        let path = "/proc/\(ProcessInfo.processInfo.processIdentifier)/fd/\(arena.descriptor)"
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [python, "-c", script, path]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard let nanoseconds = Double(text.trimmingCharacters(in: .whitespacesAndNewlines)) else {
            throw OperatorError("the second process could not attach", at: "memory")
        }
        return nanoseconds * 1e-9
    }
}
