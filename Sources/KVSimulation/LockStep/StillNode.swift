// A modelled node in lock step: the agent's decisions over a world in which no time passes while anything moves. All
// transfers succeed, in the order in which they were started.

import KVModel
import KVReport
import KVTiering

/// A store that several still nodes share.
final class StillStore {
    var manager: StoreManager

    init(_ manager: consuming StoreManager) { self.manager = manager }
}

/// A world that stands still while it is drained.
final class StillWorld: World {
    var now = Instant.zero
    private let store: StillStore?
    private var due: [Due] = []
    private var head = 0
    private(set) var answer: Answer?
    private(set) var plan: LoadPlan?
    private(set) var ready: Ready?
    private(set) var reserved: [SlotIndex] = []

    private enum Due {
        case event(Event)
        case transfer(TransferOrder, lost: [LostMove])
    }

    init(store: StillStore?) { self.store = store }

    /// Whether nothing is in flight.
    var isQuiet: Bool { head == due.count }

    func forgetAnswers() {
        answer = nil
        plan = nil
        ready = nil
    }

    func next(until deadline: Instant) -> Event {
        guard head < due.count else {
            now = max(now, deadline)
            return .deadline
        }
        let first = due[head]
        head += 1
        if head == due.count {
            due.removeAll(keepingCapacity: true)
            head = 0
        }
        switch first {
        case .event(let event): return event
        case .transfer(let order, let lost):
            if order.from == .flash { store?.manager.endRead(order.moves, lost: lost) }
            if order.to == .flash { store?.manager.endWrite(order.moves) }
            return .transferEnded(TransferEnd(transfer: order.transfer, outcome: .done, lost: lost))
        }
    }

    func perform(_ command: Command) -> Submission {
        switch command {
        case .answer(let answer): self.answer = answer
        case .loading(let plan): self.plan = plan
        case .ready(let ready): self.ready = ready
        case .reserved(let answer): reserved = answer.slots
        case .pinned, .cancel: break
        case .transfer(let order):
            let lost = order.from == .flash ? store?.manager.beginRead(order.moves, at: now) ?? [] : []
            due.append(.transfer(order, lost: lost))
        case .askStore(let question):
            let present = store?.manager.present(question.keys, at: now) ?? []
            due.append(.event(.storeAnswered(StoreAnswer(question: question.question, present: present))))
        case .offer(let offer):
            guard let want = store?.manager.offer(offer, at: now) else { break }
            due.append(.event(.storeWants(want)))
        case .withdraw(let keys): store?.manager.withdraw(keys)
        }
        return .accepted
    }
}

/// A modelled node.
final class StillNode: LockStepNode {
    private var manager: TieringManager
    private var world: StillWorld
    private let links: LinkView
    private let blockTokens: Int32
    private let ownsDevice: Bool
    /// Whether blocks of the request in hand were kept by a save of its own.
    private var wasSaved = false
    /// What was booked before the request in hand.
    private var booked = Ledger()

    init(_ configuration: TieringConfiguration, store: StillStore?, links: LinkView) {
        manager = TieringManager(configuration)
        world = StillWorld(store: store)
        self.links = links
        blockTokens = Int32(configuration.blockTokens)
        ownsDevice = configuration.hbmBytes > 0
    }

    func lookUp(_ request: LockStepRequest) -> Int32 {
        advance(to: request.time)
        world.forgetAnswers()
        arrive(0, request, promptTokens: request.promptTokens, engineBlocks: request.engineBlocks)
        return world.answer?.hitBlocks ?? request.engineBlocks
    }

    func load(_ request: LockStepRequest, upTo end: Int32) -> LockStepLoad {
        var load = LoadRequest(request: 0, engineBlocks: request.engineBlocks, endMax: end, links: links)
        load.isLease = ownsDevice
        tell(.load(load))
        let expected = world.plan.map(\.expected.seconds) ?? 0
        return LockStepLoad(end: world.ready?.end ?? request.engineBlocks, seconds: expected)
    }

