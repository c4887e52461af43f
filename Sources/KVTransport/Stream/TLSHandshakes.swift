// Connections of a TLS server before they are any lane's: those whose handshake is under way.

import NIOCore
import Synchronization

/// The connections whose TLS handshake is under way, oldest first. The oldest of too many makes room, as on the lanes behind
/// them: whoever fills the places keeps nobody out.
final class TLSHandshakes: Sendable {
    private let most: Int
    private let underWay = Mutex<[any Channel]>([])

    /// - Parameter most: How many there may be.
    init(most: Int) { self.most = most }

    /// A handshake begins.
    ///
    /// - Returns: Whether an older one was ended for it.
    func begin(_ channel: any Channel) -> Bool {
        let oldest = underWay.withLock { channels -> (any Channel)? in
            channels.append(channel)
            return channels.count > most ? channels.removeFirst() : nil
        }
        oldest?.close(promise: nil)
        return oldest != nil
    }

    /// A handshake is over, or its connection is.
    ///
    /// - Returns: Whether it was still under way.
    func end(_ channel: any Channel) -> Bool {
        underWay.withLock { channels in
            guard let place = channels.firstIndex(where: { $0 === channel }) else { return false }
            channels.remove(at: place)
            return true
        }
    }
}
