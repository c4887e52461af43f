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

/// Where the agent is and who asks.
public struct EngineClientConfiguration: Sendable {
    /// The agent's socket.
    public var path: String
    /// Who the engine is; its process is the kernel's to say.
    public var hello: EngineHello
    /// Its name and version, for the agent's logs.
    public var client = "holdfast"
    /// Whether it wants to hear of blocks that come and go.
    public var isSubscriber = false
    /// How it maps the agent's arena; needs a hello of a host-owned engine.
    public var arena = EngineArenaAccess.none
    /// How long a look-up may take; then it is a miss.
    public var lookUpLimit = Duration(milliseconds: 50)
    /// How long who waits for the answer to a look-up, or for a lease, stays awake (`answer`), where that pays; zero: not at all.
    public var watch = Duration(nanoseconds: 100_000)
    /// How long a load or save may take unless its caller says otherwise; then it is cancelled.
    public var jobLimit = Duration(seconds: 5)
    /// From hello to welcome.
    public var helloLimit = Duration(seconds: 10)
    /// Before the first try to connect again; doubles up to `backoffMax`.
    public var backoff = Duration(milliseconds: 100)
    /// The longest pause between tries.
    public var backoffMax = Duration(seconds: 10)
    /// Bytes of frames that may wait for the agent to read them; beyond it everything is a miss.
    public var queueBytesMax = 8 << 20

