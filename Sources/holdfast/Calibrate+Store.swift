// How fast a store is from here: objects of its own put, got and deleted again, through the client that an agent uses.

import Foundation
import KVModel
import KVStore
import KVSystem
import KVTransport

/// What is measured of a store.
struct StorePlan {
    var blockBytes: Int
    var depths: [Int]
    /// Objects put, and got at each depth.
    var objectCount: Int
    /// Times that a small thing is asked for.
    var roundTrips: Int

    static let quick = StorePlan(blockBytes: 2 << 20, depths: [1, 8], objectCount: 16, roundTrips: 100)
    static let full = StorePlan(blockBytes: 2 << 20, depths: [1, 4, 16], objectCount: 256, roundTrips: 1000)
}

/// What is measured of a store, as far as it has room: a block takes whole extents, and a store without free ones would
/// evict what others keep there.
struct StoreRoom {
    let plan: StorePlan
    let loadPlan: LoadPlan
    /// Objects that push everything out of its memory; nil: it has no room for so many, or does not say.
    let displacing: Int?

    /// Fewer objects and rounds than wanted where room is short.
    ///
    /// - Throws: When not even the fewest fit, with the numbers.
    init(_ status: StoreStatus, plan: StorePlan, loadPlan: LoadPlan, at store: String) throws(OperatorError) {
        // A tenant who is no operator is not told; what it may take is its quota's business.
        guard !status.drives.isEmpty else {
            (self.plan, self.loadPlan, displacing) = (plan, loadPlan, nil)
            return
        }
        let extents = status.drives.reduce(0) { $0 + $1.extents }
        // A sixty-fourth, or two of the longest blocks, a store keeps free for puts to come.
        let ahead = max(extents / 64, min(extents / 8, 2 * 64))
        let free = status.drives.reduce(0) { $0 + ($1.state == "healthy" ? $1.freeExtents : 0) } - ahead
        let extentBytes = status.extentBytes
        let smallest = loadPlan.smaller.last ?? loadPlan
        let least = max((plan.depths.max() ?? 1) * plan.extents(of: extentBytes), smallest.extents(of: extentBytes))
        // Fewer rounds from the drives say more than many from memory. A buffer is an extent at least, so memory has no more of them.
        let buffers = status.memoryBytes / extentBytes
        let isRoomy = free >= least + buffers
        let left = isRoomy ? free - buffers : free
        var rates = plan
        rates.objectCount = min(plan.objectCount, left / plan.extents(of: extentBytes))
        rates.roundTrips = min(plan.roundTrips, left)
        guard let loads = loadPlan.smaller.first(where: { $0.extents(of: extentBytes) <= left }), free >= least else {
            throw OperatorError(
                "calibrating takes \(least) extents of \(ByteSize.text(extentBytes)), \(ByteSize.text(least * extentBytes)), "
                    + "and it has \(max(0, free)) to spare", at: store,
                remedy: "make room, or give a store with smaller extents")
        }
        self.plan = rates
        self.loadPlan = loads
        displacing = isRoomy ? buffers : nil
    }
}

extension StorePlan {
    fileprivate func extents(of bytes: Int) -> Int { (blockBytes + bytes - 1) / bytes }
}

extension LoadPlan {
    /// This plan, and those with fewer rounds and shorter loads, down to the least that says something.
    fileprivate var smaller: [LoadPlan] {
        var plans = [self]
        for (rounds, longest) in [(5, 64), (3, 64), (3, 16), (3, 4)] {
            var plan = self
            plan.rounds = min(self.rounds, rounds)
            plan.counts = counts.filter { $0 <= longest }
            plans.append(plan)
        }
        return plans
    }

    /// Extents that all its blocks take at once in a store with extents of so many bytes.
    fileprivate func extents(of bytes: Int) -> Int {
        blockSizes.reduce(0) { sum, blockBytes in sum + savedBlocks(of: blockBytes) * ((blockBytes + bytes - 1) / bytes)
        }
    }
}

/// One measurement of a store.
struct StorePoint: Encodable {
    var isPut: Bool
    var blockBytes: Int
    var depth: Int
    var bytesPerSecond: Double
}

/// Rates of a store as this machine reaches them.
struct StoreRates {
    var points: [StorePoint] = []
    /// From asking for 4 KiB to having them, the median.
    var firstByteSeconds = 0.0
    /// A look-up of one key, the median.
    var roundTripSeconds = 0.0

    var bestGet: Double { points.filter { !$0.isPut }.map(\.bytesPerSecond).max() ?? 0 }
    var bestPut: Double { points.filter(\.isPut).map(\.bytesPerSecond).max() ?? 0 }

