// The block index from ten thousand to ten million blocks: bytes an entry, and time an operation beside bare memory
// accesses of the same footprint, and beside absl's table. If the first ratio stays, the growth of the time is the memory's.

import Foundation
import KVModel
import KVTiering

struct IndexBenchmark: Benchmark {
    let name = "index"
    let purpose = "block index: bytes an entry, and time an operation against bare accesses and against absl's table"

    private static let blockCounts = [10_000, 100_000, 1_000_000, 10_000_000]

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        var rows: [BenchmarkRow] = []
        if setting.wants("bare") {
            rows += Self.blockCounts.flatMap { measure(blockCount: $0, setting) }
            rows += [managedRow(blockCount: 1_000_000), dictionaryRow(blockCount: 1_000_000, setting)]
        }
        guard setting.wants("absl") else { return rows }
        guard let path = setting.abslLibrary, let blocks = AbslLibrary(path: path, .blocks),
            let words = AbslLibrary(path: path, .words)
        else {
            note("index: skipped beside absl's table: libabsl-dev is not installed (Tools/install --bench)")
            return rows
        }
        for library in [blocks, words] {
            let comparison = AbslComparison(library: library, setting: setting)
            rows += Self.blockCounts.flatMap { comparison.rows(blockCount: $0) }
        }
        return rows
    }

    private func measure(blockCount: Int, _ setting: BenchmarkSetting) -> [BenchmarkRow] {
        note("index: \(blockCount) blocks")
        let residentBefore = residentBytes()
        var index = BlockIndex()
        for number in 0..<blockCount { _ = index.insert(IndexKeys.key(number)) }
        let residentGrowth = residentBytes() - residentBefore
        let links = 8
        let bytes = Double(index.byteCount) / Double(blockCount) + Double(links)
        let size = shortCount(blockCount)
        let memory = boundRow(
            name: "index \(size) memory", unit: "B/entry", measured: [bytes], bound: 48, boundName: "the bound",
            conditions:
                "128-bit key, 8-byte location and slot as allocated, \(links) bytes of links; resident set grew by "
                + String(format: "%.1f", Double(residentGrowth) / Double(blockCount)) + " bytes an entry")
        return [
            memory, findRow(&index, blockCount, size, setting), chainRow(&index, blockCount, size, setting),
        ] + changeRows(&index, blockCount, size, setting)
    }

    /// The same table as a manager keeps it, with all it knows of a block, filled by chains of a thousand.
    private func managedRow(blockCount: Int) -> BenchmarkRow {
        var store = StoreManager(
            StoreManagerConfiguration(
                blockBytes: 1, bytes: blockCount, makePolicy: { LRUPolicy(capacity: $0) }, writeBudget: nil,
                knownBlocksMax: blockCount))
        for first in stride(from: 0, to: blockCount, by: 1000) {
            let chain = (first..<first + 1000).map { IndexKeys.key($0) }
            let context = RequestContext(request: UInt32(first), now: .zero)
            _ = store.offer(StoreOffer(offer: 0, chain: chain, firstOffered: 0, context: context), at: .zero)
        }
        let size = store.knownSize
        return boundRow(
            name: "index \(shortCount(blockCount)) managed, memory", unit: "B/entry",
            measured: [Double(size.bytes) / Double(size.blocks)], bound: 64, boundName: "the bound",
            conditions:
                "all a node knows of a block: key, links and locations 32 bytes, readers, uses, ages and states 20, and "
                + "the slot as allocated")
    }

    // MARK: Looking up

    /// One look-up after another: each waits for the one before it, so the memory's whole latency shows.
    private func findRow(
        _ index: inout BlockIndex, _ blockCount: Int, _ size: String, _ setting: BenchmarkSetting
    ) -> BenchmarkRow {
        var source = RandomSource(seed: 7)
        let keys = (0..<IndexKeys.operationCount(blockCount)).map { _ in IndexKeys.key(source.below(blockCount)) }
        let bare = BareMemory(blockCount: blockCount, byteCount: index.byteCount)
        let runs = PairedRuns(count: setting.pairCount) {
            nanoseconds(per: keys.count) {
                var number: BlockNumber = 0
                // No number has its top bit set here, which the compiler cannot know.
                for place in keys.indices { number = index.find(keys[place + Int(number >> 31)]) ?? 0 }
                keep(number)
            }
        } reference: {
            nanoseconds(per: keys.count) { keep(bare.lookUpInTurn(keys)) }
        }
        return runs.row(
            name: "index \(size) find", unit: "ns", referenceName: "a slot in turn, its record beside",
            conditions: "random keys, all present, each after the one before it; \(bare.description)")
    }

    private func chainRow(
        _ index: inout BlockIndex, _ blockCount: Int, _ size: String, _ setting: BenchmarkSetting
    ) -> BenchmarkRow {
        let length = 1000
        let chains = IndexKeys.chains(of: blockCount, length: length, seed: 8)
        let keys = chains.flatMap(\.self)
        let bare = BareMemory(blockCount: blockCount, byteCount: index.byteCount)
        var numbers: [BlockNumber] = []
        let runs = PairedRuns(count: setting.pairCount) {
            nanoseconds(per: keys.count) {
                for chain in chains {
                    numbers.removeAll(keepingCapacity: true)
                    let run = index.longestRun(chain.span, into: &numbers)
                    precondition(run == length)
                }
            }
        } reference: {
            nanoseconds(per: keys.count) { keep(bare.lookUp(keys)) }
        }
        return runs.row(
            name: "index \(size) longest run, a block", unit: "ns", referenceName: "the same reads",
            conditions:
                "chains of \(length) blocks inserted together; reads of slots and records that overlap; \(bare.description)"
        )
    }

    // MARK: Changing

    private func changeRows(
        _ index: inout BlockIndex, _ blockCount: Int, _ size: String, _ setting: BenchmarkSetting
    ) -> [BenchmarkRow] {
        // A twentieth leaves in random order and as many new ones come: the size stays what it says.
        let changeCount = blockCount / 20
        var source = RandomSource(seed: 9)
        var live = (0..<blockCount).map { BlockNumber($0) }
        var next = blockCount
        let bare = BareMemory(blockCount: blockCount, byteCount: index.byteCount)
        var removals: [Double] = []
        var insertions: [Double] = []
        var bareRemovals: [Double] = []
        var bareInsertions: [Double] = []
        for pair in -1..<setting.pairCount {
            for place in 0..<changeCount { live.swapAt(place, place + source.below(blockCount - place)) }
            let keys = (0..<changeCount).map { IndexKeys.key(next + $0) }
            next += changeCount
            let removed = nanoseconds(per: changeCount) {
                for place in 0..<changeCount { index.remove(live[place]) }
            }
            let inserted = nanoseconds(per: changeCount) {
                for place in 0..<changeCount { live[place] = index.insert(keys[place]).number }
            }
            let bareRemoved = nanoseconds(per: changeCount) { bare.remove(live[..<changeCount]) }
            let bareInserted = nanoseconds(per: changeCount) { bare.insert(keys) }
            if pair < 0 { continue }
            removals.append(removed)
            insertions.append(inserted)
            bareRemovals.append(bareRemoved)
            bareInsertions.append(bareInserted)
        }
        return [
            PairedRuns(ours: insertions, references: bareInsertions).row(
                name: "index \(size) insert", unit: "ns", referenceName: "a read, two writes",
                conditions: "new keys, \(changeCount) at a time; \(bare.description)"),
            PairedRuns(ours: removals, references: bareRemovals).row(
                name: "index \(size) remove", unit: "ns", referenceName: "a read, two writes",
                conditions: "random blocks, \(changeCount) at a time; \(bare.description)"),
        ]
    }

    /// The standard library's dictionary with the same content, for scale.
    private func dictionaryRow(blockCount: Int, _ setting: BenchmarkSetting) -> BenchmarkRow {
        var index = BlockIndex()
        var dictionary: [BlockKey: BlockNumber] = [:]
        for number in 0..<blockCount { dictionary[IndexKeys.key(number)] = index.insert(IndexKeys.key(number)).number }
        var source = RandomSource(seed: 10)
        let keys = (0..<IndexKeys.operationCount(blockCount)).map { _ in IndexKeys.key(source.below(blockCount)) }
        let runs = PairedRuns(count: setting.pairCount) {
            nanoseconds(per: keys.count) {
                var sum = 0
                for key in keys { sum &+= Int(index.find(key) ?? 0) }
                keep(sum)
            }
        } reference: {
            nanoseconds(per: keys.count) {
                var sum = 0
                for key in keys { sum &+= Int(dictionary[key] ?? 0) }
                keep(sum)
            }
        }
        return runs.row(
            name: "index \(shortCount(blockCount)) find", unit: "ns", referenceName: "Swift Dictionary",
            conditions: "random keys, all present, same pages")
    }
}

