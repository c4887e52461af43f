// The store's table in memory, without flash behind: bytes an extent, and look-ups through the decisions' own door.

import Foundation
import KVFlash
import KVModel
import KVStore
import KVTransport

struct StoreTableBenchmark: Benchmark {
    let name = "storetable"
    let purpose = "the store's table of 10 M blocks: bytes an extent, batched look-ups against single ones"

    private static let blockCount = 10_000_000
    private static let extentBytes = 64 << 10

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        note("storetable: \(Self.blockCount) blocks")
        var world = try TableWorld(blockCount: Self.blockCount, extentBytes: Self.extentBytes)
        let memory = boundRow(
            name: "store table memory", unit: "B/extent",
            measured: [Double(world.store.tableBytes) / Double(Self.blockCount)], bound: 64, boundName: "the bound",
            conditions: "\(Self.blockCount) extents, each with a block; records, slots and allocators as mapped")
        var source = RandomSource(seed: 5)
        let keys = (0..<1000 * setting.pairCount).map { _ in source.below(Self.blockCount) }
        var round = 0
        let batched = try PairedRuns(count: setting.pairCount) {
            round = (round + 1) % setting.pairCount
            return try world.microseconds(keys[(round * 1000)..<(round * 1000 + 1000)], batch: 1000)
        } reference: {
            try 1.5 * world.microseconds(keys[(round * 1000)..<(round * 1000 + 1000)], batch: 1)
        }
        var rates: [Double] = []
        for pair in 0..<setting.pairCount {
            rates.append(try world.microseconds(keys[(pair * 1000)..<(pair * 1000 + 1000)], batch: 256) / 1000)
        }
        return [
            memory, try manyRow(),
            batched.row(
                name: "store table 1,000 keys", unit: "µs", referenceName: "1.5 × 1,000 single look-ups",
                conditions: "random present keys of \(Self.blockCount), without a socket, reply included"),
            boundRow(
                name: "store table 256 keys a call", unit: "µs/key", measured: rates, bound: 1 / 1.6,
                boundName: "1.6 M keys/s", conditions: "the store thread's share alone, without a socket"),
        ]
    }

    /// A hundred million blocks: the table as the process holds it, every page touched.
    private func manyRow() throws -> BenchmarkRow {
        let count = 100_000_000
        note("storetable: \(count) blocks")
        let world = try TableWorld(blockCount: count, extentBytes: Self.extentBytes)
        return boundRow(
            name: "store table of 100 M", unit: "B/extent",
            measured: [Double(world.store.tableBytes) / Double(count)], bound: 64, boundName: "the bound",
            conditions: "\(count) extents, each with a block, without flash behind; the process has "
                + String(format: "%.1f GB resident", Double(residentBytes()) / 1e9))
    }
}

/// Decisions that found so many blocks on a drive nobody has.
struct TableWorld: ~Copyable {
    var store: StoreDecisions
    private let session = SessionID(transport: 1, number: 1)
    private var number: UInt32 = 1
    private var commands: [StoreOutput] = []

    init(blockCount: Int, extentBytes: Int) throws {
        let settings = StoreSettings(
            extentBytes: extentBytes, drives: [StoreDrive(extentCount: blockCount)], memoryBytes: 16 * extentBytes,
            payloadBytesMax: extentBytes, operationCountMax: 64, driveCommandCountMax: 64,
            waitLimit: Duration(seconds: 1), sharedShare: 0.25, writeBytesPerDay: 0, tenantShare: 1,
            scrubBytesPerSecond: 0,
            operators: ["o"], opensUnknownNamespaces: true, defaultPolicy: NamespacePolicy(), pinCountMax: 1,
            wallSecondsAtOrigin: 0, hashSeed: 7)
        store = try StoreDecisions(settings, at: .zero)
        store.restoreNamespace("n", NamespacePolicy())
        let digest = StoreDecisions.digest(ofNamespace: "n")
        for block in 0..<blockCount {
            var extents = ExtentList()
            extents.append(UInt32(block))
            let object = FlashObject(
                name: Self.name(block), metadata: ObjectMetadata(), namespace: digest, payloadBytes: extentBytes,
                checksum: 1, generation: 1, extents: extents)
            store.recover(.object(object), from: 0)
        }
        _ = store.endRecovery(generationMax: 1, pins: [], at: .zero, into: &commands)
        ask(.session(.opened(session, Peer(tenant: "o", carrier: .loopback, address: ""))))
        ask(.session(.request(RequestID(session: session, number: 0), .openNamespace(name: "n"))))
    }

    /// Gives the table to somebody else.
    consuming func taken() -> StoreDecisions { store }

    static func name(_ block: Int) -> ObjectName {
        ObjectName(FullKey(mixBits(UInt64(block)), mixBits(UInt64(block) &+ 77 << 40), 0, 0))
    }

    private mutating func ask(_ input: StoreInput) {
        commands.removeAll(keepingCapacity: true)
        store.handle(input, at: Instant(nanoseconds: 1), into: &commands)
    }

    /// Processor time of asking for these blocks, so many a request.
    mutating func microseconds(_ blocks: ArraySlice<Int>, batch: Int) throws -> Double {
        let names = blocks.map(Self.name)
        var requests: [[ObjectName]] = []
        for start in stride(from: 0, to: names.count, by: batch) {
            requests.append(Array(names[start..<min(start + batch, names.count)]))
        }
        let took = seconds {
            for request in requests {
                number &+= 1
                ask(.session(.request(RequestID(session: session, number: number), .lookUp(1, request))))
            }
        }
        guard case .session(.reply(_, let response))? = commands.last, case .presence(let words) = response.body,
            words.reduce(0, { $0 + $1.nonzeroBitCount }) == requests.last?.count
        else { throw OperatorError("the table does not answer that its blocks are there: \(commands)") }
        return took * 1e6
    }
}
