// The checksums that guard every block: known answers, three ways of computing them that agree to the bit, and what a
// block's checksum covers beside its bytes.

import CChecksum
import KVModel
import KVSystem
import Testing

@Suite struct ChecksumTests {
    @Test func knownAnswersHold() {
        // The check string of the catalogues of CRCs.
        let digits = Array("123456789".utf8)
        var checksum = BlockChecksum()
        unsafe digits.withUnsafeBytes { unsafe checksum.add($0) }
        #expect(checksum.value == 0x995d_c9bb_df19_39fa)
        let header = unsafe digits.withUnsafeBytes { unsafe headerChecksum($0) }
        #expect(header == 0xe306_9283)
        let wide = unsafe digits.withUnsafeBytes { unsafe hf_crc64_portable(0, $0.baseAddress!, 9) }
        #expect(wide == 0x995d_c9bb_df19_39fa)
        let narrow = unsafe digits.withUnsafeBytes { unsafe hf_crc32c_portable(0, $0.baseAddress!, 9) }
        #expect(narrow == 0xe306_9283)
    }

    @Test func theLibraryTheTablesAndTheDefinitionAgree() {
        var source = RandomSource(seed: 64)
        for trial in 0..<400 {
            // Short ones at every alignment, where the library changes its way; some long ones.
            let count = 1 + (trial < 300 ? source.below(600) : source.below(70_000))
            let start = source.below(64)
            let bytes = randomBytes(start + count, &source)
            let before = source.next()
            let short = UInt32(truncatingIfNeeded: before)
            unsafe bytes.withUnsafeBytes { all in
                let from = unsafe all.baseAddress! + start
                let wide = unsafe hf_crc64(before, from, count)
                let wideByTables = unsafe hf_crc64_portable(before, from, count)
                #expect(wide == wideByTables)
                let narrow = unsafe hf_crc32c(short, from, count)
                let narrowByTables = unsafe hf_crc32c_portable(short, from, count)
                #expect(narrow == narrowByTables)
            }
            if count < 600 {
                let wide = unsafe bytes.withUnsafeBytes { unsafe hf_crc64(before, $0.baseAddress! + start, count) }
                #expect(wide == bitByBit(before, bytes[start...]))
            }
        }
    }

    @Test func piecesGiveTheSameAsTheWhole() {
        var source = RandomSource(seed: 3)
        let bytes = randomBytes(100_000, &source)
        let whole = checksum(bytes[...])
        for _ in 0..<50 {
            var pieces = BlockChecksum()
            var done = 0
            while done < bytes.count {
                let end = min(bytes.count, done + source.below(30_000))
                unsafe bytes[done..<end].withUnsafeBytes { unsafe pieces.add($0) }
                done = end
            }
            #expect(pieces == whole)
        }
    }

    /// Lengths around the 16 KiB pieces in which the copy is made.
    @Test(arguments: [0, 1, 7, 16_383, 16_384, 16_385, 32_768, 200_001])
    func copyingWithChecksumCopiesAndSumsWhatWasCopied(count: Int) {
        var source = RandomSource(seed: UInt64(count))
        let from = randomBytes(count, &source)
        // A byte more on each side shows a copy that goes too far.
        var to = [UInt8](repeating: 0xA5, count: count + 2)
        var fused = BlockChecksum()
        unsafe to[1..<(count + 1)].withUnsafeMutableBytes { target in
            unsafe from.withUnsafeBytes { unsafe fused.copy($0, to: target) }
        }
        #expect(fused == checksum(from[...]))
        #expect(to[1..<(count + 1)] == from[...])
        #expect(to.first == 0xA5)
        #expect(to.last == 0xA5)
    }

    @Test func everyFieldOfAnObjectsNameAndItsLengthAreCovered() {
        let name = ObjectName(FullKey(1, 2, 3, 4), group: 5, shard: 1, shardCount: 2)
        var others = [ObjectName](repeating: name, count: 7)
        others[0].key = FullKey(9, 2, 3, 4)
        others[1].key = FullKey(1, 9, 3, 4)
        others[2].key = FullKey(1, 2, 9, 4)
        others[3].key = FullKey(1, 2, 3, 9)
        others[4].group = 9
        others[5].shard = 0
        others[6].shardCount = 9
        let payload: [UInt8] = [1, 2, 3, 0]
        let right = checksum(name, payload)
        for other in others { #expect(checksum(other, payload) != right) }
        #expect(checksum(name, Array(payload.dropLast())) != right)
        var lying = BlockChecksum.begin(name, payloadBytes: 3)
        unsafe payload.withUnsafeBytes { unsafe lying.add($0) }
        #expect(lying.value != right)
    }

    @Test func everySingleBitFlipIsSeen() {
        let name = ObjectName(FullKey(1, 2, 3, 4))
        var payload = (0..<512).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        let right = checksum(name, payload)
        for bit in 0..<(payload.count * 8) {
            payload[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(checksum(name, payload) != right)
            payload[bit / 8] ^= 1 << UInt8(bit % 8)
        }
    }

    /// CRC-64/XZ straight from its definition: reflected ECMA-182 polynomial, all ones before and after.
    private func bitByBit(_ start: UInt64, _ bytes: ArraySlice<UInt8>) -> UInt64 {
        var value = ~start
        for byte in bytes {
            value ^= UInt64(byte)
            for _ in 0..<8 { value = value & 1 == 1 ? (value >> 1) ^ 0xC96C_5795_D787_0F42 : value >> 1 }
        }
        return ~value
    }

    private func randomBytes(_ count: Int, _ source: inout RandomSource) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: source.next()) }
    }

    private func checksum(_ bytes: ArraySlice<UInt8>) -> BlockChecksum {
        var checksum = BlockChecksum()
        unsafe bytes.withUnsafeBytes { unsafe checksum.add($0) }
        return checksum
    }

    private func checksum(_ name: ObjectName, _ payload: [UInt8]) -> UInt64 {
        unsafe payload.withUnsafeBytes { unsafe BlockChecksum.of(name, $0) }
    }
}
