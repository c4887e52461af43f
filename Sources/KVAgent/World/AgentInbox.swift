// What reaches the agent's thread from others: words of engines, ends of effects, the store's stream, questions of operators.

import KVFlash
import KVMemory
import KVModel
import KVSystem
import KVTransport
import Synchronization

/// What reaches the agent's thread from others.
final class AgentInbox: Sendable {
    /// The end of an effect.
    enum End: Sendable {
        case copied(CopyOrder)
        case device(DeviceCopies)
        case drive(FlashEvent)
        case store(StoreEvent)
    }

    let signal: WakeSignal
    let messages: Mailbox<PostedMessage>
    private let weight: MessageWeight
    let ends: Mailbox<End>
    let stream: Mailbox<Notification>
    /// The stream had no room: what it told so far is worth nothing.
    let streamBroke = Atomic<Bool>(false)
    let storeIsConnected = Atomic<Bool>(false)
    let storeReason = Mutex(AgentInbox.notConnectedYet)
    static let notConnectedYet = "not connected yet"
    let wantsStop = Atomic<Bool>(false)
    /// A door that the thread is to attend to.
    let offeredDoor = Mutex<AttendedDoor?>(nil)
    /// Where replies go, by engine.
    let sinks = Mutex<[EngineNumber: Agent.ReplySink]>([:])
    /// Called once when nothing is under way.
    let quietWaiters = Mutex<[@Sendable () -> Void]>([])
    /// Whether somebody asked for that since the thread looked last.
    let quietAsked = Atomic<Bool>(false)

    /// Questions to the decisions, answered between two events.
    let inspections = Mutex<[@Sendable (AgentCore) -> Void]>([])

    func takeInspections() -> [@Sendable (AgentCore) -> Void] {
        inspections.withLock { waiting in
            defer { waiting = [] }
            return waiting
        }
    }

    var hasInspections: Bool { inspections.withLock { !$0.isEmpty } }

    init(_ limits: AgentLimits, storeRequestsMax: Int) throws(SystemError) {
        signal = try WakeSignal()
        messages = Mailbox(capacity: limits.messagesMax, waking: signal)
        weight = MessageWeight(itemsMax: limits.messageItemsMax)
        let copies = limits.copyWorkers * limits.copyDepth + limits.flashReadsMax
        let drive = 2 * (limits.flashReadsMax + limits.flashWritesMax) + 8
        ends = Mailbox(capacity: copies + drive + 2 * storeRequestsMax + 64, waking: signal)
        stream = Mailbox(capacity: 256, waking: signal)
    }

    /// Posts a message.
    func post(_ posted: PostedMessage) -> Acceptance {
        guard let message = posted.message else { return messages.post(posted) }
        guard weight.add(message) else { return .full }
        guard messages.post(posted) == .full else { return .accepted }
        weight.remove(message)
        return .full
    }

    /// A message has been heard.
    func heard(_ message: EngineMessage) { weight.remove(message) }

    /// Posts what must never be refused.
    func postEnd(_ end: End) { precondition(ends.post(end) == .accepted, "more ends than effects") }

    func take(_ event: StoreEvent) {
        switch event {
        case .notified(let notification):
            if stream.post(notification) == .full {
                streamBroke.store(true, ordering: .releasing)
                messages.wakeOwner()
            }
        case .connected:
            storeIsConnected.store(true, ordering: .releasing)
            messages.wakeOwner()
        case .lost(let reason):
            storeReason.withLock { $0 = reason }
            storeIsConnected.store(false, ordering: .releasing)
            messages.wakeOwner()
        case .completed, .slotReturned: postEnd(.store(event))
        }
    }
}