/// What memory alone would take: arrays of the index's footprint, read and written where the index would have to.
private final class BareMemory {
    private var slots: [UInt64]
    private var records: [BlockKey]
    let description: String

    init(blockCount: Int, byteCount: Int) {
        // Records are 24 bytes in the index and 16 here, so they get half as many again.
        records = Array(repeating: BlockKey(high: 1, low: 1), count: blockCount + blockCount / 2)
        slots = Array(repeating: 0, count: max(1, (byteCount - 24 * blockCount) / 8))
        var source = RandomSource(seed: 3)
        for place in slots.indices { slots[place] = UInt64(source.below(records.count)) }
        description = "reference in arrays of the same \((byteCount + 500_000) / 1_000_000) MB, same pages"
    }

    @inline(__always)
    private func place(of key: BlockKey) -> Int { Int(key.low.multipliedFullWidth(by: UInt64(slots.count)).high) }

    /// A slot, then the record it names.
    func lookUp(_ keys: [BlockKey]) -> UInt64 {
        var sum: UInt64 = 0
        for key in keys { sum &+= records[Int(slots[place(of: key)])].high }
        return sum
    }

    /// The same, each slot only when the one before it has come. The record's compare waits for nobody: a processor
    /// goes on with the number before it knows that the keys are equal.
    func lookUpInTurn(_ keys: [BlockKey]) -> UInt64 {
        var last: UInt64 = 0
        var sum: UInt64 = 0
        for position in keys.indices {
            last = slots[place(of: keys[position + Int(last >> 62)])]
            sum &+= records[Int(last)].high
        }
        return sum
    }

