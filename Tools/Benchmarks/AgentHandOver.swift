// What it costs to hand blocks over where they lie (host-owned), beside memcpy and beside the least that two threads need to speak.

import Foundation
import KVAgent
import KVModel
import KVSystem

extension AgentBenchmark {
    func handOvers(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let world = try AgentWorld(dram: 256 << 20, blockBytes: 64 << 10)
        defer { world.shutDown() }
        let engine = try world.engine(bytes: 64 << 10, arena: .writing)
        let names = AgentWorld.names(chain: 1, 1)
        guard engine.write(names) == 1 else { throw OperatorError("the block was not kept") }
        let echo = try SocketEcho()
        defer { echo.shutDown() }
        func p50(isVerified: Bool) throws -> Double {
            var all: [Double] = []
            for _ in 0..<500 {
                let began = MonotonicClock.now
                let lent = try engine.lease(names, isVerified: isVerified) { _ in }
                guard lent == 1 else { throw OperatorError("the block was not lent") }
                all.append((MonotonicClock.now - began).seconds * 1e6)
            }
            return median(all)
        }
        var rows: [BenchmarkRow] = []
        for isVerified in [false, true] {
            _ = try p50(isVerified: isVerified)
            let pairs = try PairedRuns(
                count: setting.pairCount, ours: { try p50(isVerified: isVerified) }, reference: { try echo.p50() })
            rows.append(
                pairs.row(
                    name: "agent: one block of 64 KiB lent\(isVerified ? ", verified" : ""), p50", unit: "µs",
                    referenceName: "two bare round trips of 64 bytes",
                    conditions:
                        "host-owned: asked for, read in place as far as its first byte, seen by its word to be still lent, "
                        + "and given back, wall time; no byte moves"
                        + (isVerified ? "; the agent compares the checksum first" : "")))
        }
        return rows + (try lentInBulk(setting))
    }

    /// Many blocks at once, beside a copy of as much.
    private func lentInBulk(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let blockBytes = 2 << 20
        let count = 16
        let world = try AgentWorld(dram: 1 << 30, blockBytes: blockBytes)
        defer { world.shutDown() }
        let engine = try world.engine(bytes: 2 * count * blockBytes, arena: .writing)
        let names = AgentWorld.names(chain: 2, count)
        guard engine.write(names) == count else { throw OperatorError("not all blocks were kept") }
        let conditions = "host-owned; blocks of 2 MiB; processor time of all threads"
        func copy() -> Double { seconds { engine.copyRows(0, to: count, count) } }
        var rows: [BenchmarkRow] = []
        for isVerified in [false, true] {
            let pairs = try PairedRuns(
                count: setting.pairCount,
                ours: {
                    try seconds {
                        let lent = try engine.lease(names, isVerified: isVerified) { _ in }
                        guard lent == count else { throw OperatorError("\(lent) blocks were lent") }
                    }
                },
                reference: copy)
            rows.append(
                pairs.row(
                    name: "agent: 32 MiB lent\(isVerified ? ", verified" : "")", unit: "s",
                    referenceName: "memcpy of as much",
                    conditions: conditions + (isVerified ? "; checksums compared by the agent" : "; no byte is touched")
                ))
        }
        // Every slot has been written once before: pages that the kernel has still to find and clear are another matter.
        var chain = 1_000
        for _ in 0..<36 {
            chain += 1
            guard engine.write(AgentWorld.names(chain: chain, count)) > 0 else { throw OperatorError("no slots") }
        }
        let pairs = try PairedRuns(
            count: setting.pairCount,
            ours: {
                chain += 1
                let fresh = AgentWorld.names(chain: chain, count)
                return try seconds {
                    guard engine.write(fresh) == count else { throw OperatorError("not all blocks were kept") }
                }
            },
            reference: copy)
        rows.append(
            pairs.row(
                name: "agent: 32 MiB written in place", unit: "s", referenceName: "memcpy of as much",
                conditions: conditions
                    + "; reserved, filled by memcpy, committed, and their checksums taken by the agent"))
        return rows
    }
}

extension BenchEngine {
    /// Borrows blocks and gives them back. How many there were.
    func lease(_ names: [ObjectName], isVerified: Bool, _ body: (EngineLease) throws -> Void) throws -> Int {
        let lease: EngineLease? = client.answer {
            client.take(names, first: 0, count: names.count, isVerified: isVerified, done: $0)
        }
        guard let lease else { return 0 }
        guard unsafe lease.read(0, { unsafe $0[0] }) != nil else { throw OperatorError("the lease ended early") }
        try body(lease)
        // Its word in shared memory says that all of this was still lent; nobody need wait to hear that it is given back.
        guard lease.isInForce else { throw OperatorError("the lease ended early") }
        lease.release()
        return lease.taken.blocks.count
    }

    /// Writes blocks into reserved slots, from the rows of this engine's memory. How many are kept.
    func write(_ names: [ObjectName]) -> Int {
        let reserved: EngineReservation? = client.answer { client.reserve(names.count, done: $0) }
        guard let reservation = reserved, reservation.reserved.slots.count == names.count else { return 0 }
        for index in names.indices {
            guard unsafe reservation.fill(index, { unsafe copyRow(index, to: $0) }) else { return 0 }
        }
        return client.answer { reservation.commit(names.indices, as: names, done: $0) }.keptCount
    }
}
