// The cache-only replay's own rules, on traces small enough to count by hand.

import KVModel
import KVSimulation
import KVTiering
import KVTrace
import Testing

/// A trace of paths over 10-token blocks, one request a second.
private func trace(_ paths: [[BlockNumber]], inputTokens: [Int32]? = nil, format: TraceFormat = .mooncake) -> Trace {
    var blocks: [BlockNumber] = []
    var requests: [TraceRequest] = []
    for (index, path) in paths.enumerated() {
        requests.append(
            TraceRequest(
                arrival: Instant(nanoseconds: Int64(index) * 1_000_000_000),
                inputTokens: inputTokens?[index] ?? Int32(path.count * 10), outputTokens: 1,
                firstReference: blocks.count, blockCount: Int32(path.count)))
        blocks += path
    }
    return Trace(
        name: "by-hand", format: format, sha256: "", blockTokens: 10, requests: requests, blocks: blocks,
        uniqueBlockCount: Int(blocks.max().map { $0 + 1 } ?? 0))
}

@Suite struct CacheOnlyReplayTests {
    @Test func nothingAfterTheFirstGapCounts() throws {
        // FIFO with room for 3: [0 1 2] enters as 2, 1, 0; block 3 then pushes out 2 and leaves 1, 0; block 4 pushes 1.
        var replay = try CacheOnlyReplay(trace([[0, 1, 2], [3], [4], [0, 1, 2]]))
        let result = replay.run(.fifo, capacity: 3)
        #expect(result.hitBlocks == 1)
        #expect(result.hitTokens == 10)
        #expect(result.inputTokens == 80)
    }

    @Test func aPartialLastBlockCountsItsRealTokens() throws {
        var replay = try CacheOnlyReplay(trace([[0, 1], [0, 1]], inputTokens: [13, 13]))
        let result = replay.run(.infinite, capacity: 1)
        #expect(result.hitBlocks == 2)
        #expect(result.hitTokens == 13)
        #expect(result.capacityBlocks == nil)
    }

    @Test func requestsWithoutBlocksCountInTheDenominator() throws {
        var replay = try CacheOnlyReplay(trace([[0], [], [0]], inputTokens: [10, 5, 10]))
        let result = replay.run(.lru, capacity: 1)
        #expect(result.inputTokens == 25)
        #expect(result.hitRatio == 0.4)
    }

    @Test func aRequestLongerThanTheCacheKeepsItsRoot() throws {
        var replay = try CacheOnlyReplay(trace([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]))
        #expect(replay.run(.lru, capacity: 2).hitBlocks == 2)
        #expect(replay.run(.lru, capacity: 2).evictedBlocks == 3 + 5)
    }

    @Test func anAzureTraceIsRefusedWithTheReason() {
        let error = #expect(throws: OperatorError.self) { try CacheOnlyReplay(trace([[0]], format: .azure)) }
        #expect(error?.description.contains("does not say which prompts share a prefix") == true)
    }

    @Test func turnsEndInOrderOfTimeAndBeforeTheRequestOfThatTime() throws {
        struct Listener: TierPolicy {
            var capacity: Int { 1 }
            var residentCount: Int { 0 }
            var log: [String] = []
            func isResident(_ block: BlockNumber) -> Bool { false }
            mutating func access(
                _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
            ) { log.append("access \(context.request)") }
            mutating func turnEnded(request: UInt32, reason: StopReason, at time: Instant) {
                log.append("end \(request) at \(time.nanoseconds)")
            }
            mutating func pin(_ block: BlockNumber) {}
            mutating func unpin(_ block: BlockNumber) {}
            mutating func remove(_ block: BlockNumber) {}
        }
        var ends = trace([[0], [1], [2], [3]])
        ends.requests[0].serviceTime = Duration(nanoseconds: 3_000_000_000)  // Ends with request 3's arrival.
        ends.requests[1].serviceTime = Duration(nanoseconds: 500_000_000)
        ends.requests[2].serviceTime = .zero  // Never ends.
        var listener = Listener()
        _ = try CacheOnlyReplay(ends).run(&listener)
        #expect(
            listener.log == [
                "access 0", "access 1", "end 1 at 1500000000", "access 2", "end 0 at 3000000000", "access 3",
            ])
    }

    @Test func everyPolicyIsBelowItsCeilings() throws {
        var source = RandomSource(seed: 11)
        var paths: [[BlockNumber]] = []
        var next: BlockNumber = 0
        for _ in 0..<400 {
            let earlier = paths.isEmpty ? [] : paths[source.below(paths.count)]
            var path = Array(earlier.prefix(source.below(earlier.count + 1)))
            for _ in 0..<(1 + source.below(4)) {
                path.append(next)
                next += 1
            }
            paths.append(path)
        }
        var replay = try CacheOnlyReplay(trace(paths))
        let infinite = replay.run(.infinite, capacity: 1)
        for capacity in [1, 3, 10, 40, 200, 2000] {
            let ceiling = replay.run(.clairvoyant, capacity: capacity)
            #expect(ceiling.hitBlocks <= infinite.hitBlocks)
            for name in PolicyName.deployable {
                #expect(replay.run(name, capacity: capacity).hitBlocks <= ceiling.hitBlocks, "\(name), \(capacity)")
            }
        }
        // Where everything fits, every policy that admits all is the endless cache.
        #expect(replay.run(.lru, capacity: 2000).hitBlocks == infinite.hitBlocks)
    }

    @Test(arguments: [
        ("1827", CacheOnlyCapacity.blocks(1827)), ("5%", .percent(5)), ("0.5%", .percent(0.5)), ("1.0", .blocks(1)),
    ])
    func capacitiesAreReadAsWritten(_ text: String, _ expected: CacheOnlyCapacity) throws {
        #expect(try CacheOnlyCapacity(parsing: text, option: "--capacity") == expected)
    }

    @Test(arguments: [
        "0", "-5", "", "%", "nan", "nan%", "inf", "1e9%", "0%", "-1%", "2.5", "five", "99999999999", "1%%",
    ])
    func impossibleCapacitiesAreRefused(_ text: String) {
        let error = #expect(throws: OperatorError.self) { try CacheOnlyCapacity(parsing: text, option: "--capacity") }
        #expect(error?.place == "--capacity")
    }

    @Test func aShareIsFlooredAndNeverZero() {
        #expect(CacheOnlyCapacity.percent(1).blocks(of: 182_790) == 1827)
        #expect(CacheOnlyCapacity.percent(10).blocks(of: 182_790) == 18_279)
        #expect(CacheOnlyCapacity.percent(0.5).blocks(of: 100) == 1)
        #expect(CacheOnlyCapacity.percent(29).blocks(of: 100) == 29)
    }

    @Test(arguments: [1000, 3000, 182_790, 1_000_000])
    func aShareIsTheDecimalThatWasWritten(_ unique: Int) throws {
        for tenths in 1...1000 {
            let capacity = try CacheOnlyCapacity(parsing: "\(tenths / 10).\(tenths % 10)%", option: "--capacity")
            #expect(capacity.blocks(of: unique) == max(1, tenths * unique / 1000), "\(tenths) tenths of a per cent")
        }
    }
}
