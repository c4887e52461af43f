// Failed proofs in the log.

import KVModel
import KVStore
import Testing

@Suite struct RefusedKeysTests {
    @Test func aLineASecondTellsOfAllSinceTheLast() {
        var refused = RefusedKeys()
        let start = Instant(nanoseconds: 5_000_000_000)
        #expect(refused.note(at: start) == 1)
        for index in 1...9 { #expect(refused.note(at: start + Duration(milliseconds: Int64(100 * index))) == nil) }
        #expect(refused.note(at: start + Duration(seconds: 1)) == 10)
        #expect(refused.note(at: start + Duration(seconds: 1.5)) == nil)
        #expect(refused.note(at: start + Duration(seconds: 9)) == 2)
    }
}
