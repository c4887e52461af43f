// An arena is usable at once, ready step by step, never larger than it was said to be, and the same memory for whoever
// is passed its descriptor.

import Foundation
import KVMemory
import KVModel
import KVSystem
import Synchronization
import Testing

@Suite struct MemoryArenaTests {
    private static let unit = 2 << 20

    private func configuration(
        slotBytes: Int = 64 << 10, slotCount: Int = 160, huge: Bool = true
    ) -> ArenaConfiguration {
        var configuration = ArenaConfiguration(slotBytes: slotBytes, slotCount: slotCount)
        configuration.chunkBytes = Self.unit
        configuration.wantsHugePages = huge
        configuration.wantsPinning = false
        return configuration
    }

    /// Keeps what the arena says, and lets a test wait until it is done.
    private final class Watcher: Sendable {
        let steps = Mutex<[ArenaStatus]>([])
        private let done = DispatchSemaphore(value: 0)
        func note(_ status: ArenaStatus) {
            steps.withLock { $0.append(status) }
            if status.isComplete { done.signal() }
        }
        func waitUntilComplete() -> Bool { done.wait(timeout: .now() + 30) == .success }
    }

    @Test func readinessGrowsChunkByChunkToTheLastByte() throws {
        let watcher = Watcher()
        let arena = try MemoryArena(configuration(), progress: watcher.note)
        #expect(watcher.waitUntilComplete())
        let steps = watcher.steps.withLock { $0 }
        // 160 slots of 64 KiB: five chunks of 2 MiB, and the word that all is done.
        #expect(steps.map(\.readyBytes) == [1, 2, 3, 4, 5, 5].map { $0 * Self.unit })
        #expect(steps.map(\.readySlots) == [32, 64, 96, 128, 160, 160])
        #expect(steps.map(\.isComplete) == [false, false, false, false, false, true])
        #expect(arena.status == steps.last)
        #expect(arena.byteCount == 5 * Self.unit)
        #expect(arena.status.failures == [])
    }

    @Test func theFileHasTheBytesThatWereSaidAndKeepsThem() throws {
        for huge in [true, false] {
            let arena = try MemoryArena(configuration(slotBytes: 12 << 10, slotCount: 7, huge: huge))
            #expect(arena.byteCount == (huge ? Self.unit : 7 * 12 << 10))
            var status = stat()
            #expect(unsafe fstat(arena.descriptor, &status) == 0)
            #expect(Int(status.st_size) == arena.byteCount)
            #expect(ftruncate(arena.descriptor, 4096) == -1)
            #expect(ftruncate(arena.descriptor, arena.byteCount + 4096) == -1)
        }
    }

