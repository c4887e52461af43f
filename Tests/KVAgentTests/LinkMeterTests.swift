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

    @Test func aPathThatWasSlowOnceIsTriedAgainAfterItHasRested() {
        var meter = LinkMeter(first: first)
        move(1_000_000, in: 101, from: 0, &meter)
        // One long stretch says it all.
        #expect(meter.state(at: at(101)).bandwidth < 6e7)
        #expect(meter.state(at: at(101 + 1900)).bandwidth < 6e7)
        #expect(meter.state(at: at(101 + 2000)).bandwidth == 1e9)
        // Whoever asks while it is being tried sees what is known.
        meter.added(1_000_000, at: at(2200))
        #expect(meter.state(at: at(2200)).bandwidth < 6e7)
        meter.removed(1_000_000, moved: true, at: at(2300))
        // It disappointed again: the next try is twice as far away, and never farther than sixteen seconds.
        #expect(meter.state(at: at(2300 + 3900)).bandwidth < 3e7)
        #expect(meter.state(at: at(2300 + 4000)).bandwidth == 1e9)
        for turn in 0..<9 { move(1_000_000, in: 101, from: 100_000 * Int64(turn + 1), &meter) }
        #expect(meter.state(at: at(900_101 + 15_900)).bandwidth < 3e7)
        #expect(meter.state(at: at(900_101 + 16_000)).bandwidth == 1e9)
        // Once it is as it was believed at first, that is forgotten.
        for turn in 0..<30 { move(4_000_000, in: 5, from: 1_000_000 + 10 * Int64(turn), &meter) }
        #expect(meter.state(at: at(1_000_300)).bandwidth > 9e8)
        move(1_000_000, in: 101, from: 1_000_400, &meter)
        #expect(meter.state(at: at(1_000_501 + 2000)).bandwidth == 1e9)
    }

    @Test func aPathOnWhichBytesWaitAndNoneComeIsNotChosen() {
        var meter = LinkMeter(first: first)
        var patient = LinkMeter(first: first, showsSilence: false)
        meter.added(1_000_000, at: at(0))
        patient.added(1_000_000, at: at(0))
        // A millisecond of delay, one for the bytes, that again, and twenty of grace.
        #expect(meter.state(at: at(23)).delay == Duration(milliseconds: 2))
        #expect(meter.state(at: at(24)).delay > Duration(seconds: 600))
        #expect(patient.state(at: at(24)).delay == Duration(milliseconds: 2))
        // The first bytes end it; a path at rest is never silent.
        meter.removed(500_000, moved: true, at: at(5000))
        #expect(meter.state(at: at(5001)).delay < Duration(seconds: 600))
        meter.removed(500_000, moved: false, at: at(9000))
        #expect(meter.state(at: at(99_000)).delay == first.delay)
    }

    /// A slow drive behind a memory that has part of what is asked for.
    @Test func aPathThatIsFastAndSlowInTurnsIsNotSteady() {
        var meter = LinkMeter(first: first)
        #expect(meter.state(at: at(0)).isSteady)
        for turn in 0..<10 as Range<Int64> {
            move(64_000, in: 30, from: turn * 40, &meter)
            for burst in 0..<8 as Range<Int64> { move(1_000_000, in: 1, from: turn * 40 + 31 + burst, &meter) }
        }
        // What is believed is the truth of neither: nearly all of the path's time goes by at 2 MB/s.
        #expect(meter.bandwidth > 5e7)
        #expect(!meter.state(at: at(400)).isSteady)
        #expect(!meter.state(at: at(1380)).isSteady)
        // A second without such a wait, and it is as steady as any.
        #expect(meter.state(at: at(1400)).isSteady)
        // A path that is slow and nothing else is steady, too; only while it is tried at its first rate it is not.
        for turn in 0..<20 as Range<Int64> { move(64_000, in: 30, from: 2000 + turn * 30, &meter) }
        #expect(meter.bandwidth < 3e6)
        #expect(meter.state(at: at(2600)).isSteady)
        #expect(meter.state(at: at(2600 + 16_000)).bandwidth == 1e9)
        #expect(!meter.state(at: at(2600 + 16_000)).isSteady)
    }

    @Test func whatDoesNotComeSaysNothing() {
        var meter = LinkMeter(first: first)
        meter.added(1_000_000, at: at(0))
        meter.removed(1_000_000, moved: false, at: at(5000))
        #expect(meter.bandwidth == 1e9)
        #expect(meter.waitingBytes == 0)
    }
}
