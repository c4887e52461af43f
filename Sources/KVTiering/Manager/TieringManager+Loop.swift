// The loop that joins the decisions to a world: the same for every world.

import KVModel

extension TieringManager {
    /// Handles one event and starts what was decided. The only way in which events reach the decisions, in the agent
    /// as in the replay: a caller with its own event queue calls it per event, `run` calls it in a loop.
    ///
    /// - Parameters:
    ///   - event: What happened.
    ///   - world: Where the commands go.
    public mutating func handle<W: World & ~Copyable>(_ event: Event, in world: inout W) {
        handle(event, at: world.now)
        while let command = nextCommand() {
            if world.perform(command) == .full { refused(command) }
        }
    }

    /// Runs until the world's time reaches `end`.
    public mutating func run<W: World & ~Copyable>(in world: inout W, until end: Instant) {
        while world.now < end {
            let event = world.next(until: min(end, nextDeadline))
            handle(event, in: &world)
        }
    }
}
