// Decisions for tests of the door: blocks in a dictionary, everything kept, the leading run loaded. What a test wants to go wrong is
// set from outside. It answers on the door's thread, or later when it holds jobs.

import KVAgent
import KVModel
import KVSystem
import KVTiering
import Synchronization

final class ScriptedCore: Sendable {
    struct State {
        var blocks: [ObjectName: [UInt8]] = [:]
        var hellos: [EngineNumber: EngineHello] = [:]
        var regions: [EngineNumber: [Int32: EngineRegion]] = [:]
        var chains: [EngineNumber: [EngineTicket: [ObjectName]]] = [:]
        var heard: [String] = []
        /// Jobs and look-ups are taken and not answered.
        var holds = false
        /// So are cancellations and ends of engines.
        var holdsEnds = false
        /// There is room for nothing.
        var isFull = false
        var refusal: String?
        var heldEnds: [EngineReply] = []
        var heldJobs: [EngineMessage] = []
        var ends: [EngineRequestEnd] = []
    }

    let state = Mutex(State())
    private let door = Mutex<EngineDoor?>(nil)

    /// Opens a door with these decisions behind it.
    func open(_ configuration: EngineDoorConfiguration) throws -> EngineDoor {
        let opened = try EngineDoor(configuration, statistics: { [EngineStatistic("blocks", 3)] }) { [weak self] in
            self?.take($0) ?? .full
        }
        door.withLock { $0 = opened }
        return opened
    }

    func change(_ change: @Sendable (inout State) -> Void) { state.withLock { change(&$0) } }
    func post(_ reply: EngineReply) { _ = door.withLock { $0 }?.post(reply) }
    var heard: [String] { state.withLock { $0.heard } }

    /// Answers what was held back.
    func release() {
        let (ends, jobs) = state.withLock { state in
            defer { (state.heldEnds, state.heldJobs) = ([], []) }
            (state.holds, state.holdsEnds) = (false, false)
            return (state.heldEnds, state.heldJobs)
        }
        for job in jobs { _ = take(job) }
        for end in ends { post(end) }
    }

    private func take(_ message: EngineMessage) -> Acceptance {
        let replies = state.withLock { state -> [EngineReply]? in
            guard !state.isFull else { return nil }
            return Self.answer(message, &state)
        }
        guard let replies else { return .full }
        for reply in replies { post(reply) }
        return .accepted
    }

    private static func answer(_ message: EngineMessage, _ state: inout State) -> [EngineReply] {
        switch message {
        case .attach(let engine, let hello):
            state.hellos[engine] = hello
            state.heard.append("attach")
            if let refusal = state.refusal { return [.refused(engine, reason: refusal)] }
            return [.attached(engine)]
        case .addRegion(let engine, let region):
            state.regions[engine, default: [:]][region.number] = region
            return [.regionAdded(engine, region: region.number)]
        case .dropRegion(let engine, let region):
            state.regions[engine]?[region] = nil
            return hold(.regionDropped(engine, region: region), &state)
        case .finished(_, let end):
            state.ends.append(end)
            state.heard.append("finished")
            return []
        case .cancel(let engine, let ticket):
            state.heard.append("cancel")
            if !state.holdsEnds { state.heldJobs.removeAll { isJob($0, ticket) } }
            return hold(.cancelled(engine, ticket), &state)
        case .gone(let engine):
            state.heard.append("gone")
            state.heldJobs.removeAll()
            if !state.holdsEnds { state.regions[engine] = nil }
            return hold(.forgotten(engine), &state)
        case .prefetch: state.heard.append("prefetch")
        case .touch: state.heard.append("touch")
        case .unpin: state.heard.append("unpin")
        case .subscribe: state.heard.append("subscribe")
        case .pin(let engine, let ticket, let names, _):
            let held = run(names[...], state)
            return [
                .pinned(
                    engine, ticket,
                    PinAnswer(pin: 0, outcome: held > 0 ? .granted : .nothingHere, blocks: Int32(held)))
            ]
        case .take(let engine, let take): return [.taken(engine, job: take.job, EngineTaken(first: take.first))]
        case .reserve(let engine, let reserve): return [.reserved(engine, job: reserve.job, EngineReserved())]
        case .commit(let engine, let commit): return [.saved(engine, job: commit.job, kept: [])]
        case .release(let engine, let ticket, _): return [.released(engine, ticket, wasInForce: false)]
        case .lookUp, .load, .save:
            guard !state.holds else {
                state.heldJobs.append(message)
                return []
            }
            return work(message, &state)
        }
        return []
    }

    private static func hold(_ reply: EngineReply, _ state: inout State) -> [EngineReply] {
        guard state.holdsEnds else { return [reply] }
        state.heldEnds.append(reply)
        return []
    }

    private static func isJob(_ message: EngineMessage, _ ticket: EngineTicket) -> Bool {
        switch message {
        case .lookUp(_, let lookUp): lookUp.ticket == ticket
        case .load(_, let load): load.job == ticket || load.request == ticket
        case .save(_, let save): save.job == ticket || save.request == ticket
        default: false
        }
    }

    private static func run(_ names: ArraySlice<ObjectName>, _ state: State) -> Int {
        names.firstIndex { state.blocks[$0] == nil }.map { $0 - names.startIndex } ?? names.count
    }

    private static func work(_ message: EngineMessage, _ state: inout State) -> [EngineReply] {
        switch message {
        case .lookUp(let engine, let lookUp):
            state.chains[engine, default: [:]][lookUp.ticket] = lookUp.names
            var answer = Answer(request: 0)
            answer.hitBlocks = Int32(run(lookUp.names[...], state))
            answer.dramBlocks = answer.hitBlocks
            return [.found(engine, lookUp.ticket, answer)]
        case .load(let engine, let load):
            let names = load.names.isEmpty ? state.chains[engine]?[load.request] ?? [] : load.names
            let first = Int(load.first)
            let count = run(names[first..<(first + load.places.blockCount)], state)
            for index in 0..<count {
                var block = (state.blocks[names[first + index]] ?? [])[...]
                for slice in slices(load.places, index) {
                    guard let region = state.regions[engine]?[slice.region] else { continue }
                    unsafe bytes(region, slice).copyBytes(from: block.prefix(slice.count))
                    block = block.dropFirst(slice.count)
                }
            }
            return [.loaded(engine, job: load.job, first: load.first, end: load.first + Int32(count))]
        case .save(let engine, let save):
            var kept = [UInt64](repeating: 0, count: (save.places.blockCount + 63) / 64)
            for index in 0..<save.places.blockCount {
                var block: [UInt8] = []
                var isIntact = true
                for slice in slices(save.places, index) {
                    guard let region = state.regions[engine]?[slice.region] else { continue }
                    unsafe block += Array(bytes(region, slice))
                    isIntact = isIntact && region.isIntact
                }
                guard isIntact else { continue }
                state.blocks[save.names[Int(save.first) + index]] = block
                kept[index / 64] |= 1 << UInt64(index % 64)
            }
            return [.saved(engine, job: save.job, kept: kept)]
        default: return []
        }
    }

    private static func slices(_ places: EnginePlaces, _ index: Int) -> ArraySlice<MemorySlice> {
        places.slices[(index * places.segmentsPerBlock)..<((index + 1) * places.segmentsPerBlock)]
    }

    private static func bytes(_ region: EngineRegion, _ slice: MemorySlice) -> UnsafeMutableRawBufferPointer {
        unsafe region.memory[MemorySlice(offset: slice.offset, count: slice.count)]
    }
}
