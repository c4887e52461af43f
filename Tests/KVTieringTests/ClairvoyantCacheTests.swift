// The clairvoyant ceiling against its rule taken literally, and against the best that any cache could do.

import KVModel
import KVTiering
import Testing

@Suite struct ClairvoyantCacheTests {
    /// Hit blocks of each request, by the code under test.
    func hits(_ paths: [[BlockNumber]], capacity: Int) -> [Int] {
        var ends: [Int] = []
        var blocks: [BlockNumber] = []
        for path in paths {
            blocks += path
            ends.append(blocks.count)
        }
        let unique = Int(blocks.max().map { $0 + 1 } ?? 0)
        let uses = NextUses(blocks: blocks, pathEnds: ends, uniqueBlockCount: unique)
        var cache = ClairvoyantCache(capacity: capacity, requestCount: paths.count, uniqueBlockCount: unique)
        var hits: [Int] = []
        for (request, path) in paths.enumerated() {
            hits.append(cache.hitRun(path.span))
            let references = (ends[request] - path.count)..<ends[request]
            cache.access(request: request, path.span, nextUses: uses.requests.span.extracting(references))
            #expect(cache.residentCount <= capacity)
        }
        return hits
    }

    /// The rule, word for word: after each request sort all candidates by next use and depth, and keep the first.
    func hitsByTheRule(_ paths: [[BlockNumber]], capacity: Int) -> [Int] {
        var held: Set<BlockNumber> = []
        var depths: [BlockNumber: Int] = [:]
        var hits: [Int] = []
        for (request, path) in paths.enumerated() {
            hits.append(path.prefix { held.contains($0) }.count)
            for (depth, block) in path.enumerated() { depths[block] = depth }
            var candidates: [(next: Int, depth: Int, block: BlockNumber)] = []
            for block in held.union(path) {
                guard let next = paths[(request + 1)...].firstIndex(where: { $0.contains(block) }) else { continue }
                candidates.append((next, depths[block]!, block))
            }
            candidates.sort { ($0.next, $0.depth, $0.block) < ($1.next, $1.depth, $1.block) }
            held = Set(candidates.prefix(capacity).map(\.block))
        }
        return hits
    }

    /// The most hit blocks any choice of what to keep can reach, by trying every choice.
    func mostHits(_ paths: [[BlockNumber]], capacity: Int) -> Int {
        var best: [Set<BlockNumber>: Int] = [[]: 0]
        for path in paths {
            var next: [Set<BlockNumber>: Int] = [:]
            for (held, hits) in best {
                let hits = hits + path.prefix { held.contains($0) }.count
                for kept in subsets(of: Array(held.union(path)), sizeMax: capacity) {
                    next[kept] = max(next[kept] ?? 0, hits)
                }
            }
            best = next
        }
        return best.values.max()!
    }

    func subsets(of blocks: [BlockNumber], sizeMax: Int) -> [Set<BlockNumber>] {
        (0..<(1 << blocks.count)).filter { $0.nonzeroBitCount <= sizeMax }.map { bits in
            Set(blocks.indices.filter { bits >> $0 & 1 == 1 }.map { blocks[$0] })
        }
    }

    @Test func keepsWhatTheRuleKeeps() {
        for seed in UInt64(1)...80 {
            var source = RandomSource(seed: seed)
            let capacity = 1 + source.below(25)
            let paths = randomPaths(requests: 90, longest: 25, source: &source)
            #expect(hits(paths, capacity: capacity) == hitsByTheRule(paths, capacity: capacity), "seed \(seed)")
        }
    }

    @Test func noChoiceOfBlocksHitsMore() {
        for seed in UInt64(1)...60 {
            var source = RandomSource(seed: seed &* 31)
            let capacity = 1 + source.below(3)
            let paths = randomPaths(requests: 7, longest: 3, source: &source)
            let hits = hits(paths, capacity: capacity).reduce(0, +)
            #expect(hits == mostHits(paths, capacity: capacity), "seed \(seed): \(paths)")
        }
    }

    @Test func noPolicyBeatsIt() throws {
        for seed in UInt64(1)...20 {
            var source = RandomSource(seed: seed &* 7)
            let capacity = 1 + source.below(30)
            let paths = randomPaths(requests: 150, longest: 25, source: &source)
            let ceiling = hits(paths, capacity: capacity).reduce(0, +)
            for name in PolicyName.deployable {
                var policy = try #require(name.makePolicy(capacity: capacity))
                var evicted: [BlockNumber] = []
                var total = 0
                for (index, path) in paths.enumerated() {
                    total += policy.hitRun(path.span)
                    policy.access(path.span, RequestContext(request: UInt32(index), now: .zero), evicted: &evicted)
                }
                #expect(total <= ceiling, "\(name), seed \(seed)")
            }
        }
    }
}
