// What a node believes of the shared store: answers with an age, kept in the records of the blocks it knows anyway, so
// the directory is bounded as they are. It may be wrong both ways; only a load's result is truth.

import KVModel

/// What is known of the place of a block.
enum Whereabouts {
    case here(Tier)
    case absent
    case unknown
}

/// How the store's answers are read.
struct StoreDirectory {
    private let hasStore: Bool
    private let presentAge: Int64
    private let absentAge: Int64
    private let isSubscribed: Bool
    /// When everything heard before was forgotten, in the records' milliseconds; nil: never.
    private var forgottenAt: UInt32?

    init(hasStore: Bool, _ configuration: DirectoryConfiguration) {
        self.hasStore = hasStore
        presentAge = configuration.presentAge.nanoseconds / 1_000_000
        absentAge = configuration.absentAge.nanoseconds / 1_000_000
        isSubscribed = configuration.isSubscribed
    }

    /// The nearest tier from which a block could be had, now being `milliseconds`.
    @inline(__always)
    func source(of record: BlockRecord, at milliseconds: UInt32) -> Whereabouts {
        if record.dram == .present { return .here(.dram) }
        if record.nvme == .present { return .here(.nvme) }
        guard hasStore else { return .absent }
        let age = Int64(milliseconds &- record.flashHeard)
        // What was heard in the same millisecond may be older than the break: it is asked for again.
        if let forgottenAt, age >= Int64(milliseconds &- forgottenAt) { return .unknown }
        switch record.flash {
        case .present: return isSubscribed || age <= presentAge ? .here(.flash) : .unknown
        case .absent: return isSubscribed || age <= absentAge ? .absent : .unknown
        case .unknown: return .unknown
        }
    }

    /// Believes nothing that was heard until now.
    mutating func forget(at milliseconds: UInt32) { forgottenAt = milliseconds }
}
