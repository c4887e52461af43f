// What a server transport takes on, and for how long: every queue has an end, every state a deadline.

import KVModel

/// The bounds of one server transport.
public struct ServerLimits: Sendable {
    /// The most sessions that the host opens at a time, for whose answers there is room; connections beyond these and the
    /// unknown ones are closed at once.
    public var sessionsMax: Int
    /// The most connections that have not proved who they are; the oldest of them makes room for a new one.
    public var unauthenticatedMax: Int
    /// Requests one session may have in flight, told in the welcome.
    public var credits: Int
    /// The longest payload, told in the welcome.
    public var payloadBytesMax: Int
    /// From the connection to the proof.
    public var helloLimit: Duration
    /// The longest time without a byte in the middle of a frame, a payload or an answer.
    public var stallLimit: Duration
    /// The longest time for one payload, however steadily it drips.
    public var transferLimit: Duration
    /// Queued answers of one session above which no more of its requests are read.
    public var outputBytesMax: Int
    /// How long a first wrong key waits for its refusal; each further one from the same address twice as long.
    public var failureDelay: Duration
    /// The longest such wait: shorter than a client waits for its welcome, or it would take a refusal for a store that is gone.
    public var failureDelayMax: Duration

    /// Bounds of their parts.
    public init(
        sessionsMax: Int, unauthenticatedMax: Int, credits: Int, payloadBytesMax: Int, helloLimit: Duration,
        stallLimit: Duration, transferLimit: Duration, outputBytesMax: Int, failureDelay: Duration,
        failureDelayMax: Duration
    ) {
        self.sessionsMax = sessionsMax
        self.unauthenticatedMax = unauthenticatedMax
        self.credits = credits
        self.payloadBytesMax = payloadBytesMax
        self.helloLimit = helloLimit
        self.stallLimit = stallLimit
        self.transferLimit = transferLimit
        self.outputBytesMax = outputBytesMax
        self.failureDelay = failureDelay
        self.failureDelayMax = failureDelayMax
    }

    /// For a store that serves a cluster.
    public static let standard = ServerLimits(
        sessionsMax: 512, unauthenticatedMax: 64, credits: 64, payloadBytesMax: 1 << 30,
        helloLimit: Duration(seconds: 5), stallLimit: Duration(seconds: 10), transferLimit: Duration(seconds: 120),
        outputBytesMax: 4 << 20, failureDelay: Duration(milliseconds: 250), failureDelayMax: Duration(seconds: 4))

    /// Commands about requests that may wait at once: per request a `receive` and an answer, per session an end.
    package var commandCountMax: Int { sessionsMax * (2 * (credits + 1) + 2) }
}

/// What a transport counted since its start.
public struct TransportCounters: Sendable, Equatable {
    /// Bytes that came, payloads included.
    public var bytesReceived: UInt64 = 0
    /// Bytes that went, payloads included.
    public var bytesSent: UInt64 = 0
    /// Frames that came.
    public var framesReceived: UInt64 = 0
    /// Frames that went.
    public var framesSent: UInt64 = 0
    /// Payloads that came whole and right.
    public var payloadsReceived: UInt64 = 0
    /// Payloads that went.
    public var payloadsSent: UInt64 = 0
    /// Payloads that came with a wrong checksum.
    public var payloadsCorrupt: UInt64 = 0
    /// Connections taken.
    public var connectionsAccepted: UInt64 = 0
    /// Connections closed at once, for want of room.
    public var connectionsRefused: UInt64 = 0
    /// Connections open now.
    public var connectionsOpen: UInt64 = 0
    /// Clients that proved who they are.
    public var sessionsOpened: UInt64 = 0
    /// Sessions whose end was told.
    public var sessionsClosed: UInt64 = 0
    /// Proofs that were wrong, unknown tenants included.
    public var authenticationFailures: UInt64 = 0
    /// Clients that speak no version spoken here.
    public var versionMismatches: UInt64 = 0
    /// Frames that are none of this protocol.
    public var framesMalformed: UInt64 = 0
    /// Sessions that had more requests in flight than granted.
    public var creditViolations: UInt64 = 0
    /// Connections closed because a state lasted too long.
    public var deadlinesPassed: UInt64 = 0
    /// Connections that ended in the middle of something, or by an error of the socket.
    public var connectionsBroken: UInt64 = 0
    /// Notifications dropped for slow subscribers, who were told so.
    public var notificationsDropped: UInt64 = 0

    /// Nothing counted yet.
    public init() {}

    /// Adds the counts of another lane.
    public static func += (sum: inout TransportCounters, other: TransportCounters) {
        for field in Self.fields { sum[keyPath: field.path] += other[keyPath: field.path] }
    }

    /// Every count with its name, for metrics: what only grows ends in `_total`.
    public static var fields: [(name: String, path: WritableKeyPath<TransportCounters, UInt64>)] {
        [
            ("bytes_received_total", \.bytesReceived), ("bytes_sent_total", \.bytesSent),
            ("frames_received_total", \.framesReceived), ("frames_sent_total", \.framesSent),
            ("payloads_received_total", \.payloadsReceived), ("payloads_sent_total", \.payloadsSent),
            ("payloads_corrupt_total", \.payloadsCorrupt), ("connections_accepted_total", \.connectionsAccepted),
            ("connections_refused_total", \.connectionsRefused), ("connections_open", \.connectionsOpen),
            ("sessions_opened_total", \.sessionsOpened), ("sessions_closed_total", \.sessionsClosed),
            ("authentication_failures_total", \.authenticationFailures),
            ("version_mismatches_total", \.versionMismatches), ("frames_malformed_total", \.framesMalformed),
            ("credit_violations_total", \.creditViolations), ("deadlines_passed_total", \.deadlinesPassed),
            ("connections_broken_total", \.connectionsBroken), ("notifications_dropped_total", \.notificationsDropped),
        ]
    }
}
