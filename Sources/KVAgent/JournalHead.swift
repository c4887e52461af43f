// What stands in front of a journal: by which settings its decisions were made, and that nothing in it was damaged.

// What `TieringConfiguration` documents is not documented again here.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import Foundation
import KVModel
import KVSystem
import KVTiering

/// The settings of the decisions that wrote a journal, as far as decisions depend on them.
public struct JournalHead: Codable, Sendable {
    /// A tier's size, and the share of it that no policy fills.
    public struct Tier: Codable, Sendable {
        public var bytes: Int
        public var stagingShare: Double
    }

    /// Tells a journal from other files, and its versions apart.
    static let magic: [UInt8] = Array("HFJRNL05".utf8)

    /// The policy of the tiers. Nil: one without a name, of a test.
    public var policy: PolicyName?

    public var blockTokens: Int
    public var blockBytes: Int
    public var ownership: Ownership
    public var hbmBytes: Int
    public var dram: Tier?
    public var nvme: Tier?
    public var inclusion: InclusionMode
    public var nvmeWriteBudget: WriteBudgetConfiguration?
    public var hasStore: Bool
    public var spill: SpillRule
    public var directory: DirectoryConfiguration
    public var planner: PlannerConfiguration
    public var prefetch: PrefetchConfiguration?
    public var pinBudgetBytes: [Int]
    public var limits: TieringLimits
    public var loanShare: Double

    init(_ tiering: TieringConfiguration, policy: PolicyName?) {
        func tier(_ tier: TierConfiguration) -> Tier { Tier(bytes: tier.bytes, stagingShare: tier.stagingShare) }
        self.policy = policy
        blockTokens = tiering.blockTokens
        blockBytes = tiering.blockBytes
        ownership = tiering.ownership
        hbmBytes = tiering.hbmBytes
        dram = tiering.dram.map(tier)
        nvme = tiering.nvme.map(tier)
        inclusion = tiering.inclusion
        nvmeWriteBudget = tiering.nvmeWriteBudget
        hasStore = tiering.hasStore
        spill = tiering.spill
        directory = tiering.directory
        planner = tiering.planner
        prefetch = tiering.prefetch
        pinBudgetBytes = tiering.pinBudgetBytes
        limits = tiering.limits
        loanShare = tiering.loanShare
    }

    /// The same as settings of fresh decisions. Keys find other places in their tables there, on which nothing depends.
    ///
    /// - Throws: It names no policy that an agent can run.
    public func tiering() throws(OperatorError) -> TieringConfiguration {
        guard let policy, PolicyName.deployable.contains(policy) else {
            throw OperatorError("it does not say by which policy its decisions were made")
        }
        func tier(_ tier: Tier) -> TierConfiguration {
            TierConfiguration(bytes: tier.bytes, stagingShare: tier.stagingShare, deployed: policy)
        }
        var tiering = TieringConfiguration(
            blockTokens: blockTokens, blockBytes: blockBytes, ownership: ownership, dram: dram.map(tier),
            nvme: nvme.map(tier), inclusion: inclusion, nvmeWriteBudget: nvmeWriteBudget, hasStore: hasStore,
            spill: spill, directory: directory, planner: planner, prefetch: prefetch, pinBudgetBytes: pinBudgetBytes,
            limits: limits)
        tiering.hbmBytes = hbmBytes
        tiering.loanShare = loanShare
        return tiering
    }

    var bytes: [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        guard let data = try? encoder.encode(self) else { preconditionFailure("settings that are no JSON") }
        return Array(data)
    }
}

/// The pieces of a journal's file, one after another.
struct JournalPieces {
    private static let frameBytes = 12
    /// No writer makes longer ones.
    private static let pieceBytesMax = 1 << 30

    private let file: Data
    /// Where the next piece begins.
    private(set) var position: Int
    /// Whether the file ends in the middle of a piece.
    private(set) var isCutShort = false

    init(_ file: Data, from position: Int) {
        self.file = file
        self.position = position
    }

    /// The next piece, compared with its checksum; nil behind the last whole one.
    mutating func next() throws(OperatorError) -> [UInt8]? {
        let start = file.startIndex + position
        let left = file.endIndex - start
        guard left > 0 else { return nil }
        guard left >= Self.frameBytes else { return cutShort() }
        let count = Int(Self.number(file[start..<start + 4]))
        guard count <= Self.pieceBytesMax else { throw damaged() }
        guard left - Self.frameBytes >= count else { return cutShort() }
        let body = start + Self.frameBytes
        let piece = [UInt8](file[body..<body + count])
        guard Self.checksum(piece) == Self.number(file[start + 4..<body]) else { throw damaged() }
        position += Self.frameBytes + count
        return piece
    }

    private mutating func cutShort() -> [UInt8]? {
        isCutShort = true
        return nil
    }

    private func damaged() -> OperatorError {
        OperatorError("the piece at byte \(position) is not what was written")
    }

    /// Bytes behind their length and checksum.
    static func piece(_ bytes: [UInt8]) -> [UInt8] {
        var piece: [UInt8] = []
        piece.reserveCapacity(frameBytes + bytes.count)
        for shift in 0..<4 { piece.append(UInt8(truncatingIfNeeded: bytes.count >> (8 * shift))) }
        let checksum = checksum(bytes)
        for shift in 0..<8 { piece.append(UInt8(truncatingIfNeeded: checksum >> UInt64(8 * shift))) }
        return piece + bytes
    }

    private static func checksum(_ bytes: [UInt8]) -> UInt64 {
        var checksum = BlockChecksum()
        unsafe bytes.withUnsafeBytes { unsafe checksum.add($0) }
        return checksum.value
    }

    private static func number(_ bytes: Data) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
