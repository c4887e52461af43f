// Transfers that wait for one path: the more urgent kind first, and within a kind engines in turn, so that none of them
// fills a path for the others.

import KVModel
import KVTiering
import KVTransport

/// A transfer as paths know it. Numbers are used again; the serial tells a later transfer from an earlier one.
struct FlightName: Equatable {
    var transfer: TransferNumber
    var serial: UInt32
}

/// The ways that bytes take.
enum Path: Int, CaseIterable {
    /// Out of engines into node memory, and back.
    case outOfEngine, intoEngine
    /// From and to local flash.
    case flashRead, flashWrite
    /// From and to the shared store.
    case storeGet, storePut

    init(from: Tier, to: Tier) {
        switch (from, to) {
        case (.hbm, .dram): self = .outOfEngine
        case (.dram, .hbm): self = .intoEngine
        case (.nvme, .dram): self = .flashRead
        case (.dram, .nvme): self = .flashWrite
        case (.flash, .dram): self = .storeGet
        case (.dram, .flash): self = .storePut
        default: preconditionFailure("tiers that do not exchange blocks")
        }
    }
}

/// What waits for one path.
struct PathQueue {
    private struct Lane {
        var engine: Int32
        var waiting = Queue<FlightName>()
    }

    private var lanes: [[Lane]]
    /// Whose turn it is, by kind.
    private var turns: [Int]
    /// Entries, those of transfers that have ended included.
    private(set) var count = 0

    init() {
        lanes = Array(repeating: [], count: TransferKind.allCases.count)
        turns = Array(repeating: 0, count: TransferKind.allCases.count)
    }

    mutating func add(_ flight: FlightName, _ kind: TransferKind, engine: Int32) {
        let kind = Int(kind.rawValue)
        count += 1
        if let lane = lanes[kind].firstIndex(where: { $0.engine == engine }) {
            lanes[kind][lane].waiting.append(flight)
        } else {
            lanes[kind].append(Lane(engine: engine))
            lanes[kind][lanes[kind].count - 1].waiting.append(flight)
        }
    }

    /// The transfer whose turn it is.
    var first: FlightName? {
        guard count > 0, let kind = lanes.firstIndex(where: { !$0.isEmpty }) else { return nil }
        return lanes[kind][turns[kind] % lanes[kind].count].waiting.first
    }

    /// The first has begun a piece: the next engine's turn. `isSpent`: it has nothing more to begin.
    mutating func passTurn(isSpent: Bool) {
        guard let kind = lanes.firstIndex(where: { !$0.isEmpty }) else { return }
        let lane = turns[kind] % lanes[kind].count
        turns[kind] = lane + 1
        guard isSpent else { return }
        _ = lanes[kind][lane].waiting.removeFirst()
        count -= 1
        if lanes[kind][lane].waiting.isEmpty {
            lanes[kind].remove(at: lane)
            turns[kind] = lane
        }
    }
}
