// An agent's way into its namespace of the store: opened, subscribed to, refused, asked for again. It promises that a store which
// refuses is not asked without a pause, and that one which lets the agent in later is used without a restart.

import KVModel
import KVTransport

/// Where an agent stands with its namespace.
///
/// Who is refused asks again after a pause that doubles: an operator may yet let him in, and a store has others to serve meanwhile.
/// A namespace is open when it is subscribed to, too: before that nobody tells what comes and goes.
package struct StoreNamespace {
    private enum Phase {
        case shut, opening
        case subscribing(NamespaceHandle)
        case open(NamespaceHandle)
    }

    /// The first pause, and the longest.
    package static let pauseMin = Duration(milliseconds: 250)
    /// See `pauseMin`.
    package static let pauseMax = Duration(seconds: 30)

    private var phase = Phase.shut
    private var pause = pauseMin
    /// When it may be asked for, while it is shut.
    package private(set) var asksAt = Instant.zero
    /// Why it is shut, if the store said so.
    package private(set) var refusal: String?

    /// A namespace that nobody has asked for.
    package init() {}

    /// What names it in requests, once it is open.
    package var handle: NamespaceHandle? {
        if case .open(let handle) = phase { handle } else { nil }
    }

    /// Whether it is neither open nor asked for.
    package var isShut: Bool {
        if case .shut = phase { true } else { false }
    }

    /// Whether an answer about it is awaited.
    package var isAwaited: Bool {
        switch phase {
        case .opening, .subscribing: true
        case .shut, .open: false
        }
    }

    /// It is asked for.
    package mutating func asked() { phase = .opening }

    /// The store knows it by this handle. What follows is `subscribed`, where it is subscribed to.
    package mutating func found(_ handle: NamespaceHandle) { phase = .subscribing(handle) }

    /// It is open.
    package mutating func subscribed() {
        guard case .subscribing(let handle) = phase else { return }
        phase = .open(handle)
        pause = Self.pauseMin
        refusal = nil
    }

    /// The connection broke before an answer came: the next one may ask at once.
    package mutating func unanswered() { phase = .shut }

    /// The store will not have it, or not any more.
    package mutating func refused(_ why: String, at now: Instant) {
        refusal = why
        putOff(at: now)
    }

    /// It could not even be asked for.
    package mutating func putOff(at now: Instant) {
        phase = .shut
        asksAt = now + pause
        pause = min(pause + pause, Self.pauseMax)
    }
}
