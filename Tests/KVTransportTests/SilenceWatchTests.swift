// When a peer counts as silent.

import KVModel
import KVTransport
import Testing

struct SilenceWatchTests {
    private static let still = LifeSigns(received: 7, taken: 7, isTaking: true)
    private static func at(_ seconds: Double) -> Instant { .zero + Duration(seconds: seconds) }

    /// Has seen the peer once, and asked for a sign of life when it did nothing for a second.
    private static func probed() -> SilenceWatch {
        var watch = SilenceWatch(limit: Duration(seconds: 1))
        watch.begins(at: .zero)
        _ = watch.look(at: still, at(1))
        _ = watch.look(at: still, at(2))
        return watch
    }

    @Test func aPeerThatDoesNothingIsAskedOnceBeforeItIsSilent() {
        var watch = SilenceWatch(limit: Duration(seconds: 1))
        watch.begins(at: .zero)
        #expect(watch.dueAt == Self.at(1))
        let asksAtFirst = watch.look(at: Self.still, Self.at(1))
        #expect(!asksAtFirst, "what is seen for the first time is news")
        #expect(watch.dueAt == Self.at(2))
        let asksAfterASecond = watch.look(at: Self.still, Self.at(2))
        #expect(asksAfterASecond, "it must be asked")
        #expect(!watch.isSilent)
        // From the last sign of life: an answer may take as long as a put may wait.
        #expect(watch.dueAt == Self.at(5))
        let asksAfterTheProbe = watch.look(at: Self.still, Self.at(5))
        #expect(!asksAfterTheProbe, "it is asked once")
        #expect(watch.isSilent)
        #expect(watch.dueAt == .distantFuture)
    }

    @Test func anyByteEitherWayIsASignOfLife() {
        for moved in [
            LifeSigns(received: 8, taken: 7, isTaking: false), LifeSigns(received: 7, taken: 8, isTaking: true),
        ] {
            var watch = Self.probed()
            let asksWhenItMoved = watch.look(at: moved, Self.at(4))
            #expect(!asksWhenItMoved)
            #expect(!watch.isSilent)
            #expect(watch.dueAt == Self.at(5))
            let asksWhenItMovedBack = watch.look(at: Self.still, Self.at(5))
            #expect(!asksWhenItMovedBack, "a change back is a change")
        }
    }

    @Test func anAnswerEndsTheSilence() {
        var watch = Self.probed()
        _ = watch.look(at: Self.still, Self.at(5))
        #expect(watch.isSilent)
        watch.heardAnswer(at: Self.at(9))
        #expect(!watch.isSilent)
        #expect(watch.dueAt == Self.at(10))
        let asksAgain = watch.look(at: Self.still, Self.at(10))
        #expect(asksAgain, "it is asked again")
    }

    @Test func answersBeforeAProbeCostNothing() {
        var watch = SilenceWatch(limit: Duration(seconds: 1))
        watch.begins(at: .zero)
        watch.heardAnswer(at: Self.at(0.5))
        #expect(watch.dueAt == Self.at(1))
    }
}
