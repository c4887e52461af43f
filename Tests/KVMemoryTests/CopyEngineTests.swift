// Copies are exact and checked, a full engine says so, fences are honoured, and everything accepted comes back.

import Foundation
import KVMemory
import KVModel
import KVSystem
import Synchronization
import Testing

/// Takes what comes back, and waits for it with a deadline.
final class Returns<Batch: Sendable>: Sendable {
    private let batches = Mutex<[Batch]>([])
    private let semaphore = DispatchSemaphore(value: 0)

    func take(_ batch: sending Batch) {
        let batch = batch
        batches.withLock { $0.append(batch) }
        semaphore.signal()
    }

    /// The next so many, in the order in which they came; nil when they do not come.
    func next(_ count: Int) -> [Batch]? {
        for _ in 0..<count where semaphore.wait(timeout: .now() + 30) != .success { return nil }
        return batches.withLock { batches in
            defer { batches.removeFirst(count) }
            return Array(batches.prefix(count))
        }
    }

    var isEmpty: Bool { batches.withLock { $0.isEmpty } }
}

extension BlockMemory {
    /// Fills a slice with what its seed says.
    func fill(_ slice: MemorySlice, seed: UInt64) {
        var source = RandomSource(seed: seed)
        let bytes = unsafe self[slice]
        for index in bytes.indices { unsafe bytes[index] = UInt8(truncatingIfNeeded: source.next()) }
    }

    func bytes(_ slice: MemorySlice) -> [UInt8] { unsafe Array(self[slice]) }
}

@Suite struct CopyEngineTests {
    private static func name(_ number: Int) -> ObjectName { ObjectName(FullKey(UInt64(number), 1, 2, 3)) }

