// The reference client of the engine's protocol, for replays and engines in Swift. It never blocks its caller, never fails it,
// and never gives a place back too early: without an agent a look-up finds nothing, a load loads nothing, a save keeps
// nothing. Python's `holdfast_kv.client` follows the same rules. Callers write to the socket themselves, and who waits for an
// answer reads it: between an engine's thread and the agent's there is no other.

import CKernel
import Glibc
import KVIdentity
import KVModel
import KVSystem
import KVTiering
import Synchronization

/// A connection to the agent that comes back by itself. All functions may be called from any thread and return at once;
/// what they are given to call is called exactly once, on the client's thread or that of a caller who waits (`answer`).
public final class EngineClient: Sendable {
    /// How a look-up ends.
    public typealias FoundBlocks = @Sendable (EngineFound) -> Void
    /// How a load ends: its places are the caller's again.
    public typealias LoadedBlocks = @Sendable (EngineLoaded) -> Void
    /// How a save ends: its places are the caller's again.
    public typealias SavedBlocks = @Sendable (EngineSaved) -> Void

    struct LookUp {
        var done: FoundBlocks?
        var deadline: Instant
        /// The answer came too late for anybody to wait for it, or nobody wants it any more.
        var isDead = false
    }

    struct Job {
        var done: JobEnd
        var deadline: Instant
        var isCancelled = false
    }

    enum JobEnd {
        case load(first: Int32, LoadedBlocks)
        case save(count: Int, SavedBlocks)
        case take(LentBlocks)
        case reserve(ReservedSlots)
        case other(@Sendable () -> Void)

        func nothing() {
            switch self {
            case .load(let first, let done): done(EngineLoaded(first: first, end: first, bytes: 0, time: .zero))
            case .save(let count, let done): done(EngineSaved(count: count, bytes: 0, time: .zero, kept: []))
            case .take(let done): done(nil)
            case .reserve(let done): done(nil)
            case .other(let done): done()
            }
        }
    }

    struct Region {
        var descriptor: Int32
        var byteCount: Int
        var dropped: (@Sendable () -> Void)?
    }

    /// Questions whose answers wait for no bytes.
    enum BriefQuestion: Int, CaseIterable { case lookUp, take, reserve }

    /// A connection, as the client's thread and callers share it under the lock.
    struct Link {
        /// Who may send has the lock; who may read is in `reader`.
        let stream: EngineStream
        /// Where the client's thread sleeps.
        let poller: Poller
        var reader = Reader.clientThread
        /// What the poller is to tell of.
        var watched: PollEvents = []
        /// Whether it cannot go on.
        var isBroken = false

        enum Reader { case nobody, clientThread, caller }
    }

    struct State {
        var tickets: EngineTicket = 0
        var lookUps: [EngineTicket: LookUp] = [:]
        var jobs: [EngineTicket: Job] = [:]
        var asked: [EngineTicket: @Sendable (EngineFrame?) -> Void] = [:]
        var cancelling: [EngineTicket: @Sendable () -> Void] = [:]
        var regions: [Int32: Region] = [:]
        /// Ends of a lost connection's jobs, called when nothing can touch their places.
        var orphans: [JobEnd] = []
        var link: Link?
        /// No look-up's or job's time is over before this.
        var earliestDeadline = Instant.distantFuture
        /// Until when the client's thread sleeps unless it is woken; zero while it is awake.
        var sleepsUntil = Instant.zero
        var welcome: EngineWelcome?
        var refusal: EngineRefusal?
        var arena: EngineArena?
        var isOpen = false
        /// What was asked last, if its answer waits for no bytes.
        var briefly: BriefQuestion?
        /// Whether who waits for such an answer stays awake, by question.
        var patience = [AnswerPatience](repeating: AnswerPatience(), count: BriefQuestion.allCases.count)
        /// A look-up was late: until the agent says something nobody waits for it.
        var isStalled = false
        var leaves = false
        var isClosing = false
        /// Whether it goes without a goodbye.
        var isAbandoned = false

        /// What somebody is to stay awake for.
        mutating func beginWatch() -> BriefQuestion? {
            guard let question = briefly, patience[question.rawValue].begin() else { return nil }
            return question
        }
    }

