// What engines said and the decisions have not heard, and in which order they hear it: a look-up, for which a scheduler stands
// still, goes before what other engines want done.

import KVModel
import KVTransport

/// A message with its time, which only lock step gives; without a message only the time passes.
package struct PostedMessage: Sendable {
    /// What an engine said.
    package var message: EngineMessage?
    /// When, in lock step.
    package var time: Instant?

    /// A message without a time of its own.
    package init(_ message: EngineMessage?, at time: Instant? = nil) {
        self.message = message
        self.time = time
    }
}

/// Messages on their way from the mailbox to the decisions.
///
/// They are heard in the order in which they came, but for look-ups. A look-up overtakes ends of requests: to book a prompt and to
/// weigh its blocks anew takes longer than to find them. It overtakes whatever other engines said, too: to begin a load or a save
/// takes longer still. It overtakes nothing else of its own engine and nothing of its own conversation, so a conversation's next turn
/// comes behind the end of the one before, and what is saved for a request before its end.
package struct MessageBacklog {
    private struct End {
        var posted: PostedMessage
        var request: EngineDesk.TicketName
        var session: UInt64
    }

    /// Ends that may wait; when there are more the oldest is heard first, look-ups or not.
    package static let endsMax = 16

    /// Messages among which a look-up is searched for.
    package static let sightMax = 16
    /// Look-ups that may overtake the same message.
    package static let overtakesMax = 16

    private var messages = Queue<PostedMessage>()
    private var ends = Queue<End>()
    /// Look-ups that overtook the message in front.
    private var overtakes = 0
    /// Whom a look-up that is searched for may not overtake; empty between two searches.
    private var ahead = Ahead()

    private struct Ahead {
        var engines: [EngineNumber] = []
        var requests: [EngineDesk.TicketName] = []
        var sessions: [UInt64] = []

        mutating func removeAll() {
            engines.removeAll(keepingCapacity: true)
            requests.removeAll(keepingCapacity: true)
            sessions.removeAll(keepingCapacity: true)
        }
    }

    /// Of none.
    package init() {}

    /// Whether everything has been heard.
    package var isEmpty: Bool { messages.isEmpty && ends.isEmpty }
    /// Whether there is more than ends that wait.
    var hasMessages: Bool { !messages.isEmpty }
    /// Whether more are worth taking: a look-up among them would be seen.
    var hasSight: Bool { messages.count < Self.sightMax }
    /// The one that came first, for who hears them as they came.
    var first: PostedMessage? { messages.first }

    /// Adds one that came.
    package mutating func append(_ posted: PostedMessage) { messages.append(posted) }

    /// Takes the one that came first, for who hears them as they came.
    mutating func removeFirst() -> PostedMessage? { messages.removeFirst() }

    /// Takes the next that must not wait.
    ///
    /// - Parameter desk: Knows whose turn of which conversation ends.
    package mutating func takeUrgent(_ desk: EngineDesk) -> PostedMessage? {
        while let posted = messages.first {
            switch posted.message {
            case .finished(let engine, let end) where ends.count < Self.endsMax:
                let request = EngineDesk.TicketName(engine: engine, ticket: end.ticket)
                ends.append(End(posted: posted, request: request, session: desk.session(of: request)))
                _ = messages.removeFirst()
            case .lookUp(let engine, let lookUp) where !isBehindEnd(engine, lookUp): return messages.removeFirst()
            default:
                if let lookUp = takeLookUp(desk) { return lookUp }
                overtakes = 0
                return takeEnd() ?? messages.removeFirst()
            }
        }
        return nil
    }

    /// Takes the first look-up that may overtake all that came before it.
    private mutating func takeLookUp(_ desk: EngineDesk) -> PostedMessage? {
        guard overtakes < Self.overtakesMax else { return nil }
        defer { ahead.removeAll() }
        for index in 0..<min(messages.count, Self.sightMax) {
            switch messages[index].message {
            case .lookUp(let engine, let lookUp):
                let request = EngineDesk.TicketName(engine: engine, ticket: lookUp.ticket)
                let isFree =
                    !ahead.engines.contains(engine) && !ahead.requests.contains(request)
                    && (lookUp.session == 0 || !ahead.sessions.contains(lookUp.session))
                if isFree, !isBehindEnd(engine, lookUp) {
                    overtakes += 1
                    return messages.remove(at: index)
                }
                ahead.engines.append(engine)
                ahead.sessions.append(lookUp.session)
            case .finished(let engine, let end):
                let request = EngineDesk.TicketName(engine: engine, ticket: end.ticket)
                ahead.requests.append(request)
                ahead.sessions.append(desk.session(of: request))
            case let message?: ahead.engines.append(message.engine)
            case nil: return nil
            }
        }
        return nil
    }

    /// Takes the end that has waited longest.
    package mutating func takeEnd() -> PostedMessage? { ends.removeFirst()?.posted }

    /// Whether an end that waits is that of the conversation's last turn, or of a request of the same name.
    private func isBehindEnd(_ engine: EngineNumber, _ lookUp: EngineLookUp) -> Bool {
        guard !ends.isEmpty else { return false }
        let request = EngineDesk.TicketName(engine: engine, ticket: lookUp.ticket)
        return ends.contains { $0.request == request || (lookUp.session != 0 && $0.session == lookUp.session) }
    }
}
