// How a block gets its key. Fixed: a key computed by one version, on one machine, in one language names the same block
// everywhere and for ever. The vectors beside the tests are checked from Swift and from Python.

import KVModel

/// Computes keys of blocks of one namespace.
public struct BlockIdentity: Sendable {
    /// The namespace's digest.
    public let namespaceDigest: [UInt8]

    /// Keys in the namespace with this digest (32 bytes).
    public init(namespaceDigest: [UInt8]) {
        precondition(namespaceDigest.count == 32, "a namespace digest of other than 32 bytes")
        self.namespaceDigest = namespaceDigest
    }

    /// The key of a block from its contents.
    ///
    /// SHA-256("holdfast-block-1", namespace digest, "canonical", parent key (empty for the first block), LoRA digest
    /// (empty without), count of media digests, each of them, token ids as 32-bit little-endian words).
    public func canonicalKey(
        parent: FullKey?, tokens: [UInt32], loraDigest: [UInt8] = [], mediaDigests: [[UInt8]] = []
    ) -> FullKey {
        var digest = begin("canonical")
        digest.add(parent?.bytes ?? [])
        digest.add(loraDigest)
        digest.add(number: UInt64(mediaDigests.count))
        for media in mediaDigests { digest.add(media) }
        digest.add(tokens.flatMap { token in (0..<4).map { UInt8(truncatingIfNeeded: token >> (8 * $0)) } })
        return FullKey(bytes: digest.finish())
    }

    /// The key of a block from the engine's own chained hash, which covers parent and extras already.
    ///
    /// SHA-256("holdfast-block-1", namespace digest, "engine", the hash's bytes).
    public func engineKey(hash: [UInt8]) -> FullKey {
        var digest = begin("engine")
        digest.add(hash)
        return FullKey(bytes: digest.finish())
    }

    private func begin(_ body: String) -> FieldDigest {
        var digest = FieldDigest(domain: "holdfast-block-1")
        digest.add(namespaceDigest)
        digest.add(Array(body.utf8))
        return digest
    }
}
