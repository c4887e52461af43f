// How fast a path is, as seen: what the planner needs to weigh a load against computing. Not a benchmark: it learns from
// the bytes that move anyway.

import KVModel
import KVTiering

/// The rate of one path and what waits for it.
struct LinkMeter {
    /// Bytes a second while the path is busy.
    private(set) var bandwidth: Double
    /// Bytes that transfers begun or waiting have still to move.
    private(set) var waitingBytes = 0
    private let latency: Duration
    // The stretch of time under measurement: the path was busy from its start on.
    private var stretchStart = Instant.zero
    private var stretchBytes = 0
    private var isBusy = false

    /// Stretches shorter than this say little; they grow until they are longer.
    private static let stretchMin = Duration(milliseconds: 1)
    /// How much of what was believed stays after a stretch.
    private static let memory = 0.8

    /// A path believed to be as given until bytes have moved.
    init(first: LinkState) {
        bandwidth = first.bandwidth
        latency = first.delay
    }

    /// A new transfer finds this.
    var state: LinkState {
        LinkState(bandwidth: bandwidth, delay: latency + Duration(seconds: Double(waitingBytes) / bandwidth))
    }

    mutating func added(_ bytes: Int, at now: Instant) {
        waitingBytes += bytes
        guard !isBusy else { return }
        isBusy = true
        stretchStart = now
        stretchBytes = 0
    }

    /// Bytes came through, or (`moved` false) will not come.
    mutating func removed(_ bytes: Int, moved: Bool, at now: Instant) {
        waitingBytes -= bytes
        if moved { stretchBytes += bytes }
        let length = now - stretchStart
        if length >= Self.stretchMin || (waitingBytes == 0 && length > .zero) {
            if stretchBytes > 0 {
                let seen = Double(stretchBytes) / length.seconds
                let share = length >= Self.stretchMin ? 1 - Self.memory : (1 - Self.memory) / 4
                bandwidth = max(1e6, bandwidth + share * (seen - bandwidth))
            }
            stretchStart = now
            stretchBytes = 0
        }
        if waitingBytes == 0 { isBusy = false }
    }
}
