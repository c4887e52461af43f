// SHA-256 over fields, each preceded by its length, so that no two different lists of fields give the same bytes.

import Crypto
import Foundation
import KVModel

/// A digest under construction: a domain first, then fields.
struct FieldDigest {
    private var hash = SHA256()

    /// Starts with the name of what is being digested: digests of different kinds never meet.
    init(domain: String) { add(Array(domain.utf8)) }

    /// Adds a field: its length as eight little-endian bytes, then its bytes.
    mutating func add(_ bytes: [UInt8]) {
        add(number: UInt64(bytes.count))
        hash.update(data: bytes)
    }

    /// Adds a number as eight little-endian bytes, without a length.
    mutating func add(number: UInt64) {
        hash.update(data: (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) })
    }

    /// The 32 bytes.
    consuming func finish() -> [UInt8] { Array(hash.finalize()) }
}

extension FullKey {
    /// The key with these 32 bytes.
    public init(bytes: [UInt8]) {
        precondition(bytes.count == 32, "a key of other than 32 bytes")
        func word(_ index: Int) -> UInt64 {
            (0..<8).reduce(0) { $0 | UInt64(bytes[index * 8 + $1]) << (8 * UInt64($1)) }
        }
        self.init(word(0), word(1), word(2), word(3))
    }

    /// Its 32 bytes.
    public var bytes: [UInt8] {
        (0..<32).map { UInt8(truncatingIfNeeded: self[$0 / 8] >> (8 * UInt64($0 % 8))) }
    }
}
