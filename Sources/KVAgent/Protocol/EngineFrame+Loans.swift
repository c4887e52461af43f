// The frames of host-owned engines: the arena, leases, reservations. Read and written beside each other, since each is short.

import KVModel
import KVSystem
import KVTransport

extension WireReader {
    mutating func access() throws(FrameError) -> Bool {
        let access = try integer(UInt8.self, "access")
        guard access < 2 else { throw error(.value("access", UInt64(access))) }
        try zeros(7)
        return access == 1
    }

    mutating func loan() throws(FrameError) -> EngineLoan {
        let number: UInt32 = try self.number("loan")
        try zeros(4)
        return EngineLoan(number: number, generation: try self.number("generation"))
    }

    mutating func take(_ job: EngineTicket, _ now: Instant) throws(FrameError) -> EngineTake {
        let request = try integer(UInt64.self, "request")
        let first = try count("first")
        let blocks = try count("blocks")
        guard (1...Int32(EngineProtocol.keyCountMax)).contains(blocks) else {
            throw error(.value("blocks", UInt64(blocks)))
        }
        let flags = try integer(UInt8.self, "flags")
        guard flags < 2 else { throw error(.reserved("flags")) }
        try zeros(1)
        let asker = try integer(UInt16.self, "asker")
        try zeros(4)
        let computeWait = try duration("compute wait")
        let deadline = try duration("deadline")
        let lifetime = try duration("lifetime")
        let names = try chain(countMin: request == 0 ? 1 : 0)
        guard names.isEmpty || Int(first) < names.count else { throw error(.value("first", UInt64(first))) }
        guard Int(first) + Int(blocks) <= Int(Int32.max) else { throw error(.value("first", UInt64(first))) }
        return EngineTake(
            job: job, request: request, asker: asker, names: names, first: first, count: blocks,
            isVerified: flags == 1, computeWait: computeWait,
            deadline: deadline == .zero ? .distantFuture : now + deadline, lifetime: lifetime)
    }

    mutating func taken() throws(FrameError) -> EngineTaken {
        let first = try count("first")
        let blocks = try slotCount("blocks", bytesEach: 16)
        let loan = try loan()
        let time = try duration("time")
        var taken = EngineTaken(first: first, loan: loan, time: time)
        taken.blocks.reserveCapacity(blocks)
        for _ in 0..<blocks {
            let slot: UInt32 = try number("slot")
            let lacksChecksum = try integer(UInt32.self, "flags")
            guard lacksChecksum < 2 else { throw error(.reserved("flags")) }
            taken.blocks.append(
                LeasedBlock(slot: slot, checksum: try number("checksum"), hasChecksum: lacksChecksum == 0))
        }
        guard Int(first) + blocks <= Int(Int32.max) else { throw error(.value("first", UInt64(first))) }
        return taken
    }

    mutating func reserve(_ job: EngineTicket) throws(FrameError) -> EngineReserve {
        let slots = try count("slots")
        guard (1...Int32(EngineProtocol.keyCountMax)).contains(slots) else {
            throw error(.value("slots", UInt64(slots)))
        }
        try zeros(4)
        return EngineReserve(job: job, count: slots, lifetime: try duration("lifetime"))
    }

    mutating func reserved() throws(FrameError) -> EngineReserved {
        let count = try slotCount("slots", bytesEach: 0)
        try zeros(4)
        let loan = try loan()
        let time = try duration("time")
        return EngineReserved(loan: loan, time: time, slots: try slots(count))
    }

    mutating func commit(_ job: EngineTicket) throws(FrameError) -> EngineCommit {
        let request = try integer(UInt64.self, "request")
        let first = try count("first")
        let evictionClass = try integer(UInt8.self, "eviction class")
        try zeros(1)
        let asker = try integer(UInt16.self, "asker")
        let loan = try loan()
        let names = try chain(countMin: 1)
        guard Int(first) < names.count else { throw error(.value("first", UInt64(first))) }
        return EngineCommit(
            job: job, request: request, asker: asker, names: names, first: first, evictionClass: evictionClass,
            loan: loan, slots: try slots(names.count - Int(first)))
    }