    /// A client of an agent, with the defaults.
    public init(path: String, hello: EngineHello) {
        self.path = path
        self.hello = hello
    }
}

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
        let poller: Int32
        var reader = Reader.clientThread
        /// What the poller is to tell of.
        var watched: UInt32 = 0
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
            let client = self
            let started = try EngineThread("kv-client") { EngineClientLoop(client).run() }
            thread.withLock { $0 = started }
        } catch { throw OperatorError(error.description, at: configuration.path) }
    }

    // MARK: state

    /// Whether the agent is there and has taken this engine on.
    public var isOpen: Bool { state.withLock { $0.isOpen } }
    /// What the agent said at the last welcome.
    public var welcome: EngineWelcome? { state.withLock { $0.welcome } }
    /// Why the agent refused this engine, the last time it did.
    public var refusal: EngineRefusal? { state.withLock { $0.refusal } }
    /// Jobs whose places are not the caller's yet.
    public var openJobs: Int { state.withLock { $0.jobs.count + $0.orphans.count } }

    // MARK: memory

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

    // MARK: requests and jobs

    /// Looks a prompt's chain up. The ticket names the request until `finished`. Late or without an agent: nothing found.
    @discardableResult
    public func lookUp(
        _ names: [ObjectName], promptTokens: Int32, engineBlocks: Int32 = 0, session: UInt64 = 0, turn: Int32 = -1,
        done: @escaping FoundBlocks
    ) -> EngineTicket {
        let now = MonotonicClock.now
        let (ticket, isSent) = state.withLock { state in
            state.tickets += 1
            let ticket = state.tickets
            let lookUp = EngineLookUp(
                ticket: ticket, names: names, promptTokens: promptTokens, engineBlocks: engineBlocks, session: session,
                turn: turn)
            let room = state.lookUps.count < Int(state.welcome?.requestsMax ?? 0)
            guard !state.isStalled, room, put(&state, .lookUp(lookUp)) else { return (ticket, false) }
            state.lookUps[ticket] = LookUp(done: done, deadline: now + configuration.lookUpLimit)
            state.briefly = .lookUp
            watch(&state, now + configuration.lookUpLimit)
            return (ticket, true)
        }
        if !isSent { done(EngineFound()) }
        return ticket
    }

    /// Brings blocks from `first` on to their places. Empty `names`: the chain of the request's look-up.
    public func load(
        _ names: [ObjectName] = [], first: Int32, places: EnginePlaces, request: EngineTicket = 0,
        computeWait: Duration = .zero, limit: Duration? = nil, done: @escaping LoadedBlocks
    ) {
        let deadline = MonotonicClock.now + (limit ?? configuration.jobLimit)
        let isSent = state.withLock { state -> Bool in
            let known = isKnown(state, request) ? request : 0
            guard !names.isEmpty || known != 0, hasRoomForJob(state) else { return false }
            state.tickets += 1
            let load = EngineLoad(
                job: state.tickets, request: known, names: names, first: first, places: places,
                computeWait: computeWait, deadline: deadline)
            guard put(&state, .load(load)) else { return false }
            state.jobs[load.job] = Job(done: .load(first: first, done), deadline: deadline)
            watch(&state, deadline)
            return true
        }
        if !isSent { done(EngineLoaded(first: first, end: first, bytes: 0, time: .zero)) }
    }

    /// Offers new blocks; `names` ends with the last of them. Their bytes stay unchanged until `done` is called.
    public func save(
        _ names: [ObjectName], first: Int32, places: EnginePlaces, request: EngineTicket = 0, evictionClass: UInt8 = 0,
        limit: Duration? = nil, done: @escaping SavedBlocks
    ) {
        let deadline = MonotonicClock.now + (limit ?? configuration.jobLimit)
        let isSent = state.withLock { state -> Bool in
            guard hasRoomForJob(state) else { return false }
            state.tickets += 1
            let save = EngineSave(
                job: state.tickets, request: isKnown(state, request) ? request : 0, names: names, first: first,
                places: places, evictionClass: evictionClass)
            guard put(&state, .save(save)) else { return false }
            state.jobs[save.job] = Job(done: .save(count: places.blockCount, done), deadline: deadline)
            watch(&state, deadline)
            return true
        }
        if !isSent { done(EngineSaved(count: places.blockCount, bytes: 0, time: .zero, kept: [])) }
    }

    /// A request's end.
    public func finished(_ end: EngineRequestEnd) {
        let waiting = state.withLock { state -> FoundBlocks? in
            guard let lookUp = state.lookUps.removeValue(forKey: end.ticket), !lookUp.isDead else { return nil }
            put(&state, .finished(end), must: true)
            return lookUp.done
        }
        waiting?(EngineFound())
    }

    /// Gives a request up, its jobs included; `done` is called when nothing touches their places.
    public func cancel(_ request: EngineTicket, done: @escaping @Sendable () -> Void) {
        let isSent = state.withLock { state -> Bool in
            guard isKnown(state, request), put(&state, .cancel(request), must: true) else { return false }
            state.lookUps[request]?.isDead = true
            state.cancelling[request] = done
            return true
        }
        if !isSent { done() }
    }

    // MARK: hints, pins, questions

    /// A hint: these blocks will be asked for.
    public func prefetch(_ names: [ObjectName]) { _ = state.withLock { put(&$0, .prefetch(names)) } }
    /// A hint: these blocks were used without a request.
    public func touch(_ names: [ObjectName]) { _ = state.withLock { put(&$0, .touch(names)) } }

    /// Keeps what is on this node of a chain. `done` hears nil without an agent.
    @discardableResult
    public func pin(
        _ names: [ObjectName], lifetime: Duration,
        done: @escaping @Sendable ((outcome: PinAnswer.Outcome, blocks: Int)?) -> Void
    ) -> EngineTicket {
        ask({ .pin($0, names, lifetime: lifetime) }) { answer in
            guard case .pinned(_, let outcome, let blocks) = answer else { return done(nil) }
            done((outcome, Int(blocks)))
        }
    }

    /// Takes a pin back.
    public func unpin(_ pin: EngineTicket) { _ = state.withLock { put(&$0, .unpin(pin)) } }

    /// The agent's numbers; none without an agent.
    public func statistics(done: @escaping @Sendable ([EngineStatistic]) -> Void) {
        ask({ .askStatistics($0) }) { answer in
            guard case .statistics(_, let numbers) = answer else { return done([]) }
            done(numbers)
        }
    }

    @discardableResult
    func ask(
        _ frame: (EngineTicket) -> EngineFrame, done: @escaping @Sendable (EngineFrame?) -> Void
    ) -> EngineTicket {
        let (ticket, isSent) = state.withLock { state in
            state.tickets += 1
            guard put(&state, frame(state.tickets)) else { return (state.tickets, false) }
            state.asked[state.tickets] = done
            return (state.tickets, true)
        }
        if !isSent { done(nil) }
        return ticket
    }

    // MARK: end

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

    // MARK: under the lock

    func isKnown(_ state: borrowing State, _ request: EngineTicket) -> Bool {
        if let lookUp = state.lookUps[request] { !lookUp.isDead } else { false }
    }

    func hasRoomForJob(_ state: borrowing State) -> Bool {
        state.jobs.count < Int(state.welcome?.jobsMax ?? 0)
    }
}
