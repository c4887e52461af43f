// What engines said and the decisions have not heard, and in which order they hear it: nobody who waits for an answer stands
// behind the end of a request, for which nobody waits.

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
/// They are heard in the order in which they came, with one exception: look-ups overtake ends of requests. To book a prompt and to
/// weigh its blocks anew takes longer than to find them. Nothing else overtakes anything, so a conversation's next turn comes
/// behind the end of the one before, and what is saved for a request before its end.
package struct MessageBacklog {
    private struct End {
        var posted: PostedMessage
        var request: EngineDesk.TicketName
        var session: UInt64
    }

    /// Ends that may wait; when there are more the oldest is heard first, look-ups or not.
    package static let endsMax = 16

    private var messages = Queue<PostedMessage>()
    private var ends = Queue<End>()

    /// Of none.
    package init() {}

    /// Whether everything has been heard.
    package var isEmpty: Bool { messages.isEmpty && ends.isEmpty }
    /// Whether there is more than ends that wait.
    var hasMessages: Bool { !messages.isEmpty }
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
            default: return takeEnd() ?? messages.removeFirst()
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
