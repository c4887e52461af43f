// What a store says to the thread that serves its sessions, and that thread's wake-up.

import KVSystem

/// Commands of the store on their way to the thread of their sessions.
///
/// Commands about requests have room for all that its sessions may have in flight. Notifications have a mailbox of their own: a
/// flood of them is refused there, and takes no answer's place.
final class SessionInbox: Sendable {
    private static let notificationCountMax = 4096

    let signal: WakeSignal
    private let commands: Mailbox<SessionCommand>
    private let notifications: Mailbox<SessionCommand>

    init(limits: ServerLimits) throws(SystemError) {
        signal = try WakeSignal()
        commands = Mailbox(capacity: limits.commandCountMax, waking: signal)
        notifications = Mailbox(capacity: Self.notificationCountMax, waking: signal)
    }

    /// Takes a command of the store.
    func post(_ command: SessionCommand) -> Acceptance {
        if case .notify = command { return notifications.post(command) }
        return commands.post(command)
    }

    /// Whether nothing waits.
    var isEmpty: Bool { commands.isEmpty && notifications.isEmpty }

    /// Takes all that waits, commands before notifications; `batch` is empty before and after.
    func drain(through batch: inout [SessionCommand], _ perform: (SessionCommand) -> Void) {
        commands.drain(into: &batch)
        for command in batch { perform(command) }
        notifications.drain(into: &batch)
        for command in batch { perform(command) }
        batch.removeAll(keepingCapacity: true)
    }
}
