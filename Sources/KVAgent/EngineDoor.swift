// The agent's door: a local socket through which engines speak to the decisions. One thread serves all engines; it never
// waits for any of them, nor for the decisions.

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
/// What engines say goes to a sink, on the door's thread; the sink takes it or says that it has no room, and never waits. Without
/// room, look-ups, loads and saves are answered as if there were no cache, hints are dropped, and what must be heard is offered
/// again each millisecond while nothing more is read from its engine.
public final class EngineDoor: Sendable {
    /// Hears what engines say, on the door's thread.
    public typealias Sink = @Sendable (EngineMessage) -> Acceptance

    let configuration: EngineDoorConfiguration
    let sink: Sink
    let statistics: @Sendable () -> [EngineStatistic]
    let arena: @Sendable (_ isWritable: Bool) -> EngineArenaOffer?
    let signal: WakeSignal
    let replies: Mailbox<EngineReply>
    let published = Mutex(EngineDoorView())
    let isDraining = Mutex<String?>(nil)
    let isStopping = Atomic<Bool>(false)
    /// Tells this process from others that had the same socket.
    let agent: UInt64
    private let thread = Mutex<EngineThread?>(nil)

    /// Opens the door.
    ///
    /// - Parameters:
    ///   - statistics: Numbers of the agent for engines that ask; called on the door's thread.
    ///   - arena: Memory for host-owned engines to map; called on the door's thread.
    ///   - sink: Hears what engines say, on the door's thread.
    public init(
        _ configuration: EngineDoorConfiguration, statistics: @escaping @Sendable () -> [EngineStatistic] = { [] },
        arena: @escaping @Sendable (_ isWritable: Bool) -> EngineArenaOffer? = { _ in nil },
        sink: @escaping Sink
    ) throws(OperatorError) {
        self.configuration = configuration
        self.sink = sink
        self.statistics = statistics
        self.arena = arena
        do throws(SystemError) {
            var number: UInt64 = 0
            _ = try checked(
                unsafe withUnsafeMutableBytes(of: &number) { unsafe hf_random($0.baseAddress, $0.count) },
                "draw a random number")
            agent = number
            signal = try WakeSignal()
            // An end of a job must never be refused: there is room for all that can be open at once.
            let limits = configuration.limits
            replies = Mailbox(
                capacity: configuration.enginesMax * (2 * limits.jobsMax + 2 * limits.requestsMax + 256),
                waking: signal)
        } catch { throw OperatorError(error.description, at: "the engines' socket") }
        let listener = try EngineListener(path: configuration.path, isShared: !configuration.users.isEmpty)
        do throws(SystemError) {
            let poller = try checked(hf_poller_create(), "create a poller")
            let door = self
            let started = try EngineThread("kv-door") {
                EngineDoorLoop(door, poller: poller, listener: listener).run()
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

    /// Ends all connections, waits until the decisions have forgotten the engines (at most `limit`), removes the socket, and
    /// joins the thread. The decisions must still run.
    public func stop(within limit: Duration = Duration(seconds: 10)) {
        published.withLock { $0.stopLimit = limit }
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        let running = thread.withLock { thread -> EngineThread? in
            defer { thread = nil }
            return thread
        }
        running?.join()
    }
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
