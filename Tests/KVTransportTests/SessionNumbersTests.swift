// Numbers of sessions where all have been given once.

import KVTransport
import Testing

struct SessionNumbersTests {
    @Test func theyBeginAgainInTheirLaneAndPassOverTheLiving() {
        // Lane 2 of 3: 2^32 is no multiple of 3.
        var numbers = SessionNumbers(first: 2, step: 3, next: .max - 1)
        let living: Set<UInt32> = [2, 8]
        let given = (0..<4).map { _ in numbers.give { living.contains($0) } }
        #expect(given == [.max - 1, 5, 11, 14])
        #expect(given.allSatisfy { $0 % 3 == 2 })
    }
}
