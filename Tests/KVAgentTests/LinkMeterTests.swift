// What a path is believed to carry: learned from the bytes that move, without the wait for the first of them, and doubted
// when none have moved for long.

import KVAgent
import KVModel
import KVTiering
import Testing

@Suite struct LinkMeterTests {
    private let first = LinkState(bandwidth: 1e9, delay: Duration(milliseconds: 1))

    private func at(_ milliseconds: Int64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    /// Moves `bytes` in `milliseconds`, with nothing else on the path.
    private func move(_ bytes: Int, in milliseconds: Int64, from start: Int64, _ meter: inout LinkMeter) {
        meter.added(bytes, at: at(start))
        meter.removed(bytes, moved: true, at: at(start + milliseconds))
    }

    @Test func theRateIsLearnedWithoutTheWaitForTheFirstByte() {
        var meter = LinkMeter(first: first)
        // 4 MB in 5 ms, one of which is latency: 1 GB/s, as believed.
        for turn in 0..<20 { move(4_000_000, in: 5, from: Int64(turn) * 10, &meter) }
        #expect(abs(meter.bandwidth - 1e9) < 1e7)
        // A path five times slower is soon known for it.
        for turn in 20..<50 { move(4_000_000, in: 21, from: Int64(turn) * 30, &meter) }
        #expect(abs(meter.bandwidth - 2e8) < 1e7)
    }

    @Test func aPathThatWasSlowOnceIsTriedAgain() {
        var meter = LinkMeter(first: first)
        for turn in 0..<30 { move(1_000_000, in: 101, from: Int64(turn) * 110, &meter) }
        let end: Int64 = 30 * 110
        #expect(meter.state(at: at(end)).bandwidth < 3e7)
        // After half a minute without bytes, half way back to what was believed at first.
        let later = meter.state(at: at(end + 30_000)).bandwidth
        #expect(later > 4e8 && later < 6e8)
        #expect(meter.state(at: at(end + 3_600_000)).bandwidth > 9e8)
        // What waits on the path is no reason to doubt: it is being seen.
        meter.added(1_000_000, at: at(end + 60_000))
        #expect(meter.state(at: at(end + 90_000)).bandwidth < 3e7)
    }

    @Test func whatDoesNotComeSaysNothing() {
        var meter = LinkMeter(first: first)
        meter.added(1_000_000, at: at(0))
        meter.removed(1_000_000, moved: false, at: at(5000))
        #expect(meter.bandwidth == 1e9)
        #expect(meter.waitingBytes == 0)
    }
}