    let configuration: EngineClientConfiguration
    let digest: [UInt8]
    let state = Mutex(State())
    let signal: WakeSignal
    let changed: @Sendable (_ added: [ObjectName], _ removed: [ObjectName], _ hasGap: Bool) -> Void
    private let thread = Mutex<EngineThread?>(nil)

    /// A client, which begins to connect at once.
    ///
    /// - Parameter changed: Hears of blocks that come and go, if the configuration asks for it.
    public init(
        _ configuration: EngineClientConfiguration,
        changed: @escaping @Sendable (_ added: [ObjectName], _ removed: [ObjectName], _ hasGap: Bool) -> Void = {
            _, _, _ in
        }
    ) throws(OperatorError) {
        self.configuration = configuration
        self.changed = changed
        digest = try NamespaceIdentity(fields: configuration.hello.namespace).digest
        do throws(SystemError) {
            signal = try WakeSignal()
            let (client, poller) = (self, try Poller())
            let started = try EngineThread("kv-client") { EngineClientLoop(client, poller).run() }
            thread.withLock { $0 = started }
        } catch { throw OperatorError(error.description, at: configuration.path) }
    }

    // MARK: State

    /// Whether the agent is there and has taken this engine on.
    public var isOpen: Bool { state.withLock { $0.isOpen } }
    /// What the agent said at the last welcome.
    public var welcome: EngineWelcome? { state.withLock { $0.welcome } }
    /// Why the agent refused this engine, the last time it did.
    public var refusal: EngineRefusal? { state.withLock { $0.refusal } }
    /// Jobs whose places are not the caller's yet.
    public var openJobs: Int { state.withLock { $0.jobs.count + $0.orphans.count } }

    // MARK: Memory

    /// Shares the first bytes of a file; the number names it in places. Kept over reconnects; the caller may close its own
    /// descriptor. -1 when there are no descriptors left.
    public func addRegion(descriptor: Int32, byteCount: Int) -> Int32 {
        let copy = hf_duplicate(descriptor)
        guard copy >= 0 else { return -1 }
        return state.withLock { state in
            var number: Int32 = 0
            while state.regions[number] != nil { number += 1 }
            state.regions[number] = Region(descriptor: copy, byteCount: byteCount)
            if state.isOpen { put(&state, .addRegion(number, byteCount: byteCount), passing: copy, must: true) }
            return number
        }
    }

    /// Takes memory back; it is the caller's alone when `done` is called.
    public func dropRegion(_ number: Int32, done: @escaping @Sendable () -> Void) {
        let isFree = state.withLock { state -> Bool in
            guard var region = state.regions[number], region.dropped == nil else { return true }
            if !state.isOpen, state.jobs.isEmpty, state.orphans.isEmpty {
                state.regions[number] = nil
                hf_close(region.descriptor)
                return true
            }
            region.dropped = done
            state.regions[number] = region
            if state.isOpen { put(&state, .dropRegion(number), must: true) }
            return false
        }
        if isFree { done() }
    }

    // MARK: End

    /// Says goodbye, waits for open jobs, and joins the thread. False: some job did not end, and its places must not be used.
    @discardableResult
    public func close(within limit: Duration = Duration(seconds: 5)) -> Bool {
        let deadline = MonotonicClock.now + limit
        state.withLock { $0.leaves = true }
        signal.wake()
        while openJobs > 0, MonotonicClock.now < deadline { _ = poll(nil, 0, 1) }
        let isQuiet = openJobs == 0
        state.withLock { $0.isClosing = true }
        signal.wake()
        let running = thread.withLock { thread -> EngineThread? in
            defer { thread = nil }
            return thread
        }
        running?.join()
        return isQuiet
    }

    /// Ends the connection without a word and joins the thread, as if this engine's process had died: for replays and tests.
    /// What open jobs write into regions they write until the agent has forgotten this engine.
    public func abandon() {
        state.withLock { state in
            state.isAbandoned = true
            state.isClosing = true
        }
        signal.wake()
        thread.withLock { $0.take() }?.join()
    }

    /// Waits until the agent has taken this engine on; for starts and tests.
    public func waitUntilOpen(within limit: Duration) -> Bool {
        let deadline = MonotonicClock.now + limit
        while !isOpen {
            guard MonotonicClock.now < deadline else { return false }
            _ = poll(nil, 0, 1)
        }
        return true
    }
}