    mutating func arenaShape() throws(FrameError) -> EngineArenaShape {
        let slotBytes = try size("slot bytes")
        let byteCount = try size("length")
        let slotCount: UInt32 = try number("slots")
        let loanCount: UInt32 = try number("loans")
        let lifetimeMax = try duration("longest loan")
        let access = try integer(UInt8.self, "access")
        guard access < 2 else { throw error(.value("access", UInt64(access))) }
        let kind = try integer(UInt8.self, "memory")
        guard let memory = EngineArenaMemory(rawValue: kind) else { throw error(.value("memory", UInt64(kind))) }
        try zeros(6)
        let (needed, overflows) = slotBytes.multipliedReportingOverflow(by: Int(slotCount))
        guard !overflows, needed <= byteCount else { throw error(.value("slots", UInt64(slotCount))) }
        return EngineArenaShape(
            slotBytes: slotBytes, slotCount: Int(slotCount), byteCount: byteCount, loanCount: Int(loanCount),
            lifetimeMax: lifetimeMax, isWritable: access == 1, memory: memory)
    }

    private mutating func size(_ field: String) throws(FrameError) -> Int {
        let word = try integer(UInt64.self, field)
        guard word > 0, word < 1 << 56 else { throw error(.value(field, word)) }
        return Int(word)
    }

    private mutating func slotCount(_ field: String, bytesEach: Int) throws(FrameError) -> Int {
        let count = Int(try integer(UInt32.self, field))
        guard count <= EngineProtocol.keyCountMax else { throw error(.tooLong(field, UInt64(count))) }
        guard count * bytesEach <= remainingBytes else { throw error(.truncated(field)) }
        return count
    }

    private mutating func slots(_ count: Int) throws(FrameError) -> [UInt32] {
        guard count * 4 <= remainingBytes else { throw error(.truncated("slots")) }
        var slots: [UInt32] = []
        slots.reserveCapacity(count)
        for _ in 0..<count { slots.append(try number("slot")) }
        return slots
    }
}

extension FrameWriter {
    fileprivate mutating func access(_ isWritable: Bool) { integer(UInt64(isWritable ? 1 : 0)) }

    fileprivate mutating func loan(_ loan: EngineLoan) {
        integer(loan.number)
        integer(UInt32(0))
        integer(loan.generation)
    }
}

extension EngineFrame {
    func writeLoan(to writer: inout FrameWriter, _ now: Instant) {
        switch self {
        case .openArena(let isWritable): writer.access(isWritable)
        case .take(let take):
            writer.integer(take.request)
            writer.integer(UInt32(take.first))
            writer.integer(UInt32(take.count))
            writer.integer(UInt16(take.isVerified ? 1 : 0))
            writer.integer(take.asker)
            writer.integer(UInt32(0))
            writer.duration(take.computeWait)
            let wait = take.deadline == .distantFuture ? 0 : max(1, (take.deadline - now).nanoseconds)
            writer.integer(UInt64(wait))
            writer.duration(take.lifetime)
            writer.chain(take.names)
        case .reserve(let reserve):
            writer.integer(UInt32(reserve.count))
            writer.integer(UInt32(0))
            writer.duration(reserve.lifetime)
        case .commit(let commit):
            precondition(Int(commit.first) + commit.slots.count == commit.names.count, "a slot for each block")
            writer.integer(commit.request)
            writer.integer(UInt32(commit.first))
            writer.integer(UInt16(commit.evictionClass))
            writer.integer(commit.asker)
            writer.loan(commit.loan)
            writer.chain(commit.names)
            for slot in commit.slots { writer.integer(slot) }
        case .release(_, let loan): writer.loan(loan)
        default: break
        }
    }

    func writeLoanReply(to writer: inout FrameWriter) {
        switch self {
        case .arenaOpened(let shape):
            writer.integer(UInt64(shape.slotBytes))
            writer.integer(UInt64(shape.byteCount))
            writer.integer(UInt32(shape.slotCount))
            writer.integer(UInt32(shape.loanCount))
            writer.duration(shape.lifetimeMax)
            writer.integer(UInt64(shape.isWritable ? 1 : 0) | UInt64(shape.memory.rawValue) << 8)
        case .taken(_, let taken):
            writer.integer(UInt32(taken.first))
            writer.integer(UInt32(taken.blocks.count))
            writer.loan(taken.loan)
            writer.duration(taken.time)
            for block in taken.blocks {
                writer.integer(block.slot)
                writer.integer(UInt32(block.hasChecksum ? 0 : 1))
                writer.integer(block.checksum)
            }
        case .reserved(_, let reserved):
            writer.integer(UInt32(reserved.slots.count))
            writer.integer(UInt32(0))
            writer.loan(reserved.loan)
            writer.duration(reserved.time)
            for slot in reserved.slots { writer.integer(slot) }
        case .released(_, let wasInForce): writer.integer(UInt64(wasInForce ? 0 : 1))
        default: break
        }
    }
}
