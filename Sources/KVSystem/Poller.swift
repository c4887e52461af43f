// Where a thread sleeps until one of many descriptors has something for it: the kernel's epoll with its flags as words.

import CKernel
import KVModel

/// What a thread waits for on a descriptor, and what it is told of it.
public struct PollEvents: OptionSet, Sendable {
    /// The bits as `CKernel` has them.
    public let rawValue: UInt32

    /// Events of their bits.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Bytes or a connection came, or nothing will come any more.
    public static let readable = PollEvents(rawValue: HF_READABLE)
    /// The kernel takes bytes.
    public static let writable = PollEvents(rawValue: HF_WRITABLE)
    /// Asked for only: each event is told once, when it happens, and not as long as it holds.
    public static let edgeTriggered = PollEvents(rawValue: HF_EDGE_TRIGGERED)
    /// Told only, and always: the connection is gone.
    public static let hungUp = PollEvents(rawValue: HF_HUNG_UP)
    /// Told only, to who waits for input: the peer sends no more.
    public static let peerEnded = PollEvents(rawValue: HF_PEER_ENDED)

    /// Whether a read will say something new: bytes, an end, or an error.
    public var mayRead: Bool { !isDisjoint(with: [.readable, .hungUp]) }
    /// Whether a write will: that bytes go, or an error.
    public var mayWrite: Bool { !isDisjoint(with: [.writable, .hungUp]) }
    /// Whether no more may come than what is there.
    public var mayEnd: Bool { !isDisjoint(with: [.hungUp, .peerEnded]) }
}

/// A set of descriptors that one thread waits for. Any thread may change the set; it ends with its last owner.
public final class Poller: Sendable {
    private let descriptor: Int32

    /// A poller that waits for nothing.
    public init() throws(SystemError) { descriptor = try checked(hf_poller_create(), "create a poller") }

    deinit { hf_close(descriptor) }

    /// Waits for a descriptor from now on, and calls it by a tag. False: the kernel has no room for it.
    @discardableResult
    public func add(_ other: Int32, for events: PollEvents, tag: UInt64) -> Bool {
        hf_poller_set(descriptor, other, events.rawValue, tag, 0) == 0
    }

    /// Waits for something else on a descriptor that is there.
    public func change(_ other: Int32, to events: PollEvents, tag: UInt64) {
        hf_poller_set(descriptor, other, events.rawValue, tag, 1)
    }

    /// Waits for a descriptor no more.
    public func remove(_ other: Int32) { hf_poller_set(descriptor, other, 0, 0, 0) }

    /// Sleeps until something happens or the deadline is over (`distantFuture`: for ever), and says what happened.
    ///
    /// - Parameters:
    ///   - now: The time; a deadline that is not after it only looks.
    ///   - batch: Takes what happened, in place of what it held.
    public func wait(until deadline: Instant, from now: Instant, into batch: inout PollBatch) {
        let limit = deadline == .distantFuture ? -1 : max(0, deadline.nanoseconds - now.nanoseconds)
        batch.fill(from: descriptor, waitingAtMost: limit)
    }
}

/// What one wait of a poller brought. Kept from wait to wait, so that none allocates.
public struct PollBatch {
    /// As many as the kernel is asked for at once.
    static let countMax = 64

    private var tags = [UInt64](repeating: 0, count: countMax)
    private var events = [UInt32](repeating: 0, count: countMax)
    /// How many descriptors have something.
    public private(set) var count = 0

    /// Holds nothing yet.
    public init() {}

    /// One of them: the tag it was added with, and what happened there.
    public subscript(index: Int) -> (tag: UInt64, events: PollEvents) {
        precondition(index < count, "beyond what the poller told")
        return (tags[index], PollEvents(rawValue: events[index]))
    }

    /// Whether something happened on a descriptor with this tag.
    public func contains(tag: UInt64) -> Bool { tags[..<count].contains(tag) }

    fileprivate mutating func fill(from poller: Int32, waitingAtMost nanoseconds: Int64) {
        let found = unsafe hf_poller_wait(poller, &tags, &events, Int32(Self.countMax), nanoseconds)
        // After an error the loop looks at its own affairs, as after a sleep that brought nothing.
        count = max(0, Int(found))
    }
}
