// For engines that cannot go on without the answer: the caller who waits hears the agent himself, so that between the agent's
// thread and his there is no other.

import Glibc
import KVModel
import KVSystem
import Synchronization

extension EngineClient {
    /// Asks and waits: `let found = client.answer { client.lookUp(names, promptTokens: count, done: $0) }`.
    ///
    /// It ends when `done` is called, which for a look-up is no later than its limit; places of a load or a save are the caller's
    /// again. Answers to others that come meanwhile are told on this thread. Several callers may wait at once: one of them hears
    /// for all. Not to be called from what a client calls.
    public func answer<Value: Sendable>(to ask: (_ done: @escaping @Sendable (Value) -> Void) -> Void) -> Value {
        let answer = AwaitedAnswer<Value>()
        let stream = takeReading()
        ask { answer.set($0) }
        if let stream { read(stream) { answer.isSet } }
        return answer.wait()
    }

    /// The reading, if nobody has it. From here on the caller keeps deadlines, too.
    private func takeReading() -> EngineStream? {
        state.withLock { state in
            guard state.isOpen, state.link?.reader == .nobody else { return nil }
            state.link?.reader = .caller
            state.briefly = nil
            watchSocket(&state)
            return state.link?.stream
        }
    }

    private func giveReadingBack(_ stream: EngineStream, isOver: Bool) {
        state.withLock { state in
            guard state.link?.stream === stream else { return }
            state.link?.reader = .nobody
            if isOver { breakOff(&state) }
            // Input that nobody has read is told now, as if it had just come.
            watchSocket(&state)
            if state.earliestDeadline < state.sleepsUntil { signal.wake() }
        }
    }

    private func read(_ stream: EngineStream, until isAnswered: () -> Bool) {
        var heard = watch(stream, until: isAnswered)
        while heard == .everything, !isAnswered() {
            let now = MonotonicClock.now
            let deadline = expire(at: now)
            if isAnswered() { break }
            if !stream.wantsRead {
                // A second at most: the client's thread may have ended the connection.
                let limit = min(deadline - now, Duration(seconds: 1))
                var waiting = pollfd(fd: stream.descriptor, events: Int16(POLLIN), revents: 0)
                guard unsafe poll(&waiting, 1, Int32((limit.nanoseconds + 999_999) / 1_000_000)) > 0 else {
                    if state.withLock({ $0.link?.stream !== stream }) { break }
                    continue
                }
                let isEnding = waiting.revents & Int16(POLLHUP | POLLERR) != 0
                stream.becameReadable(isEnding: isEnding)
            }
            heard = hear(stream)
        }
        giveReadingBack(stream, isOver: heard != .everything)
    }
}

extension EngineClient {
    /// Looks for an answer that waits for no bytes again and again for a moment: it is about to come.
    private func watch(_ stream: EngineStream, until isAnswered: () -> Bool) -> Heard {
        let limit = configuration.watch
        guard limit > .zero, let question = state.withLock({ $0.beginWatch() }) else { return .everything }
        let end = MonotonicClock.now + limit
        var heard = Heard.everything
        var isInTime = isAnswered()
        while heard == .everything, !isInTime, MonotonicClock.now < end {
            stream.becameReadable(isEnding: false)
            heard = hear(stream)
            isInTime = isAnswered()
        }
        state.withLock { $0.patience[question.rawValue].end(isInTime: isInTime) }
        return heard
    }
}

/// What one thread waits for.
private final class AwaitedAnswer<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    private let flag = OneTimeFlag()

    var isSet: Bool { flag.isAlreadySet }

    func set(_ value: Value) {
        self.value.withLock { $0 = value }
        flag.set()
    }

    func wait() -> Value {
        while !flag.wait(within: Duration(seconds: 60)) {}
        guard let value = value.withLock({ $0 }) else { preconditionFailure("an answer without a value") }
        return value
    }
}