    @Test func slotsLieSideBySideAndKeepWhatIsWrittenWhileTheRestBecomesReady() throws {
        let watcher = Watcher()
        let arena = try MemoryArena(configuration(), progress: watcher.note)
        for slot in 0..<arena.slotCount {
            let room = unsafe arena.memory[arena.slice(slot, arena.slotBytes)]
            unsafe room.storeBytes(of: UInt64(slot + 1), as: UInt64.self)
            unsafe room.storeBytes(of: UInt64(slot + 1), toByteOffset: room.count - 8, as: UInt64.self)
        }
        #expect(watcher.waitUntilComplete())
        for slot in 0..<arena.slotCount {
            let bytes = unsafe arena.memory.regions[0]
            #expect(unsafe bytes.load(fromByteOffset: slot * arena.slotBytes, as: UInt64.self) == UInt64(slot + 1))
            #expect(
                unsafe bytes.load(fromByteOffset: (slot + 1) * arena.slotBytes - 8, as: UInt64.self) == UInt64(slot + 1)
            )
        }
    }

    @Test func hooksAreToldEachChunkInOrderAndTheWholeAtTheEnd() throws {
        let told = Mutex<[String]>([])
        let watcher = Watcher()
        let hooks = [
            ArenaHook("ring", scope: .chunk) { slice, memory in
                // The pages are there: a hook may write to them at once.
                unsafe memory[slice][0] = 1
                told.withLock { $0.append("chunk \(slice.offset / Self.unit)+\(slice.count / Self.unit)") }
            },
            ArenaHook("queue pairs", scope: .whole) { slice, _ in
                told.withLock { $0.append("whole \(slice.offset)+\(slice.count / Self.unit)") }
            },
        ]
        let arena = try MemoryArena(configuration(slotCount: 96), hooks: hooks, progress: watcher.note)
        #expect(watcher.waitUntilComplete())
        #expect(told.withLock { $0 } == ["chunk 0+1", "chunk 1+1", "chunk 2+1", "whole 0+3"])
        #expect(arena.status.failures == [])
    }

    @Test func aHookThatFailsIsNamedAndNotAskedAgain() throws {
        let calls = Mutex(0)
        let watcher = Watcher()
        let hook = ArenaHook("CUDA", scope: .chunk) { _, _ throws(OperatorError) in
            calls.withLock { $0 += 1 }
            throw OperatorError("no room for another registration")
        }
        let arena = try MemoryArena(configuration(), hooks: [hook], progress: watcher.note)
        #expect(watcher.waitUntilComplete())
        #expect(calls.withLock { $0 } == 1)
        #expect(arena.status.failures == ["CUDA: no room for another registration"])
        #expect(arena.status.readySlots == arena.slotCount)
    }

    @Test func anArenaThatIsLetGoInTheMiddleEnds() throws {
        var configuration = configuration(slotCount: 1600)
        configuration.name = "let-go-in-the-middle"
        for _ in 0..<20 { _ = try MemoryArena(configuration) }
        #expect(descriptors(of: configuration.name) == 0)
        let held = try MemoryArena(configuration)
        #expect(descriptors(of: configuration.name) == 1)
        withExtendedLifetime(held) {}
    }

    @Test func moreMemoryThanThereIsGetsOneClearError() {
        let error = #expect(throws: OperatorError.self) {
            _ = try MemoryArena(configuration(slotBytes: 1 << 30, slotCount: 1 << 20))
        }
        #expect(error?.place.hasPrefix("memory of ") == true)
        #expect(error?.what.contains("this process can have") == true)
        #expect(error?.remedy == "ask for less, or free memory")
    }

    @Test func slotsOfImpossibleSizesAreRefused() {
        for (slotBytes, slotCount) in [(0, 1), (4096, 0), (5000, 1), (-4096, 1), (1 << 40, 1 << 40)] {
            #expect(throws: OperatorError.self) {
                _ = try MemoryArena(configuration(slotBytes: slotBytes, slotCount: slotCount))
            }
        }
    }

    @Test func withoutHugePagesItSaysSo() throws {
        #expect(try MemoryArena(configuration(huge: false)).status.pages == .ordinary)
    }

    @Test func pinnedBytesAreCountedOrTheReasonIsGiven() throws {
        var wanted = configuration()
        wanted.wantsPinning = true
        let watcher = Watcher()
        let arena = try MemoryArena(wanted, progress: watcher.note)
        #expect(watcher.waitUntilComplete())
        let status = arena.status
        #expect((status.pinnedBytes == arena.byteCount) == status.failures.isEmpty)
        #expect(status.readyBytes == arena.byteCount)
    }

    @Test func aSecondMappingSeesTheSameBytesAndCannotLoseThem() throws {
        let arena = try MemoryArena(configuration())
        let region = try SharedRegion(descriptor: arena.descriptor, byteCount: arena.byteCount)
        #expect(region.isSealed)
        unsafe arena.memory[arena.slice(159, 8)].storeBytes(of: 0x1122_3344_5566_7788, as: UInt64.self)
        let seen = unsafe region.memory[MemorySlice(offset: 159 * arena.slotBytes, count: 8)].load(as: UInt64.self)
        #expect(seen == 0x1122_3344_5566_7788)
    }

    /// Another program, in another language, is passed nothing but the descriptor.
    @Test func anotherProcessAttachesToTheSameBytes() throws {
        let arena = try MemoryArena(configuration())
        unsafe arena.memory[arena.slice(3, 5)].copyBytes(from: Array("hello".utf8))
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        let path = "/proc/\(ProcessInfo.processInfo.processIdentifier)/fd/\(arena.descriptor)"
        let script = """
            import mmap, os, sys
            file = os.open(sys.argv[1], os.O_RDWR)
            memory = mmap.mmap(file, os.fstat(file).st_size)
            assert memory[3 * 65536 : 3 * 65536 + 5] == b"hello"
            memory[4 * 65536 : 4 * 65536 + 5] = b"there"
            """
        process.arguments = ["python3", "-c", script, path]
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        #expect(unsafe Array(arena.memory[arena.slice(4, 5)]) == Array("there".utf8))
    }

    /// How many descriptors of this process are memory files of a name.
    private func descriptors(of name: String) -> Int {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        return all.filter { number in
            let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(number)")
            return target?.contains("memfd:\(name)") == true
        }.count
    }
}
