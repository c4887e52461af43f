// Exact counts on real traces, found by other programs that follow the same rules. They need the traces' folder in
// HOLDFAST_TRACES and skip aloud without it.

import Foundation
import KVModel
import KVSimulation
import KVTiering
import KVTrace
import Testing

private let folder = ProcessInfo.processInfo.environment["HOLDFAST_TRACES"]

private func replay(_ name: String) throws -> CacheOnlyReplay {
    try CacheOnlyReplay(try Trace.read(from: try #require(folder) + "/" + name + ".jsonl.gz"))
}

@Suite(.enabled(if: folder != nil, "HOLDFAST_TRACES does not name the folder of the real traces"), .serialized)
struct CacheOnlyKnownAnswersTests {
    @Test func conversationHitsAreExact() throws {
        var replay = try replay("mooncake_conversation")
        #expect(replay.trace.uniqueBlockCount == 182_790)
        let rows: [(size: Int, lru: Int, tokens: Int, fifo: Int, lfu: Int, clairvoyant: Int)] = [
            (1827, 15_136, 7_745_782, 14_802, 16_789, 71_078),
            (18_279, 80_466, 41_178_281, 71_692, 56_238, 105_710),
            (36_558, 99_632, 50_988_054, 90_401, 88_553, 105_710),
        ]
        for row in rows {
            #expect(replay.run(.lru, capacity: row.size).hitBlocks == row.lru)
            #expect(replay.run(.lru, capacity: row.size).hitTokens == row.tokens)
            #expect(replay.run(.fifo, capacity: row.size).hitBlocks == row.fifo)
            #expect(replay.run(.lfu, capacity: row.size).hitBlocks == row.lfu)
            #expect(replay.run(.clairvoyant, capacity: row.size).hitBlocks == row.clairvoyant)
        }
        #expect(abs(replay.run(.infinite, capacity: 1).hitRatio - 0.3736) < 0.00005)
    }

    @Test func codingAgentHitsAreExact() throws {
        var replay = try replay("claudecode_a")
        #expect(replay.trace.uniqueBlockCount == 1_279_475)
        let rows: [(size: Int, lru: Int, tokens: Int, fifo: Int, lfu: Int, clairvoyant: Int)] = [
            (12_794, 5_698_945, 364_732_480, 5_491_322, 909_861, 17_736_759),
            (63_973, 29_102_814, 1_862_580_096, 26_718_176, 2_493_007, 30_921_083),
        ]
        for row in rows {
            #expect(replay.run(.lru, capacity: row.size).hitBlocks == row.lru)
            #expect(replay.run(.lru, capacity: row.size).hitTokens == row.tokens)
            #expect(replay.run(.fifo, capacity: row.size).hitBlocks == row.fifo)
            #expect(replay.run(.lfu, capacity: row.size).hitBlocks == row.lfu)
            #expect(replay.run(.clairvoyant, capacity: row.size).hitBlocks == row.clairvoyant)
        }
        #expect(abs(replay.run(.infinite, capacity: 1).hitRatio - 0.9614) < 0.00005)
    }

    @Test func twoTiersAreExact() throws {
        let replay = try replay("mooncake_conversation")
        let rows: [(mode: Inclusion, dram: Int, flash: Int, writes: Int, reads: Int)] = [
            (.exclusive, 15_136, 48_578, 271_593, 48_583),
            (.inclusive, 15_136, 41_343, 232_118, 41_302),
            (.keep, 15_136, 47_598, 224_549, 47_405),
        ]
        for row in rows {
            let result = replay.runTwoTiers(dram: 1827, flash: 9139, inclusion: row.mode)
            #expect(result.dramHitBlocks == row.dram)
            #expect(result.flashHitBlocks == row.flash)
            #expect(result.flashWrites == row.writes)
            #expect(result.flashReads == row.reads)
        }
    }

    /// Token hit ratios that other implementations of the published algorithms reach at shares of the unique blocks.
    @Test(arguments: [
        ("mooncake_conversation", 0.5, 0.0502, 0.0560), ("mooncake_conversation", 1, 0.0662, 0.0764),
        ("mooncake_conversation", 5, 0.2143, 0.1899), ("mooncake_conversation", 20, 0.3264, 0.3340),
        ("agent_miniswe_taubench", 2, 0.2330, 0.1499), ("agent_miniswe_taubench", 5, 0.5013, 0.4186),
        ("agent_miniswe_taubench", 20, 0.7829, 0.7409), ("claudecode_a", 1, 0.3004, 0.3069),
    ])
    func arcAndS3FIFOAgreeWithOthers(_ name: String, _ share: Double, _ arc: Double, _ s3fifo: Double) throws {
        var replay = try replay(name)
        let capacity = CacheOnlyCapacity.percent(share).blocks(of: replay.trace.uniqueBlockCount)
        // The published ratios have four digits.
        #expect(abs(replay.run(.arc, capacity: capacity).hitRatio - arc) <= 0.001 * arc + 0.00005)
        #expect(abs(replay.run(.s3fifo, capacity: capacity).hitRatio - s3fifo) <= 0.05 * s3fifo)
    }
}
