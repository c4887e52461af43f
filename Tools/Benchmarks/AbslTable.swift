// absl::flat_hash_map as the reference of the block index, with the same content and from keys to words alone: a library that is
// opened at run time, and the rows it gives.

import Glibc
import KVModel
import KVTiering

/// The functions of one table of `absl_table.cpp`. The library stays open.
@safe
struct AbslLibrary {
    /// What a table holds.
    enum Content: String {
        /// Keys to words.
        case words
        /// What the block index holds: keys to dense numbers, and by number a key and a word.
        case blocks
    }

    typealias Create = @convention(c) () -> OpaquePointer
    typealias Destroy = @convention(c) (OpaquePointer) -> Void
    typealias Bytes = @convention(c) (OpaquePointer) -> UInt64
    typealias Insert = @convention(c) (OpaquePointer, UnsafeRawPointer, Int, UInt64) -> Void
    typealias Find = @convention(c) (OpaquePointer, UnsafeRawPointer, Int) -> UInt64
    typealias LongestRun = @convention(c) (OpaquePointer, UnsafeRawPointer, Int, UnsafeMutablePointer<UInt64>) -> Int

    let create: Create
    let destroy: Destroy
    let bytes: Bytes
    let insert: Insert
    let find: Find
    let longestRun: LongestRun

    let content: Content

    /// Nil when it cannot be opened.
    init?(path: String, _ content: Content) {
        self.content = content
        let name = "absl_\(content.rawValue)_"
        guard let library = unsafe dlopen(path, RTLD_NOW),
            let create = unsafe dlsym(library, name + "create"),
            let destroy = unsafe dlsym(library, name + "destroy"),
            let bytes = unsafe dlsym(library, name + "bytes"),
            let insert = unsafe dlsym(library, name + "insert"),
            let find = unsafe dlsym(library, name + "find"),
            let longestRun = unsafe dlsym(library, name + "longest_run")
        else { return nil }
        unsafe self.create = unsafe unsafeBitCast(create, to: Create.self)
        unsafe self.destroy = unsafe unsafeBitCast(destroy, to: Destroy.self)
        unsafe self.bytes = unsafe unsafeBitCast(bytes, to: Bytes.self)
        unsafe self.insert = unsafe unsafeBitCast(insert, to: Insert.self)
        unsafe self.find = unsafe unsafeBitCast(find, to: Find.self)
        unsafe self.longestRun = unsafe unsafeBitCast(longestRun, to: LongestRun.self)
    }
}

/// One table of absl's.
@safe
final class AbslTable {
    private let library: AbslLibrary
    private let table: OpaquePointer

    init(_ library: AbslLibrary) {
        self.library = library
        unsafe table = unsafe library.create()
    }

    deinit { unsafe library.destroy(table) }

    var byteCount: Int { Int(unsafe library.bytes(table)) }

    func insert(_ keys: [BlockKey], first: Int) {
        unsafe keys.withUnsafeBytes { unsafe library.insert(table, $0.baseAddress!, keys.count, UInt64(first)) }
    }

    /// How many are there, each looked up after the one before it.
    func find(_ keys: [BlockKey]) -> Int {
        Int(unsafe keys.withUnsafeBytes { unsafe library.find(table, $0.baseAddress!, keys.count) })
    }

    func longestRun(_ keys: [BlockKey], into words: inout [UInt64]) -> Int {
        unsafe keys.withUnsafeBytes { keys in
            unsafe words.withUnsafeMutableBufferPointer { words in
                unsafe library.longestRun(
                    table, keys.baseAddress!, keys.count / MemoryLayout<BlockKey>.stride, words.baseAddress!)
            }
        }
    }
}

/// The block index beside one of absl's tables: the same keys in the same order, and a word of location for each.
struct AbslComparison {
    let library: AbslLibrary
    let setting: BenchmarkSetting

