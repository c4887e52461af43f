// The KV memory of a replica against a twin made of dictionaries.

import KVModel
import KVSimulation
import Testing

/// The same memory without a single clever structure.
private struct NaivePrefixCache {
    let capacity: Int
    var privateCount = 0
    var readers: [BlockNumber: Int] = [:]
    var filled: Set<BlockNumber> = []
    /// Idle blocks, oldest first.
    var idle: [BlockNumber] = []

    func filledRun(_ path: [BlockNumber]) -> Int { path.prefix { filled.contains($0) }.count }
    func readRun(_ path: [BlockNumber]) -> Int { path.prefix { (readers[$0] ?? 0) > 0 }.count }
    var available: Int { capacity - privateCount - readers.count + idle.count }

    mutating func acquire(_ path: [BlockNumber]) {
        for block in path {
            if let count = readers[block] {
                if count == 0 { idle.removeAll { $0 == block } }
                readers[block] = count + 1
            } else {
                while privateCount + readers.count >= capacity { evict() }
                readers[block] = 1
            }
        }
    }

    mutating func evict() {
        let block = idle.removeFirst()
        readers[block] = nil
        filled.remove(block)
    }

    mutating func release(_ path: [BlockNumber]) {
        for block in path.reversed() {
            readers[block]! -= 1
            guard readers[block] == 0 else { continue }
            if filled.contains(block) { idle.append(block) } else { readers[block] = nil }
        }
    }

    mutating func changePrivate(by change: Int) {
        privateCount += change
        while privateCount + readers.count > capacity { evict() }
    }
}

@Suite struct PrefixCacheTests {
    @Test(arguments: 1...6) func agreesWithItsNaiveTwin(seed: UInt64) {
        var random = RandomSource(seed: seed)
        var cache = PrefixCache(capacity: 60)
        var twin = NaivePrefixCache(capacity: 60)
        var held: [(path: [BlockNumber], extra: Int)] = []
        for _ in 0..<4000 {
            if random.below(2) == 0 || held.isEmpty {
                let path = Self.path(&random)
                let extra = random.below(4)
                #expect(cache.filledRun(path.span) == twin.filledRun(path))
                #expect(cache.readRun(path.span) == twin.readRun(path))
                #expect(cache.available == twin.available)
                let needed = path.count - twin.readRun(path) + extra
                guard needed <= twin.available else { continue }
                cache.acquire(path.span)
                cache.changePrivate(by: extra)
                twin.acquire(path)
                twin.changePrivate(by: extra)
                // A prefix is computed, or all of it, or none yet.
                let filled = random.below(path.count + 1)
                cache.fillLeading(path.span, filled)
                twin.filled.formUnion(path.prefix(filled))
                held.append((path, extra))
            } else {
                let (path, extra) = held.remove(at: random.below(held.count))
                cache.release(path.span)
                cache.changePrivate(by: -extra)
                twin.release(path)
                twin.changePrivate(by: -extra)
            }
            #expect(cache.residentCount == twin.readers.count)
            #expect(cache.idleCount == twin.idle.count)
        }
        for (path, extra) in held {
            cache.release(path.span)
            cache.changePrivate(by: -extra)
        }
        #expect(cache.usedCount == 0, "a block is left with a reader")
    }

    /// A path of a random tree: a block's number says its place, so equal prefixes have equal blocks.
    private static func path(_ random: inout RandomSource) -> [BlockNumber] {
        var path: [BlockNumber] = []
        var node: BlockNumber = 1
        for _ in 0..<1 + random.below(9) {
            node = node * 3 + BlockNumber(random.below(3))
            path.append(node)
        }
        return path
    }

    @Test func evictsTheDeepestBlockOfTheOldestPathFirst() {
        var cache = PrefixCache(capacity: 4)
        let old: [BlockNumber] = [1, 2, 3]
        let new: [BlockNumber] = [7, 8, 9]
        cache.acquire(old.span)
        cache.fillLeading(old.span, 3)
        cache.release(old.span)
        cache.acquire(new.span)
        #expect(!cache.isPresent(3) && !cache.isPresent(2))
        #expect(cache.filledRun(old.span) == 1)
    }
}

@Suite struct StepLogTests {
    @Test func meanOfLongestTenthAgreesWithSorting() {
        var random = RandomSource(seed: 8)
        for _ in 0..<200 {
            var log = StepLog()
            var gaps: [Float] = []
            for _ in 0..<1 + random.below(40) {
                let gap = Float(1 + random.below(20)) / 100
                let count = 1 + random.below(12)
                log.append(seconds: Double(gap), count: count)
                gaps += repeatElement(gap, count: count)
            }
            let wanted = max(1, gaps.count / 10)
            let expected = gaps.sorted(by: >).prefix(wanted).reduce(0.0) { $0 + Double($1) } / Double(wanted)
            #expect((log.meanOfLongestTenth(since: 0) - expected).magnitude < 1e-9)
        }
    }

    @Test func percentilesOfTheHistogramAreWithinOnePercent() {
        var random = RandomSource(seed: 9)
        var histogram = LogHistogram()
        var values: [Double] = []
        for _ in 0..<20_000 {
            let value = random.exponential(mean: 0.02) + 1e-4
            histogram.add(value)
            values.append(value)
        }
        values.sort()
        for share in [0.5, 0.9, 0.99] {
            let exact = values[Int((share * 20_000).rounded(.up)) - 1]
            #expect((histogram.percentile(share) / exact - 1).magnitude < 0.01)
        }
    }
}
