// The payload's share of an object's checksum. Memory keeps half of an object's key, so the store could not take the
// checksum of a whole object again when it scrubs; it keeps the checksum of the payload alone and moves between the two.

import KVModel
import KVSystem

/// Arithmetic of CRC-64/XZ over joined messages: crc(A ‖ B) = crc(A) · x^(8·|B|) + crc(B), in the field of polynomials
/// over GF(2) modulo ECMA-182 (the identity behind `crc32_combine` of zlib).
package struct ChecksumAlgebra: Sendable {
    /// x^(8n) for the length used last: stores see one or two lengths.
    private var shiftLength = -1
    private var shift: UInt64 = 0

    private static let polynomial: UInt64 = 0xC96C_5795_D787_0F42
    /// x^(2^k), reflected: the highest bit is x^0.
    private static let powers: [UInt64] = {
        var powers: [UInt64] = [1 << 62]
        while powers.count < 64 { powers.append(multiply(powers[powers.count - 1], powers[powers.count - 1])) }
        return powers
    }()

    package init() {}

    /// The checksum of the payload alone, from that of the whole object.
    package mutating func payloadChecksum(of name: ObjectName, payloadBytes: Int, checksum: UInt64) -> UInt64 {
        checksum ^ prefix(of: name, payloadBytes)
    }

    /// The checksum of the whole object, from that of its payload alone.
    package mutating func objectChecksum(of name: ObjectName, payloadBytes: Int, payloadChecksum: UInt64) -> UInt64 {
        payloadChecksum ^ prefix(of: name, payloadBytes)
    }

    private mutating func prefix(of name: ObjectName, _ payloadBytes: Int) -> UInt64 {
        if payloadBytes != shiftLength {
            shift = Self.power(ofBytes: payloadBytes)
            shiftLength = payloadBytes
        }
        return Self.multiply(shift, BlockChecksum.begin(name, payloadBytes: payloadBytes).value)
    }

    private static func power(ofBytes count: Int) -> UInt64 {
        var result: UInt64 = 1 << 63
        var rest = count
        var place = 3
        while rest > 0 {
            if rest & 1 == 1 { result = multiply(powers[place], result) }
            rest >>= 1
            place += 1
        }
        return result
    }

    private static func multiply(_ left: UInt64, _ right: UInt64) -> UInt64 {
        var product: UInt64 = 0
        var shifted = right
        var rest = left
        while rest != 0 {
            if rest >> 63 == 1 { product ^= shifted }
            rest <<= 1
            shifted = shifted & 1 == 1 ? (shifted >> 1) ^ polynomial : shifted >> 1
        }
        return product
    }
}

/// The checksum of a payload alone, as the object table keeps it.
package func payloadChecksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    var checksum = BlockChecksum()
    unsafe checksum.add(bytes)
    return checksum.value
}
