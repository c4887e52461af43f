// How the world rests: it does what was put off, tells who waits for rest, and sleeps until somebody wakes it.

import KVModel
import KVSystem

extension LiveWorld {
    /// Names remembered before messages are looked at again.
    static let namesPerTurn = 64

    /// Nothing is under way: no transfer, no question, no event, no job.
    var isAtRest: Bool {
        openFlights == 0 && inquiries.isEmpty && !namespace.isAwaited && urgent.isEmpty && ordinary.isEmpty
            && early.isEmpty && desk.isQuiet
    }

    /// Whether something waits for the decisions for which somebody waits.
    var isBusy: Bool { !urgent.isEmpty || !ordinary.isEmpty || backlog.hasMessages || !inbox.messages.isEmpty }

    /// Whether somebody waits for the state of an agent at rest.
    var wantsPublishing: Bool {
        !isPublished && isAtRest && backlog.isEmpty && !inbox.quietWaiters.withLock { $0.isEmpty }
    }

    private var hasMail: Bool {
        (backlog.hasSight && !inbox.messages.isEmpty) || !inbox.ends.isEmpty || !inbox.stream.isEmpty
            || inbox.hasInspections || inbox.streamBroke.load(ordering: .acquiring)
            || inbox.wantsStop.load(ordering: .acquiring)
            || inbox.storeIsConnected.load(ordering: .acquiring) != wasConnected
            || inbox.quietAsked.load(ordering: .sequentiallyConsistent)
            || (door == nil && inbox.offeredDoor.withLock { $0 != nil })
    }

    mutating func sleep(until deadline: Instant) {
        // What was put off until there is nothing else to do, a piece at a time.
        guard !desk.names.isBehind else { return desk.names.catchUp(by: Self.namesPerTurn) }
        if isAtRest, backlog.isEmpty, isPublished { tellQuiet() }
        let deadline = min(deadline, namespaceIsAskedForAt)
        guard !watch(until: deadline) else { return }
        inbox.signal.prepareToSleep()
        guard !hasMail else { return inbox.signal.awake(wasSignalled: false) }
        counters.sleeps += 1
        if let door { return inbox.signal.awake(wasSignalled: door.sleep(until: deadline)) }
        let limit = deadline == .distantFuture ? nil : max(.zero, deadline - MonotonicClock.now)
        inbox.signal.wait(atMost: limit)
        inbox.signal.awake()
    }

    /// Looks for an engine's next word again and again for a moment: it often follows the one before. Whether something came.
    private mutating func watch(until deadline: Instant) -> Bool {
        guard let door, heardEngine, settings.limits.watch > .zero else { return false }
        heardEngine = false
        guard patience.begin() else { return false }
        let end = min(MonotonicClock.now + settings.limits.watch, deadline)
        var came = false
        while !came, MonotonicClock.now < end { came = hasMail || door.look() }
        patience.end(isInTime: came)
        return came
    }

    private func tellQuiet() {
        guard !hasMail, !isWaitingForStore else { return }
        let waiters = inbox.quietWaiters.withLock { waiters in
            defer { waiters = [] }
            return waiters
        }
        for waiter in waiters { waiter() }
    }
}