    /// Measures over a connection whose memory has room for `depths.max()` blocks; `memory` is the store's.
    static func measured(
        _ connection: StoreConnection, memory: StoreMemory, plan: StorePlan, progress: (Double) -> Void
    ) async throws -> StoreRates {
        let load = StoreLoad(
            connection: connection, handle: memory.handle, blockBytes: plan.blockBytes,
            seed: UInt64.random(in: 0...(.max)))
        // Content that no device can compress.
        let words = unsafe connection.memory.regions[0].bindMemory(to: UInt64.self)
        var source = RandomSource(seed: 2)
        for index in words.indices { unsafe words[index] = source.next() }
        let steps = Double(plan.depths.count + 3)
        var rates = StoreRates()
        let depth = plan.depths.max() ?? 1
        do {
            let put = try await load.seconds(plan.objectCount, depth: depth) { try await load.put($0, slot: $1) }
            rates.points.append(load.point(plan.objectCount, depth: depth, isPut: true, seconds: put))
            progress(1 / steps)
            for (index, depth) in plan.depths.enumerated() {
                try await memory.displace()
                let got = try await load.seconds(plan.objectCount, depth: depth) { try await load.get($0, slot: $1) }
                rates.points.append(load.point(plan.objectCount, depth: depth, isPut: false, seconds: got))
                progress(Double(2 + index) / steps)
            }
            try await load.delete(plan.objectCount)
        } catch {
            try? await load.delete(plan.objectCount)
            throw error
        }
        try await rates.measureSmall(connection, memory: memory, plan: plan)
        return rates
    }

    /// Objects of 4 KiB, one at a time, each from its drive.
    private mutating func measureSmall(
        _ connection: StoreConnection, memory: StoreMemory, plan: StorePlan
    ) async throws {
        let small = StoreLoad(
            connection: connection, handle: memory.handle, blockBytes: 4096, seed: UInt64.random(in: 0...(.max)))
        do {
            for number in 0..<plan.roundTrips { try await small.put(number, slot: 0) }
            try await memory.displace()
            firstByteSeconds = try await small.median(of: plan.roundTrips) { try await small.get($0, slot: 0) }
            roundTripSeconds = try await small.median(of: plan.roundTrips) { _ in try await small.lookUp() }
            try await small.delete(plan.roundTrips)
        } catch {
            try? await small.delete(plan.roundTrips)
            throw error
        }
    }
}

/// A store's memory, which answers for what was put or got lately. What is measured of a store is measured of its drives: what
/// lies in its memory no agent knows, so nothing can be predicted of it.
struct StoreMemory {
    let connection: StoreConnection
    /// The namespace of what is measured.
    let handle: NamespaceHandle
    /// Objects that fill it; nil: it is left as it is.
    let objects: Int?
    /// Puts under way.
    let depth: Int

    /// Small objects take the place of whatever lies in it, and are deleted.
    func displace() async throws {
        guard let objects else { return }
        let others = StoreLoad(
            connection: connection, handle: handle, blockBytes: 4096, seed: UInt64.random(in: 0...(.max)))
        do {
            _ = try await others.seconds(objects, depth: depth) { try await others.put($0, slot: $1) }
        } catch {
            try? await others.delete(objects)
            throw error
        }
        try await others.delete(objects)
    }
}

/// Objects that nobody else has, and a slot for each request under way.
private struct StoreLoad {
    let connection: StoreConnection
    let handle: NamespaceHandle
    let blockBytes: Int
    let seed: UInt64

    func name(_ number: Int) -> ObjectName {
        ObjectName(FullKey(mixBits(seed &+ UInt64(bitPattern: Int64(number))), seed, 0, 0))
    }

    private func slice(_ slot: Int) -> MemorySlice { MemorySlice(offset: slot * blockBytes, count: blockBytes) }

    func put(_ number: Int, slot: Int) async throws {
        let checksum = unsafe BlockChecksum.of(
            name(number), UnsafeRawBufferPointer(connection.memory[slice(slot)]))
        _ = try await connection.ask(
            .put(handle, name(number), ObjectMetadata(), payloadBytes: blockBytes, checksum: checksum),
            slot: slice(slot))
    }

    func get(_ number: Int, slot: Int) async throws {
        _ = try await connection.ask(.get(handle, name(number)), slot: slice(slot))
    }

    func lookUp() async throws { _ = try await connection.ask(.lookUp(handle, [name(-1)])) }

    func delete(_ count: Int) async throws {
        for first in stride(from: 0, to: count, by: 128) {
            let names = (first..<min(count, first + 128)).map { name($0) }
            _ = try await connection.ask(.delete(handle, names))
        }
    }

    /// Seconds for all objects, `depth` of them under way, each with a slot of its own.
    func seconds(
        _ count: Int, depth: Int, _ body: @escaping @Sendable (_ number: Int, _ slot: Int) async throws -> Void
    ) async throws -> Double {
        let start = MonotonicClock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            for slot in 0..<depth {
                group.addTask {
                    for number in stride(from: slot, to: count, by: depth) { try await body(number, slot) }
                }
            }
            try await group.waitForAll()
        }
        return (MonotonicClock.now - start).seconds
    }

    func median(of count: Int, _ body: (Int) async throws -> Void) async throws -> Double {
        var taken: [Double] = []
        for number in 0..<count {
            let start = MonotonicClock.now
            try await body(number)
            taken.append((MonotonicClock.now - start).seconds)
        }
        return taken.sorted()[count / 2]
    }

    func point(_ count: Int, depth: Int, isPut: Bool, seconds: Double) -> StorePoint {
        StorePoint(
            isPut: isPut, blockBytes: blockBytes, depth: depth, bytesPerSecond: Double(count * blockBytes) / seconds)
    }
}
