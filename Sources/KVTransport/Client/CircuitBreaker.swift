// A store that is sick must not cost every request its deadline: after some failures in a row it is left alone for a
// while, then one request tries whether it is well again.

import KVModel

/// Lets requests through, or not. A plain value: time is given.
public struct CircuitBreaker: Sendable {
    /// How it judges.
    public struct Configuration: Sendable {
        /// Failures in a row that open it.
        public var failureCountMax: Int
        /// How long it stays open the first time; each further time in a row twice as long.
        public var pause: Duration
        /// The longest such pause.
        public var pauseMax: Duration

        /// A configuration of its parts.
        public init(failureCountMax: Int, pause: Duration, pauseMax: Duration) {
            self.failureCountMax = failureCountMax
            self.pause = pause
            self.pauseMax = pauseMax
        }
    }

    private enum State {
        case closed(failures: Int)
        case open(until: Instant, pause: Duration)
        case probing(pause: Duration)
    }

    private let configuration: Configuration
    private var state = State.closed(failures: 0)

    /// A closed breaker.
    public init(_ configuration: Configuration) { self.configuration = configuration }

    /// Whether requests go through freely.
    public var isClosed: Bool { if case .closed = state { true } else { false } }

    /// Whether a request may go now. After a pause exactly one may: the probe.
    public mutating func allows(at now: Instant) -> Bool {
        switch state {
        case .closed: return true
        case .probing: return false
        case .open(let until, let pause):
            guard now >= until else { return false }
            state = .probing(pause: pause)
            return true
        }
    }

    /// A request was answered.
    public mutating func succeeded() { state = .closed(failures: 0) }

    /// A request got no answer in time, or its connection broke.
    public mutating func failed(at now: Instant) {
        switch state {
        case .closed(let failures):
            let failures = failures + 1
            state =
                failures >= configuration.failureCountMax
                ? .open(until: now + configuration.pause, pause: configuration.pause) : .closed(failures: failures)
        case .probing(let pause):
            let longer = min(pause + pause, configuration.pauseMax)
            state = .open(until: now + longer, pause: longer)
        case .open: break
        }
    }
}
