// Who decides: whoever brings something. A thread leaves its event in a mailbox and takes a turn, unless another thread is at
// it, which then finds the event when its own turn is over. So a frame that a lane reads is answered into that lane's own
// mailbox before it looks there, and a drive's thread says itself to whom the end of its write goes: between socket and drive
// no thread is woken. The store's own thread sees to the time, and to what a turn left over.

import KVFlash
import KVModel
import KVSystem
import KVTransport
import Logging
import Synchronization

/// The decisions, and what a turn needs. It belongs to whoever decides.
final class StoreDesk: @unchecked Sendable {
    var decisions: StoreDecisions
    /// All that there are, in their order.
    var drives: [any Drive] = []
    /// What is to be done.
    var commands: [StoreOutput] = []
    fileprivate var sessionEvents: [SessionEvent] = []
    fileprivate var ends: [StoreInput] = []
    /// Subscribers that are behind because their lane had no room.
    fileprivate var lost = LostNotifications()
    fileprivate var publishAt = Instant.zero
    fileprivate var isPublished = false

    init(_ decisions: consuming StoreDecisions) { self.decisions = decisions }
}

extension Store {
    /// Turns in a row that a thread takes for others; then the store's own goes on.
    private static let turnsMax = 4
    /// How old the published status may be while something happens.
    private static let publishInterval = Duration(milliseconds: 20)
    /// How soon the store's thread looks again that was due while another thread decided.
    private static let retryInterval = Duration(milliseconds: 1)

    /// Takes the end of an effect, which may not be refused, from any thread.
    func end(_ event: StoreInput) {
        precondition(fromOthers.leave(event) == .accepted, "more ends than effects")
        decide()
    }

    /// Has what was left in the mailboxes decided: now, or by the thread that is at it.
    func decide() {
        for _ in 0..<Self.turnsMax {
            // Whoever fails here has left its event before; whoever gives the turn back looks for events afterwards.
            guard begin() else { return }
            turn()
            isDeciding.store(false, ordering: .sequentiallyConsistent)
            if fromSessions.isEmpty, fromOthers.isEmpty { return }
        }
        signal.wake()
    }

    private func begin() -> Bool { !isDeciding.exchange(true, ordering: .sequentiallyConsistent) }

    /// The store's own thread. It begins with the turn that its maker took.
    func run() {
        obey()
        isDeciding.store(false, ordering: .sequentiallyConsistent)
        while !wantsStop.load(ordering: .acquiring) {
            let wasFree = begin()
            if wasFree {
                alarm.store(.max, ordering: .sequentiallyConsistent)
                turn()
                isDeciding.store(false, ordering: .sequentiallyConsistent)
            }
            signal.prepareToSleep()
            let left = Instant(nanoseconds: alarm.load(ordering: .sequentiallyConsistent)) - MonotonicClock.now
            if !wantsStop.load(ordering: .acquiring) {
                if !wasFree {
                    signal.wait(atMost: max(left, Self.retryInterval))
                } else if left > .zero, fromSessions.isEmpty, fromOthers.isEmpty {
                    signal.wait(atMost: left)
                }
            }
            signal.awake()
        }
    }

    /// Decides on all that was left, and on a slice of what nobody asked for.
    private func turn() {
        let desk = desk
        guard !wantsStop.load(ordering: .acquiring) else { return }
        // Ends before beginnings: what ends gives room to what begins.
        fromOthers.drain(into: &desk.ends)
        for event in desk.ends where !event.endsSessions { decide(on: event) }
        fromSessions.drain(into: &desk.sessionEvents)
        for event in desk.sessionEvents {
            if case .closed(let session) = event, let tenant = desk.decisions.tenant(of: session) {
                sessionPlaces.withLock { $0.giveBack(of: tenant) }
            }
            decide(on: .session(event))
            if desk.commands.count > 64 { obey() }
        }
        // Behind the sessions that were opened with the keys of before: they are to end, too.
        for event in desk.ends where event.endsSessions { decide(on: event) }
        let now = MonotonicClock.now
        if desk.decisions.nextDeadline <= now { desk.decisions.handle(.tick, at: now, into: &desk.commands) }
        let hasMore = desk.decisions.work(at: now, into: &desk.commands)
        obey()
        desk.lost.tell { post($0) }
        isQuiet.store(desk.decisions.isDraining && desk.decisions.isQuiet, ordering: .releasing)
        if !desk.sessionEvents.isEmpty || !desk.ends.isEmpty { desk.isPublished = false }
        publish(at: now)
        // What is not published yet is, when its time comes; a store that is idle sleeps on.
        var next = min(desk.decisions.nextDeadline, desk.isPublished ? .distantFuture : desk.publishAt)
        if !desk.lost.isEmpty { next = min(next, now + Self.publishInterval) }
        wake(at: hasMore ? now : next)
    }

    private func decide(on event: StoreInput) {
        desk.decisions.handle(event, at: MonotonicClock.now, into: &desk.commands)
    }

    private func publish(at now: Instant) {
        guard now >= desk.publishAt, !desk.isPublished else { return }
        let status = desk.decisions.status()
        let times = (put: desk.decisions.putTimes, get: desk.decisions.getTimes)
        published.withLock { $0 = status }
        publishedTimes.withLock { $0 = times }
        desk.isPublished = true
        desk.publishAt = now + Self.publishInterval
    }

    /// Has the store's thread take a turn at a time. Only that thread sets it later again.
    private func wake(at time: Instant) {
        guard time.nanoseconds < alarm.load(ordering: .sequentiallyConsistent) else { return }
        alarm.store(time.nanoseconds, ordering: .sequentiallyConsistent)
        signal.wake()
    }

    private func obey() {
        for command in desk.commands {
            switch command {
            case .session(let order): obey(order)
            case .drive(let number, let order):
                let acceptance = desk.drives[number].post(order)
                if case .discard = order { continue }
                precondition(acceptance == .accepted, "more commands at a drive than it takes")
            case .catalogue(let ticket, let change):
                if catalogue.post(ticket: ticket, change) == .full {
                    end(.catalogued(ticket: ticket, succeeded: false))
                }
            case .verify(let tag, let slice, let expected):
                let order = ChecksumWorker.Order(tag: tag, slice: slice, expected: expected)
                let acceptance = worker.withLock { $0?.post(order) ?? .full }
                precondition(acceptance == .accepted, "more checksums to take than operations")
            case .log(let note):
                logger.log(level: note.isWarning ? .warning : .info, "\(note.text)")
            }
        }
        desk.commands.removeAll(keepingCapacity: true)
    }

    private func obey(_ order: SessionCommand) {
        if case .notify(let session, let notification) = order {
            guard !desk.lost.withholds(notification, of: session) else { return }
            if post(order) == .full { desk.lost.add(notification, of: session) }
            return
        }
        precondition(post(order) == .accepted, "more answers than requests")
    }

    private func post(_ order: SessionCommand) -> Acceptance {
        let transport =
            switch order {
            case .receive(let request, _), .reply(let request, _), .send(let request, _, _): request.session.transport
            case .notify(let session, _), .disconnect(let session, _): session.transport
            }
        // A transport that is gone has no sessions to be told.
        return servers.withLock({ $0[transport] })?.post(order) ?? .accepted
    }
}

extension StoreInput {
    /// Whether sessions end by it that its sender cannot know: all that were opened before it.
    fileprivate var endsSessions: Bool { if case .tenants = self { true } else { false } }
}
