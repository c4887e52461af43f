// The agent's door: a local socket through which engines speak to the decisions. One thread serves all engines and never waits
// for any of them: a thread of its own at first, that of the decisions once there are some.

import CKernel
import KVModel
import KVSystem
import Synchronization

/// Where the door is, and who may come in.
public struct EngineDoorConfiguration: Sendable {
    /// Path of the socket.
    public var path: String
    /// Users that may connect beside the agent's own.
    public var users: [UInt32] = []
    /// Engines at once.
    public var enginesMax = 64
    /// How much of everything an engine may have.
    public var limits = EngineLimits()
    /// The agent's program, for engines' logs.
    public var program = "holdfast"

    /// A door at a path, with the defaults.
    public init(path: String) { self.path = path }
}

/// The door.
///
/// What engines say goes to a sink, on the thread that attends to the door; the sink takes it or says that it has no room, and never waits. Without
/// room, look-ups, loads and saves are answered as if there were no cache, hints are dropped, and what must be heard is offered
/// again each millisecond while nothing more is read from its engine.
public final class EngineDoor: Sendable {
    /// Hears what engines say, on the thread that attends to the door.
    public typealias Sink = @Sendable (EngineMessage) -> Acceptance

    let configuration: EngineDoorConfiguration
    let sink: Sink
    let statistics: @Sendable () -> [EngineStatistic]
    let arena: @Sendable (_ isWritable: Bool) -> EngineArenaOffer?
    let socketChanged: @Sendable (_ trouble: String?) -> Void
    let signal: WakeSignal
    let replies: Mailbox<EngineReply>
    let published = Mutex(EngineDoorView())
    let isDraining = Mutex<String?>(nil)
    let isStopping = Atomic<Bool>(false)
    /// Whether the door's own thread is to leave the loop to another.
    let isWanted = Atomic<Bool>(false)
    let unmapper: RegionUnmapper
    /// Tells this process from others that had the same socket.
    let agent: UInt64
    private let thread = Mutex<EngineThread?>(nil)
    private let parked = Mutex<AttendedDoor?>(nil)
    private let isClosed = OneTimeFlag()

    /// Opens the door.
    ///
    /// - Parameters:
    ///   - statistics: Numbers of the agent for engines that ask; called on the thread that attends.
    ///   - arena: Memory for host-owned engines to map; called on the thread that attends.
    ///   - socketChanged: Hears why no engine can come any more (the socket's file is gone and cannot be made anew), and nil when
    ///     one can again; called on the thread that attends.
    ///   - sink: Hears what engines say, on the thread that attends.
    public init(
        _ configuration: EngineDoorConfiguration, statistics: @escaping @Sendable () -> [EngineStatistic] = { [] },
        arena: @escaping @Sendable (_ isWritable: Bool) -> EngineArenaOffer? = { _ in nil },
        socketChanged: @escaping @Sendable (_ trouble: String?) -> Void = { _ in }, sink: @escaping Sink
    ) throws(OperatorError) {
        self.configuration = configuration
        self.sink = sink
        self.statistics = statistics
        self.arena = arena
        self.socketChanged = socketChanged
        do throws(SystemError) {
            var number: UInt64 = 0
            _ = try checked(
                unsafe withUnsafeMutableBytes(of: &number) { unsafe hf_random($0.baseAddress, $0.count) },
                "draw a random number")
            agent = number
            signal = try WakeSignal()
            unmapper = try RegionUnmapper()
            // An end of a job must never be refused: there is room for all that can be open at once.
            let limits = configuration.limits
            replies = Mailbox(
                capacity: configuration.enginesMax * (2 * limits.jobsMax + 2 * limits.requestsMax + 256),
                waking: signal)
        } catch { throw OperatorError(error.description, at: "the engines' socket") }
        let listener = try EngineListener(path: configuration.path, isShared: !configuration.users.isEmpty)
        do throws(SystemError) {
            let poller = try Poller()
            let door = self
            let started = try EngineThread("kv-door") {
                let loop = EngineDoorLoop(door, poller: poller, listener: listener)
                if loop.run() { door.parked.withLock { $0 = AttendedDoor(loop: loop) } }
            }
            thread.withLock { $0 = started }
        } catch {
            listener.end()
            throw OperatorError(error.description, at: "the engines' socket")
        }
    }

    /// Tells an engine something. `.full` only for changes of blocks, which may be lost.
    @discardableResult
    public func post(_ reply: EngineReply) -> Acceptance { replies.post(reply) }

    /// What was counted, and who is there.
    public var view: EngineDoorView { published.withLock { $0 } }

    /// Tells engines that the agent stops: new work is answered with nothing, and each engine is let go when its jobs have
    /// ended. Returns at once.
    public func drain(reason: String) {
        isDraining.withLock { $0 = reason }
        signal.wake()
    }

    /// Takes the door from its own thread, which ends, for another to attend to. Nil: it is closed.
    package func takeFromItsThread() -> AttendedDoor? {
        isWanted.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        takeThread()?.join()
        isWanted.store(false, ordering: .sequentiallyConsistent)
        return parked.withLock { $0.take() }
    }

    /// Ends all connections, waits until the decisions have forgotten the engines (at most `limit`), and removes the socket. The
    /// decisions must still run.
    public func stop(within limit: Duration = Duration(seconds: 10)) {
        published.withLock { $0.stopLimit = limit }
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        takeThread()?.join()
        _ = isClosed.wait(within: limit + Duration(seconds: 5))
    }

    /// The loop has ended everything.
    func closed() { isClosed.set() }

    private func takeThread() -> EngineThread? {
        thread.withLock { $0.take() }
    }
}

/// A door on its way from one thread to another.
package struct AttendedDoor: @unchecked Sendable {
    let loop: EngineDoorLoop
}

/// What an engine is given to map.
public struct EngineArenaOffer: Sendable {
    /// How it looks.
    public var shape: EngineArenaShape
    /// The arena and the loan words; whoever gets them closes them.
    public var descriptors: [Int32]

    /// An offer of its parts.
    public init(shape: EngineArenaShape, descriptors: [Int32]) {
        self.shape = shape
        self.descriptors = descriptors
    }
}

/// The door as others see it, at most a tenth of a second old.
public struct EngineDoorView: Sendable {
    /// What was counted.
    public var counters = EngineDoorCounters()
    /// Who is there.
    public var engines: [EngineStatus] = []
    /// Engines that left and are not forgotten.
    public var leaving = 0
    var stopLimit = Duration(seconds: 10)
}
