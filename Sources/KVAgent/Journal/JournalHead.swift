// What stands in front of a journal: by which settings its decisions were made, and that nothing in it was damaged.

import Foundation
import KVModel
import KVSystem
import KVTiering

/// The settings of the decisions that wrote a journal, as far as decisions depend on them.
public struct JournalHead: Codable {
    /// Tells a journal from other files, and its versions apart.
    static let magic: [UInt8] = Array("HFJRNL05".utf8)

    /// The policy of the tiers. Nil: one without a name, of a test.
    public let policy: PolicyName?
    /// All other settings. Its tiers have no policies: `tiering()` gives them theirs.
    public let settings: TieringConfiguration

    private enum CodingKeys: CodingKey { case policy }

    init(_ settings: TieringConfiguration, policy: PolicyName?) {
        self.policy = policy
        self.settings = settings
    }

    /// A head as it was written down: the settings and the policy's name beside them, in one object.
    public init(from decoder: any Decoder) throws {
        policy = try decoder.container(keyedBy: CodingKeys.self).decodeIfPresent(PolicyName.self, forKey: .policy)
        settings = try TieringConfiguration(from: decoder)
    }

    /// See `init(from:)`.
    public func encode(to encoder: any Encoder) throws {
        try settings.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encodeIfPresent(policy, forKey: .policy)
    }

    /// The same as settings of fresh decisions. Keys find other places in their tables there, on which nothing depends.
    ///
    /// - Throws: It names no policy that an agent can run.
    public func tiering() throws(OperatorError) -> TieringConfiguration {
        guard let policy, PolicyName.deployable.contains(policy) else {
            throw OperatorError("it does not say by which policy its decisions were made")
        }
        var tiering = settings
        tiering.dram?.makePolicy = TierConfiguration.deployed(policy)
        tiering.nvme?.makePolicy = TierConfiguration.deployed(policy)
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
