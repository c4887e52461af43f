// Whether who waits for a word that is about to come stays awake for it. The client's callers do, and the agent's thread.

/// Whether who waits stays awake at first.
///
/// A processor that sleeps takes 4 µs to wake, and 20 to 50 in many a virtual machine: as long as the other end takes to answer. To
/// stay awake pays while the other end has a processor of its own. Where it waits for this one nothing comes at all, so each time in
/// vain doubles how many words are waited for asleep from the start.
package struct AnswerPatience {
    /// Words waited for asleep after a time in vain, at most.
    private static let restMax = 256

    /// Words that are still to be waited for asleep, and how many the next time in vain costs.
    private var rest = 0
    private var nextRest = 1

    /// Of one that has waited for nothing yet.
    package init() {}

    /// Whether to stay awake for the next word.
    package mutating func begin() -> Bool {
        guard rest > 0 else { return true }
        rest -= 1
        return false
    }

    /// Somebody stayed awake; whether the word came meanwhile.
    package mutating func end(isInTime: Bool) {
        guard !isInTime else { return nextRest = 1 }
        rest = nextRest
        nextRest = min(2 * nextRest, Self.restMax)
    }
}