    /// A slot read and written, and the next record written.
    func insert(_ keys: [BlockKey]) {
        for (number, key) in keys.enumerated() {
            slots[place(of: key)] ^= 1
            records[number] = key
        }
    }

    /// A record read and written, and a slot written.
    func remove(_ numbers: ArraySlice<BlockNumber>) {
        for number in numbers {
            let key = records[Int(number)]
            records[Int(number)].high = key.high &+ 1
            slots[place(of: BlockKey(traceBlock: key.low &+ UInt64(number)))] ^= 1
        }
    }
}

func nanoseconds(per count: Int, _ body: () -> Void) -> Double { seconds(body) / Double(count) * 1e9 }

func shortCount(_ count: Int) -> String {
    count >= 1_000_000 ? "\(count / 1_000_000)M" : "\(count / 1000)K"
}

/// Bytes of this process that are in memory.
func residentBytes() -> Int {
    let fields = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ") ?? []
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4096 : 0
}

/// The keys that an index of `blockCount` blocks holds, by their numbers, and what it is asked for.
enum IndexKeys {
    static func key(_ number: Int) -> BlockKey { BlockKey(traceBlock: UInt64(number)) }

    /// How many look-ups a run makes.
    static func operationCount(_ blockCount: Int) -> Int { min(400_000, max(100_000, blockCount)) }

    /// Chains of blocks that were inserted one after another, as those of a conversation are.
    static func chains(of blockCount: Int, length: Int, seed: UInt64) -> [[BlockKey]] {
        var source = RandomSource(seed: seed)
        return (0..<(operationCount(blockCount) / length)).map { _ in
            let first = source.below(blockCount - length)
            return (first..<(first + length)).map(key)
        }
    }
}
