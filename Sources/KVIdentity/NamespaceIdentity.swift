// What must be equal for two engines to share blocks. Blocks of different namespaces never meet, because the digest
// of the namespace goes into every key; a layout that does not match is refused with both sides named.

import KVModel

/// The fields that say what the bytes of a block mean, by name. All of `required` must be there; an engine may add
/// others (they count as well).
public struct NamespaceIdentity: Hashable, Sendable {
    /// The names that every namespace states.
    public static let required = [
        "block_tokens", "engine", "hash_scheme", "hash_seed", "head_size", "kv_dtype", "kv_heads", "kv_scales",
        "layers", "memory_order", "model", "tenant_salt", "tokenizer",
    ]

    /// The fields. Numbers are written in decimal, lists as engines print them; the empty string means "none".
    public let fields: [String: String]

    /// A namespace of its fields.
    ///
    /// - Throws: `OperatorError` naming the fields that are missing.
    public init(fields: [String: String]) throws(OperatorError) {
        let missing = Self.required.filter { fields[$0] == nil }
        guard missing.isEmpty else {
            throw OperatorError(
                "a namespace without \(missing.joined(separator: ", "))", at: "namespace",
                remedy: "state every required field; the empty string means none")
        }
        self.fields = fields
    }

    /// SHA-256("holdfast-namespace-1", count, then name and value of each field in the order of the names' bytes).
    public var digest: [UInt8] {
        var digest = FieldDigest(domain: "holdfast-namespace-1")
        digest.add(number: UInt64(fields.count))
        for name in fields.keys.sorted(by: { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }) {
            digest.add(Array(name.utf8))
            digest.add(Array(fields[name]!.utf8))
        }
        return digest.finish()
    }

    /// The fields in which two namespaces differ, as `name: ours | theirs`, for the refusal at attach.
    public func differences(from other: NamespaceIdentity) -> [String] { Self.differences(fields, other.fields) }

    /// The same of fields alone, in the order of their names: `name: left | right`.
    public static func differences(_ left: [String: String], _ right: [String: String]) -> [String] {
        guard left != right else { return [] }
        return Set(left.keys).union(right.keys).sorted().compactMap { name in
            let (one, other) = (left[name], right[name])
            return one == other ? nil : "\(name): \(one ?? "not stated") | \(other ?? "not stated")"
        }
    }
}
