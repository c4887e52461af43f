// An agent's way into its namespace of the store: opened, subscribed to, refused, asked for again. It promises that a store which
// refuses is not asked without a pause, and that one which lets the agent in later is used without a restart.

import KVModel
import KVTransport

/// Where an agent stands with its namespace.
///
/// Who is refused asks again after a pause that doubles: an operator may yet let him in, and a store has others to serve meanwhile.
/// A namespace is open when it is subscribed to, too: before that nobody tells what comes and goes.
package struct NamespaceStanding {
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
    /// Why it is shut, if the store was asked.
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

    /// Whether its stream was asked for.
    package var isSubscribing: Bool {
        if case .subscribing = phase { true } else { false }
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

    /// What keeps an agent out of a namespace, for operators: a store that refuses needs one of them, one that is slow does not.
    package struct Hindrance: Sendable, Equatable {
        /// Whether the store refuses. Otherwise it was silent or busy, and is asked again.
        package var isRefusal: Bool
        /// The same in words.
        package var words: String

        /// What it is, by what came of the question.
        ///
        /// - Parameters:
        ///   - response: What the store answered, or what its client made of its silence.
        ///   - name: The namespace.
        ///   - isSubscribing: Whether it was open, and its stream was asked for.
        ///   - limit: How long an answer was waited for.
        package init(_ response: Response, namespace name: String, isSubscribing: Bool, within limit: Duration) {
            var said = "\(response.status)"
            if case .text(let text) = response.body, !text.isEmpty {
                said += ", " + String(decoding: text, as: UTF8.self)
            }
            let asked = isSubscribing ? "to subscribe to namespace `\(name)`" : "to open namespace `\(name)`"
            isRefusal = false
            switch response.status {
            case .deadlinePassed:
                words = "the store is slow: asked \(asked), it gave no answer in \(limit.nanoseconds / 1_000_000) ms"
            case .busy, .unavailable, .failed, .cancelled:
                words = "the store cannot do it now: asked \(asked), it said \(said)"
            default:
                words = "the store refuses namespace `\(name)`: \(said)"
                isRefusal = true
            }
        }
    }

    /// The store will not have it, or not any more, or does not say.
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