    /// Inserting, looking up what is there and what is not, chains, and memory.
    func rows(blockCount: Int) -> [BenchmarkRow] {
        let size = shortCount(blockCount)
        note("index: \(blockCount) blocks beside absl's table of \(library.content.rawValue)")
        let keys = (0..<blockCount).map { IndexKeys.key($0) }
        var index = BlockIndex()
        let table = AbslTable(library)
        Self.insert(keys, into: &index)
        table.insert(keys, first: 0)
        let memory = boundRow(
            name: "index \(size) memory, \(group)", unit: "B/entry",
            measured: [Double(index.byteCount) / Double(blockCount)],
            bound: Double(table.byteCount) / Double(blockCount), boundName: referenceName,
            conditions: "\(content); a list's links are not in it")
        return [
            insertRow(keys, size),
            findRow(&index, table, "hit", size, (0..<blockCount)),
            findRow(&index, table, "miss", size, blockCount..<(2 * blockCount)),
            chainRow(&index, table, blockCount, size),
            memory,
        ]
    }

    private var group: String { library.content == .blocks ? "absl" : "absl without numbers" }

    private var referenceName: String {
        library.content == .blocks ? "absl::flat_hash_map and an array" : "absl::flat_hash_map"
    }

    private var content: String {
        let theirs =
            library.content == .blocks
            ? "theirs: key to number, by number key and word" : "theirs: key to word, no numbers"
        return "ours: key to number, by number key and word; \(theirs)"
    }

    private var equal: String { "\(content); keys of 128 bits, words of 64, ordinary pages for both" }

    private static func insert(_ keys: [BlockKey], into index: inout BlockIndex) {
        for place in keys.indices {
            let number = index.insert(keys[place]).number
            index[location: number] = UInt64(place)
        }
    }

    /// From nothing, so with all growth.
    private func insertRow(_ keys: [BlockKey], _ size: String) -> BenchmarkRow {
        let runs = PairedRuns(count: setting.longRunCount) {
            var index = BlockIndex()
            return nanoseconds(per: keys.count) { Self.insert(keys, into: &index) }
        } reference: {
            let table = AbslTable(library)
            return nanoseconds(per: keys.count) { table.insert(keys, first: 0) }
        }
        return runs.row(
            name: "index \(size) insert, \(group)", unit: "ns", referenceName: referenceName,
            conditions: "from an empty table on, growth included; \(equal)")
    }

    private func findRow(
        _ index: inout BlockIndex, _ table: AbslTable, _ kind: String, _ size: String, _ blocks: Range<Int>
    ) -> BenchmarkRow {
        var source = RandomSource(seed: 11)
        let keys = (0..<IndexKeys.operationCount(blocks.count)).map { _ in
            IndexKeys.key(blocks.lowerBound + source.below(blocks.count))
        }
        let wanted = kind == "hit" ? keys.count : 0
        let runs = PairedRuns(count: setting.pairCount) {
            nanoseconds(per: keys.count) {
                var last: UInt64 = 0
                var found = 0
                for place in keys.indices {
                    // No location has its top bit set, which the compiler cannot know.
                    let number = index.find(keys[place + Int(last >> 63)])
                    last = 0
                    if let number {
                        last = index[location: number]
                        found += 1
                    }
                }
                precondition(found == wanted, "the index has lost a key, or found one that it never had")
            }
        } reference: {
            nanoseconds(per: keys.count) {
                precondition(table.find(keys) == wanted, "absl's table has lost a key, or found one that it never had")
            }
        }
        return runs.row(
            name: "index \(size) find \(kind), \(group)", unit: "ns", referenceName: referenceName,
            conditions: "random keys, each after the one before it; \(equal)")
    }

    private func chainRow(
        _ index: inout BlockIndex, _ table: AbslTable, _ blockCount: Int, _ size: String
    ) -> BenchmarkRow {
        let length = 1000
        let chains = IndexKeys.chains(of: blockCount, length: length, seed: 12)
        var numbers: [BlockNumber] = []
        var words = [UInt64](repeating: 0, count: length)
        let runs = PairedRuns(count: setting.pairCount) {
            nanoseconds(per: chains.count * length) {
                for chain in chains {
                    numbers.removeAll(keepingCapacity: true)
                    precondition(index.longestRun(chain.span, into: &numbers) == length)
                    for place in 0..<length { words[place] = index[location: numbers[place]] }
                }
            }
        } reference: {
            nanoseconds(per: chains.count * length) {
                for chain in chains { precondition(table.longestRun(chain, into: &words) == length) }
            }
        }
        return runs.row(
            name: "index \(size) longest run, \(group)", unit: "ns",
            referenceName: referenceName + ", asked 8 keys ahead",
            conditions:
                "a block; chains of \(length) inserted together, locations taken, too; \(equal)")
    }
}