    /// The very events that an agent makes of an engine's save: the prompt is booked before its own blocks are there, and
    /// the save brings a piece of its turn.
    func save(_ request: LockStepRequest) {
        if ownsDevice { return commit(request) }
        let count = Int32(request.path.count)
        tell(.computed(Computed(request: 0, parts: .booked)))
        arrive(1, request, promptTokens: count * blockTokens, engineBlocks: count, pieceOf: 0)
        tell(.computed(Computed(request: 1, parts: .kept, firstHeld: 0)))
        tell(.ended(request: 1, reason: .unknown))
    }

    /// The same of an engine that writes its new blocks into slots of the device.
    private func commit(_ request: LockStepRequest) {
        let left = Int32(request.path.count) - request.loadedBlocks
        wasSaved = false
        guard left > 0 else { return }
        tell(.reserve(ReserveRequest(reservation: 0, count: left)))
        let slots = world.reserved
        guard !slots.isEmpty else { return tell(.unreserve(reservation: 0)) }
        wasSaved = true
        var saved = request
        saved.path = request.path.prefix(Int(request.loadedBlocks) + slots.count)
        let count = Int32(saved.path.count)
        var computed = Computed(request: 1, parts: .kept, firstHeld: request.loadedBlocks)
        computed.adopted = Adoption(reservation: 0, slots: slots)
        computed.adopted?.holder = 0
        tell([
            .computed(Computed(request: 0, parts: .booked)),
            arrival(1, saved, promptTokens: count * blockTokens, engineBlocks: count, pieceOf: 0),
            .computed(computed),
            .ended(request: 1, reason: .unknown),
        ])
    }

    func finish(_ request: LockStepRequest) -> Ledger {
        let count = Int32(request.path.count)
        let keeps = ownsDevice ? !wasSaved : request.path.isEmpty
        let parts: Computed.Parts = keeps ? [.booked, .kept] : .booked
        let events: [Event] = [
            .computed(Computed(request: 0, parts: parts, firstHeld: count)),
            .ended(request: 0, reason: request.reason),
        ]
        // An agent hears both before anything that they start has ended. On a device that shows: what its request holds no more
        // is idle at once, what is still being copied is idle behind it.
        if ownsDevice { tell(events) } else { for event in events { tell(event) } }
        if ownsDevice, wasSaved { tell(.unreserve(reservation: 0)) }
        let before = booked
        booked = Ledger(manager.ledger)
        return booked - before
    }

    private func arrive(
        _ number: RequestNumber, _ request: LockStepRequest, promptTokens: Int32, engineBlocks: Int32,
        pieceOf turn: RequestNumber = noRequest
    ) {
        tell(arrival(number, request, promptTokens: promptTokens, engineBlocks: engineBlocks, pieceOf: turn))
    }

    private func arrival(
        _ number: RequestNumber, _ request: LockStepRequest, promptTokens: Int32, engineBlocks: Int32,
        pieceOf turn: RequestNumber = noRequest
    ) -> Event {
        let chain = request.path.map { BlockKey(traceBlock: UInt64($0)) }
        return .arrived(
            Arrival(
                request: number, engine: Int32(request.engine), chain: chain[...], promptTokens: promptTokens,
                engineBlocks: engineBlocks, session: request.session, turn: request.turn, pieceOf: turn))
    }

    /// Meets what is due before a time, each at its own moment.
    private func advance(to time: Instant) {
        while manager.nextDeadline <= time, manager.nextDeadline < .distantFuture {
            world.now = max(world.now, manager.nextDeadline)
            tell(.deadline)
        }
        world.now = max(world.now, time)
    }

    /// One word, and everything that comes of it.
    private func tell(_ event: Event) { tell([event]) }

    /// A few words that are heard before anything ends.
    private func tell(_ events: [Event]) {
        for event in events { manager.handle(event, in: &world) }
        while !world.isQuiet { manager.handle(world.next(until: world.now), in: &world) }
    }
}

extension Ledger {
    /// A record's ledger from the decisions' own.
    public init(_ books: PromptLedger) {
        self.init()
        for tokenClass in TokenClass.allCases { add(books[tokenClass], to: tokenClass) }
    }
}
