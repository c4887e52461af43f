// What a lane had no room for: its subscriber must not believe that nothing happened.

import KVSystem
import KVTransport

/// Subscribers that were not told something, until they are told so.
struct LostNotifications {
    private struct Stream: Hashable {
        let session: SessionID
        let namespace: NamespaceHandle
    }

    private var streams: Set<Stream> = []

    var isEmpty: Bool { streams.isEmpty }

    mutating func add(_ notification: KVTransport.Notification, of session: SessionID) {
        streams.insert(Stream(session: session, namespace: notification.namespace))
    }

    /// Whether an `overflow` comes first, which makes everything before it worthless.
    func withholds(_ notification: KVTransport.Notification, of session: SessionID) -> Bool {
        !streams.isEmpty && streams.contains(Stream(session: session, namespace: notification.namespace))
    }

    /// Says `overflow` to those for whom there is room now.
    mutating func tell(_ post: (SessionCommand) -> Acceptance) {
        for stream in streams where post(.notify(stream.session, .overflow(stream.namespace))) == .accepted {
            streams.remove(stream)
        }
    }
}
