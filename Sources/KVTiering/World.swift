// Everything outside the decisions, as one protocol, and the loop that joins the two.
// What is replayed is what is deployed: the agent and the replay run the same loop over different worlds.

import KVModel

/// Whether an effect was taken on. A world never blocks and never says "probably".
public enum Submission: UInt8, Sendable {
    /// Its end will come back as an event, exactly once.
    case accepted
    /// The world's queue has no room. Nothing was started; no event will come.
    case full
}

/// What the decisions see of everything else: the time, what happened, and a way to start effects.
public protocol World: ~Copyable {
    /// The time. It never runs back.
    var now: Instant { get }
    /// What happened next, or `.deadline` when nothing did until `deadline`.
    mutating func next(until deadline: Instant) -> Event
    /// Starts an effect. Its end returns as an event.
    mutating func perform(_ command: Command) -> Submission
}
