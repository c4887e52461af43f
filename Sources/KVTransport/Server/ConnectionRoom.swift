// Places for connections of peers whom nobody knows: a TLS handshake under way, a probe or a scrape over HTTP. There are only so
// many, and whoever fills them keeps nobody out.

import NIOCore
import Synchronization

/// Connections in the order in which they were last of use. The first of too many makes room.
package final class ConnectionRoom: Sendable {
    /// Places that a server of so many connections at most leaves free: one that comes is accepted before another is closed for it.
    package static let coming = 4

    private let most: Int
    private let connections = Mutex<[any Channel]>([])

    /// - Parameter most: How many there may be.
    package init(most: Int) { self.most = most }

    /// A connection comes.
    ///
    /// - Returns: Whether another was ended for it.
    @discardableResult
    func enter(_ channel: any Channel) -> Bool {
        let first = connections.withLock { channels -> (any Channel)? in
            channels.append(channel)
            return channels.count > most ? channels.removeFirst() : nil
        }
        first?.close(promise: nil)
        return first != nil
    }

    /// A connection is of use now.
    fileprivate func renew(_ channel: any Channel) {
        connections.withLock { channels in
            guard let place = channels.firstIndex(where: { $0 === channel }) else { return }
            channels.append(channels.remove(at: place))
        }
    }

    /// A connection is known from now on, or over.
    ///
    /// - Returns: Whether it still had its place.
    @discardableResult
    func leave(_ channel: any Channel) -> Bool {
        connections.withLock { channels in
            guard let place = channels.firstIndex(where: { $0 === channel }) else { return false }
            channels.remove(at: place)
            return true
        }
    }

    /// What a connection has in its pipeline to keep a place from its beginning to its end. It is of use whenever something is
    /// sent over it: one that asks slowly, or does not read what it asked for, is the first to make room.
    package func makePlace() -> any RemovableChannelHandler { Place(in: self) }

    private final class Place: ChannelOutboundHandler, RemovableChannelHandler {
        typealias OutboundIn = Never
        private let room: ConnectionRoom

        init(in room: ConnectionRoom) { self.room = room }

        func handlerAdded(context: ChannelHandlerContext) {
            let channel = context.channel
            room.enter(channel)
            channel.closeFuture.whenComplete { [room] _ in room.leave(channel) }
        }

        func flush(context: ChannelHandlerContext) {
            room.renew(context.channel)
            context.flush()
        }
    }
}
