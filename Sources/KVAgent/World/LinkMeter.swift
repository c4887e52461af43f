// How fast a path is, as seen: what the planner needs to weigh a load against computing. Not a benchmark: it learns from
// the bytes that move anyway.

import KVModel
import KVTiering

/// The rate of one path and what waits for it.
///
/// What was seen is believed until the path has rested for a while: a path that was slow once, and is therefore not chosen,
/// would otherwise never be seen again. Then one load tries it at the rate believed at first, and whoever asks while that moves
/// sees what it sees; each time it disappoints, the next try is longer in coming. A path on which bytes wait and none come is not
/// slow but silent: nothing is known of how long that lasts, so it is shown as one that nobody would choose, until bytes come.
/// A path that carried less than half of what is believed of it for a while, not long ago, is not steady: in between such times
/// some bytes come fast (a slow drive behind a memory that has part of them), and the mean of both is true of neither.
package struct LinkMeter {
    /// Bytes a second while the path was busy last.
    package private(set) var bandwidth: Double
    /// Bytes that transfers begun or waiting have still to move.
    package private(set) var waitingBytes = 0
    private let first: LinkState
    private let showsSilence: Bool
    /// When bytes came last, or began to wait on a path at rest; and when the path came to rest.
    private var heardAt = Instant.zero
    private var restedAt = Instant.zero
    /// How long a slow path rests before it is tried again.
    private var doubt = Self.doubtMin
    // The stretch of time under measurement: the path was busy from its start on.
    private var stretchStart = Instant.zero
    private var stretchBytes = 0
    private var isBusy = false
    /// Whether the stretch began with the path at rest.
    private var isFirst = false
    /// The slowest of the longer stretches seen of late, bytes a second, and when there was last one nearly as slow.
    private var slowest = Double.infinity
    private var slowAt = Instant.zero

    /// Stretches shorter than this say little; they grow until they are longer.
    private static let stretchMin = Duration(milliseconds: 1)
    /// A stretch of this length counts as much as all that was seen before it.
    private static let memory = Duration(milliseconds: 4)
    /// A stretch of this length counts for the path's steadiness, and for how long it does.
    private static let slowMin = Duration(milliseconds: 10)
    private static let slowMemory = Duration(seconds: 1)
    private static let doubtMin = Duration(seconds: 1)
    private static let doubtMax = Duration(seconds: 16)
    /// Silence up to this length is nothing.
    private static let silenceMin = Duration(milliseconds: 20)
    /// The delay of a silent path: longer than any prompt takes to compute.
    private static let silentDelay = Duration(seconds: 3600)

    /// A path believed to be as given until bytes have moved.
    ///
    /// - Parameter showsSilence: Whether a silent path is shown as one. Not to planners that load at any price.
    package init(first: LinkState, showsSilence: Bool = true) {
        bandwidth = first.bandwidth
        self.first = first
        self.showsSilence = showsSilence
    }

    /// A new transfer finds this.
    package func state(at now: Instant) -> LinkState {
        guard waitingBytes > 0 else {
            let isTriedAgain = bandwidth < first.bandwidth && now - restedAt >= doubt
            return LinkState(
                bandwidth: isTriedAgain ? first.bandwidth : bandwidth, delay: first.delay,
                isSteady: !isTriedAgain && isSteady(at: now))
        }
        let waiting = Duration(seconds: Double(waitingBytes) / bandwidth)
        // All that waits may come at once, at its end; twice that is late.
        if showsSilence, now - heardAt > Self.silenceMin + first.delay + waiting + waiting {
            return LinkState(bandwidth: bandwidth, delay: Self.silentDelay)
        }
        return LinkState(bandwidth: bandwidth, delay: first.delay + waiting, isSteady: isSteady(at: now))
    }

    private func isSteady(at now: Instant) -> Bool { now - slowAt >= Self.slowMemory || slowest >= bandwidth / 2 }

    package mutating func added(_ bytes: Int, at now: Instant) {
        waitingBytes += bytes
        guard !isBusy else { return }
        isBusy = true
        isFirst = true
        heardAt = now
        stretchStart = now
        stretchBytes = 0
    }

    /// Bytes came through, or (`moved` false) will not come.
    package mutating func removed(_ bytes: Int, moved: Bool, at now: Instant) {
        waitingBytes -= bytes
        if moved {
            stretchBytes += bytes
            heardAt = now
        }
        let length = now - stretchStart
        if length >= Self.stretchMin || (waitingBytes == 0 && length > .zero) {
            if stretchBytes > 0 {
                // Planners add the first byte's latency themselves: a stretch of little but waiting says little of the rate.
                let busy = max(length - (isFirst ? first.delay : .zero), Duration(seconds: length.seconds / 4))
                let seen = Double(stretchBytes) / busy.seconds
                let share = length.seconds / (length + Self.memory).seconds
                bandwidth = max(1e6, bandwidth + share * (seen - bandwidth))
                if length >= Self.slowMin { noteSlow(seen, at: now) }
            }
            stretchStart = now
            stretchBytes = 0
            isFirst = false
        }
        guard waitingBytes == 0 else { return }
        isBusy = false
        restedAt = now
        doubt = bandwidth < first.bandwidth / 2 ? min(doubt + doubt, Self.doubtMax) : Self.doubtMin
    }

    private mutating func noteSlow(_ seen: Double, at now: Instant) {
        let isForgotten = now - slowAt >= Self.slowMemory
        guard isForgotten || seen < slowest + slowest else { return }
        slowest = isForgotten ? seen : min(slowest, seen)
        slowAt = now
    }
}
