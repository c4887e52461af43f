// Stands in for swift-crypto while fuzzing, so that what is fuzzed is built with the sanitizers and nothing else is. Not
// cryptographic at all.

/// A digest with the shape of SHA-256's interface.
public struct SHA256 {
    private var state: UInt64 = 0xCBF2_9CE4_8422_2325

    /// A digest of nothing so far.
    public init() {}

    /// Takes in bytes.
    public mutating func update(data: some Sequence<UInt8>) { for byte in data { mix(byte) } }

    /// Takes in bytes.
    public mutating func update(bufferPointer: UnsafeRawBufferPointer) { for byte in bufferPointer { mix(byte) } }

    private mutating func mix(_ byte: UInt8) { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }

    /// 32 bytes that depend on all that was taken in.
    public func finalize() -> [UInt8] { (0..<32).map { UInt8(truncatingIfNeeded: state >> UInt64($0 % 8 * 8)) } }

    /// The digest of the bytes.
    public static func hash(data: some Sequence<UInt8>) -> [UInt8] {
        var digest = SHA256()
        digest.update(data: data)
        return digest.finalize()
    }
}

/// A key with the shape of swift-crypto's.
public struct SymmetricKey {
    let bytes: [UInt8]
    /// A key of these bytes.
    public init(data: [UInt8]) { bytes = data }
}

/// A code with the shape of HMAC's interface.
public enum HMAC<Digest> {
    /// 32 bytes that depend on key and message.
    public static func authenticationCode(for data: [UInt8], using key: SymmetricKey) -> [UInt8] {
        SHA256.hash(data: key.bytes + data)
    }
}
