// How often an agent is asked again that breaks off.

import KVAgent
import KVModel
import Testing

@Suite struct ConnectPauseTests {
    private func pause() -> ConnectPause {
        ConnectPause(first: Duration(milliseconds: 100), longest: Duration(milliseconds: 500))
    }

    @Test func connectionsThatBreakAtOncePauseLongerEachTime() {
        var pause = pause()
        let pauses = (0..<6).map { _ in
            pause.ended(after: Duration(milliseconds: 1))
            return pause.take()
        }
        #expect(pauses == [0, 100, 200, 400, 500, 500].map { Duration(milliseconds: $0) })
    }

    @Test func oneThatLivedIsMadeAnewAtOnce() {
        var pause = pause()
        for _ in 0..<4 { _ = pause.take() }
        pause.ended(after: Duration(milliseconds: 100))
        #expect(pause.take() == .zero)
    }
}