    /// Lengths and offsets on both sides of every threshold of the copy: cache lines, pieces, streaming.
    @Test func copiesAreExactAtEveryLengthAndOffset() throws {
        let source = try BlockMemory(byteCount: 4 << 20, wantsHugePages: false)
        let target = try BlockMemory(byteCount: 4 << 20, wantsHugePages: false)
        source.fill(MemorySlice(offset: 0, count: 4 << 20), seed: 1)
        let lengths = [
            0, 1, 127, 128, 4095, 16_384, (64 << 10) - 1, 64 << 10, 65_537, 256 << 10, (512 << 10) + 77, (2 << 20) + 31,
        ]
        for length in lengths {
            for (from, to) in [(0, 0), (1, 0), (0, 1), (33, 64), (4096, 4064)] {
                let around = MemorySlice(offset: 0, count: to + length + 64)
                unsafe target[around].initializeMemory(as: UInt8.self, repeating: 0xA5)
                let copy = BlockCopy(
                    from: MemorySlice(offset: from, count: length), to: MemorySlice(offset: to, count: length),
                    name: Self.name(length))
                for check in [CopyCheck.take, .none] {
                    var batch = CopyBatch(tag: 1, source: source, target: target, copies: [copy], check: check)
                    batch.perform()
                    #expect(batch.copies[0].isWhole)
                    let want = source.bytes(copy.from)
                    #expect(target.bytes(copy.to) == want)
                    if check == .take {
                        #expect(
                            unsafe batch.copies[0].checksum
                                == want.withUnsafeBytes {
                                    unsafe BlockChecksum.of(Self.name(length), $0)
                                })
                    }
                    // Not a byte beside it.
                    #expect(target.bytes(MemorySlice(offset: 0, count: to)).allSatisfy { $0 == 0xA5 })
                    let behind = MemorySlice(offset: to + length, count: 64)
                    #expect(target.bytes(behind).allSatisfy { $0 == 0xA5 })
                }
            }
        }
    }

    @Test func aChangedByteAWrongNameAndAWrongLengthAreFound() throws {
        let source = try BlockMemory(byteCount: 1 << 20, wantsHugePages: false)
        let target = try BlockMemory(byteCount: 1 << 20, wantsHugePages: false)
        let whole = MemorySlice(offset: 0, count: 1 << 20)
        source.fill(whole, seed: 2)
        let right = unsafe BlockChecksum.of(Self.name(1), UnsafeRawBufferPointer(source[whole]))
        func isWhole(_ slice: MemorySlice, _ name: ObjectName) -> Bool {
            let copy = BlockCopy(from: slice, to: slice, name: name, checksum: right)
            var batch = CopyBatch(tag: 1, source: source, target: target, copies: [copy], check: .compare)
            batch.perform()
            return batch.copies[0].isWhole
        }
        #expect(isWhole(whole, Self.name(1)))
        #expect(!isWhole(whole, Self.name(2)))
        #expect(!isWhole(whole.prefix((1 << 20) - 1), Self.name(1)))
        unsafe source[whole][777_777] ^= 1
        #expect(!isWhole(whole, Self.name(1)))
    }

    @Test func aFullEngineTakesNothingAndEverythingAcceptedComesBack() throws {
        let memory = try BlockMemory(byteCount: 8192, wantsHugePages: false)
        let returns = Returns<CopyBatch>()
        let engine = try CopyEngine(workerCount: 2, batchesMax: 3) { returns.take($0) }
        let fence = CopyFence()
        let copy = BlockCopy(from: MemorySlice(offset: 0, count: 8), to: MemorySlice(offset: 4096, count: 8))
        func post(_ tag: UInt64) -> Acceptance {
            engine.post(
                CopyBatch(
                    tag: tag, source: memory, target: memory, copies: [copy], check: .none, after: (fence, 1)))
        }
        for tag in 0..<6 as Range<UInt64> { #expect(post(tag) == .accepted) }
        #expect(post(6) == .full)
        #expect(returns.isEmpty)
        fence.signal(1)
        let first = try #require(returns.next(6))
        #expect(Set(first.map(\.tag)) == Set(0..<6))
        #expect(first.allSatisfy { $0.copies[0].isWhole })
        #expect(post(7) == .accepted)
        engine.shutDown()
        #expect(try #require(returns.next(1)).map(\.tag) == [7])
    }

    @Test func nothingIsReadBeforeTheFence() throws {
        let memory = try BlockMemory(byteCount: 8192, wantsHugePages: false)
        let returns = Returns<CopyBatch>()
        let engine = try CopyEngine(workerCount: 1, batchesMax: 512) { returns.take($0) }
        let fence = CopyFence()
        let place = MemorySlice(offset: 0, count: 8)
        let copy = BlockCopy(from: place, to: MemorySlice(offset: 4096, count: 8))
        for round in 1...400 as ClosedRange<UInt64> {
            // The engine's kernel writes after the copy was asked for, and only then signals.
            let batch = CopyBatch(
                tag: round, source: memory, target: memory, copies: [copy], check: .take, after: (fence, round))
            #expect(engine.post(batch) == .accepted)
            unsafe memory[place].storeBytes(of: round, as: UInt64.self)
            fence.signal(round)
            #expect(returns.next(1)?.first?.tag == round)
            #expect(unsafe memory[copy.to].load(as: UInt64.self) == round)
        }
        engine.shutDown()
    }

    @Test func whatWaitsForAFenceComesBackUndoneWhenTheEngineEnds() throws {
        let memory = try BlockMemory(byteCount: 8192, wantsHugePages: false)
        let returns = Returns<CopyBatch>()
        let engine = try CopyEngine(workerCount: 1, batchesMax: 4) { returns.take($0) }
        let copy = BlockCopy(from: MemorySlice(offset: 0, count: 8), to: MemorySlice(offset: 4096, count: 8))
        unsafe memory[copy.from].storeBytes(of: 5, as: UInt64.self)
        let batch = CopyBatch(
            tag: 1, source: memory, target: memory, copies: [copy], check: .none, after: (CopyFence(), 1))
        #expect(engine.post(batch) == .accepted)
        engine.shutDown()
        let back = try #require(returns.next(1))
        #expect(back.map(\.copies[0].isWhole) == [false])
        #expect(unsafe memory[copy.to].load(as: UInt64.self) == 0)
    }

    @Test func manyThreadsPostAndNothingIsLost() throws {
        let memory = try BlockMemory(byteCount: 1 << 20, wantsHugePages: false)
        let returns = Returns<CopyBatch>()
        let engine = try CopyEngine(workerCount: 3, batchesMax: 8) { returns.take($0) }
        let posters = try (0..<4).map { poster in
            try EngineThread("poster") {
                for number in 0..<500 {
                    let tag = UInt64(poster * 500 + number)
                    let copy = BlockCopy(
                        from: MemorySlice(offset: 0, count: 64), to: MemorySlice(offset: 4096, count: 64))
                    let batch = CopyBatch(tag: tag, source: memory, target: memory, copies: [copy], check: .none)
                    while engine.post(batch) == .full { sched_yield() }
                }
            }
        }
        for poster in posters { poster.join() }
        engine.shutDown()
        #expect(try #require(returns.next(2000)).map(\.tag).sorted() == Array(0..<2000))
    }
}
