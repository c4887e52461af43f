// Waits that end when they should, however long they may take.

import KVModel
import KVSystem
import Testing

@Suite struct WaitingTests {
    private static let forEver = Duration(nanoseconds: .max)

    @Test func aThreadIsWaitedForHoweverLongTheLimitIs() throws {
        let never = OneTimeFlag()
        let thread = try EngineThread("a-while") { _ = never.wait(within: Duration(milliseconds: 30)) }
        #expect(thread.join(atMost: Self.forEver))
    }

    @Test func aThreadThatGoesOnIsLeftBehind() throws {
        let ends = OneTimeFlag()
        let thread = try EngineThread("longer") { _ = ends.wait(within: Duration(seconds: 30)) }
        #expect(!thread.join(atMost: Duration(milliseconds: 1)))
        ends.set()
    }

    @Test func aSignalIsWaitedForHoweverLongTheLimitIs() throws {
        let signal = try WakeSignal()
        signal.prepareToSleep()
        signal.wake()
        signal.wait(atMost: Self.forEver)
        signal.awake()
        signal.wait(atMost: .zero)
        signal.wait(atMost: Duration(seconds: -1))
    }

    /// Who looks after a device every 20 µs sleeps so long, and not until the next millisecond. Of twenty tries one at least is not
    /// held up by others on this machine.
    @Test func aShortWaitIsShort() throws {
        let signal = try WakeSignal()
        let shortest = (0..<20).map { _ in
            let began = MonotonicClock.now
            for _ in 0..<10 { signal.wait(atMost: Duration(nanoseconds: 20_000)) }
            return MonotonicClock.now - began
        }.min()
        #expect(shortest ?? Self.forEver < Duration(milliseconds: 8))
    }
}
