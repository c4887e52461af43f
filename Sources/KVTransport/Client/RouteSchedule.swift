// When a client begins a connection, and by which route. It connects nothing and reads no clock.

import KVModel

/// Which way to the store is tried next, and when: the first at once, the next when one fails, a pause after the last; a better
/// way from time to time; and a second connection beside one that is silent.
package struct RouteSchedule {
    /// The connection that carries new requests: by which route, and whether it shows no sign of life.
    package typealias Carrying = (route: Int, isSilent: Bool)

    private let configuration: StoreClientConfiguration
    /// The route to begin with when there is no connection.
    private var next = 0
    private var connectsAt = Instant.zero
    /// When a better route than that of the current connection is tried.
    private var climbsAt = Instant.distantFuture
    /// When a second connection may be begun beside one that is silent.
    private var rescuesAt = Instant.zero
    private var promotedAt = Instant.zero
    private var backoff: Duration
    private var random: RandomSource

    /// Nothing has been tried. The seed decides how long pauses are.
    package init(_ configuration: StoreClientConfiguration, seed: UInt64) {
        self.configuration = configuration
        backoff = configuration.backoff
        random = RandomSource(seed: seed)
    }

    /// The route to begin now, if any: there is no connection, or it is time to try a better way than the current one, or that
    /// says nothing: it may carry nothing any more, or the store may say nothing at all.
    package mutating func due(beside current: Carrying?, at now: Instant) -> Int? {
        guard let current else { return now >= connectsAt ? next : nil }
        if current.isSilent {
            guard now >= rescuesAt else { return nil }
            rescuesAt = now + configuration.connectLimit
            return current.route
        }
        guard current.route > 0, now >= climbsAt else { return nil }
        climbsAt = now + configuration.climbInterval
        return 0
    }

    /// When `due` may answer otherwise than now.
    package func nextTime(beside current: Carrying?) -> Instant {
        guard let current else { return connectsAt }
        if current.isSilent { return rescuesAt }
        return current.route > 0 ? climbsAt : .distantFuture
    }

    /// A connection carries new requests from now on.
    package mutating func promoted(at now: Instant) {
        promotedAt = now
        climbsAt = now + configuration.climbInterval
    }

    /// The store has answered something over the current connection.
    package mutating func proved() { backoff = configuration.backoff }

    /// The connection that carried requests is lost. A way that broke at once may break at once again: the next one gets a
    /// chance, and the better one is tried again when it is time to climb. A store that welcomes and then answers nothing right
    /// must not be asked in a loop.
    package mutating func lost(route: Int, isProven: Bool, at now: Instant) {
        let brokeAtOnce = now < promotedAt + configuration.climbInterval
        next = brokeAtOnce && route + 1 < configuration.routes.count ? route + 1 : 0
        if isProven || next > 0 { connectsAt = now } else { pause(from: now) }
    }

    /// A route could not be connected: the next one at once; after the last one a pause.
    ///
    /// - Returns: Whether it was the last.
    package mutating func failed(route: Int, at now: Instant) -> Bool {
        next = route + 1
        guard next == configuration.routes.count else { return false }
        next = 0
        pause(from: now)
        return true
    }

    /// Puts off the next try.
    private mutating func pause(from now: Instant) {
        // Between half and the whole of the pause, so that many clients do not come back at once.
        connectsAt = now + Duration(nanoseconds: Int64(Double(backoff.nanoseconds) * (0.5 + 0.5 * random.uniform())))
        backoff = min(backoff + backoff, configuration.backoffMax)
    }
}
