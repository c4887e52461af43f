// The agent's arena as a host-owned engine sees it: blocks that it reads where they lie, and slots that it writes into.

import CKernel
import KVModel
import KVSystem
import KVTiering

/// The arena, mapped into an engine's process. Lives as long as somebody holds it, a lease or a reservation of it included.
@safe
public final class EngineArena: @unchecked Sendable {
    /// How it looks.
    public let shape: EngineArenaShape
    /// A GPU's memory, to be imported by whoever has a context there; nil where the slots are mapped.
    public let deviceDescriptor: Int32?
    private let bytes: UnsafeMutableRawBufferPointer
    private let words: UnsafeMutableRawPointer

    init(_ shape: EngineArenaShape, descriptor: Int32, words file: Int32) throws(SystemError) {
        self.shape = shape
        var address: UnsafeMutableRawPointer?
        var imported: Int32?
        if shape.memory == .cudaDevice {
            imported = try checked(hf_duplicate(descriptor), "keep the device's descriptor")
        } else {
            _ = try checked(
                unsafe hf_map_shared(descriptor, shape.byteCount, shape.isWritable ? 1 : 0, &address), "map the arena")
        }
        deviceDescriptor = imported
        unsafe bytes = UnsafeMutableRawBufferPointer(start: address, count: address == nil ? 0 : shape.byteCount)
        var words: UnsafeMutableRawPointer?
        do throws(SystemError) {
            _ = try checked(unsafe hf_map_shared(file, shape.loanCount * 8, 0, &words), "map the loan words")
        } catch {
            if let imported { hf_close(imported) }
            if unsafe !bytes.isEmpty { _ = unsafe hf_unmap(bytes.baseAddress!, bytes.count) }
            throw error
        }
        unsafe self.words = words!
    }

    deinit {
        if let deviceDescriptor { hf_close(deviceDescriptor) }
        if unsafe !bytes.isEmpty { _ = unsafe hf_unmap(bytes.baseAddress!, bytes.count) }
        _ = unsafe hf_unmap(words, shape.loanCount * 8)
    }

    /// Whether a loan is in force, and what was read before this question was the loan's.
    func isInForce(_ loan: EngineLoan) -> Bool {
        guard loan.generation != 0, loan.number < shape.loanCount else { return false }
        return unsafe hf_load_word(words, Int(loan.number)) == loan.generation
    }

    func bytes(of slot: UInt32, _ count: Int) -> UnsafeMutableRawBufferPointer? {
        guard slot < shape.slotCount, count <= shape.slotBytes, unsafe !bytes.isEmpty else { return nil }
        let start = Int(slot) * shape.slotBytes
        return unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[start..<start + count])
    }
}

/// Blocks that an engine may read where they lie, until it gives them back, their time is over, or their request ends.
public final class EngineLease: Sendable {
    /// What the agent said: position of the first block, and each block's slot and checksum.
    public let taken: EngineTaken
    private let arena: EngineArena
    private let client: EngineClient

    init(_ client: EngineClient, _ arena: EngineArena, _ taken: EngineTaken) {
        self.client = client
        self.arena = arena
        self.taken = taken
    }

    /// Whether everything that was read so far was still lent while it was read. Ask after reading and before anything of it
    /// is used; `false` means that the slots may have held other bytes.
    public var isInForce: Bool { arena.isInForce(taken.loan) }

    /// Reads a block in place. Nil: there is no such block, or the lease ended before all of it was read.
    public func read<Result>(_ index: Int, _ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result? {
        guard taken.blocks.indices.contains(index), isInForce,
            let bytes = unsafe arena.bytes(of: taken.blocks[index].slot, client.configuration.hello.blockBytes)
        else { return nil }
        let result = unsafe try body(UnsafeRawBufferPointer(bytes))
        return isInForce ? result : nil
    }

    /// Copies a block out and compares it with its checksum on the way, if anybody has taken it. `false`: what is in `target` is
    /// not the block.
    public func copy(_ index: Int, named name: ObjectName, to target: UnsafeMutableRawBufferPointer) -> Bool {
        let expected = taken.blocks.indices.contains(index) ? taken.blocks[index] : LeasedBlock(slot: 0, checksum: 0)
        return unsafe read(index) { bytes in
            guard bytes.count == target.count else { return false }
            var checksum = BlockChecksum.begin(name, payloadBytes: bytes.count)
            unsafe checksum.copy(bytes, to: target)
            return checksum.value == expected.checksum || !expected.hasChecksum
        } ?? false
    }

    /// Reads all blocks in place, layer by layer: who computes a model so can begin before its last layer is there. Only of a
    /// lease whose blocks the agent compared with their checksums (`isVerified`): no part of a block has one of its own.
    ///
    /// - Parameters:
    ///   - layers: For each layer, in the order of reading, where its bytes lie in a block, from the block's first byte.
    ///   - read: Gets one such part: the layer, the block's index, and its bytes. Nothing may be computed with them yet.
    ///   - isRead: Called when all of a layer was read while it was lent: now it may be computed with.
    /// - Returns: For how many leading layers that was so; fewer than all when the lease ended meanwhile.
    public func readLayers(
        _ layers: [[Range<Int>]], read: (_ layer: Int, _ block: Int, UnsafeRawBufferPointer) throws -> Void,
        isRead: (_ layer: Int) throws -> Void
    ) rethrows -> Int {
        for (number, parts) in layers.enumerated() {
            for index in taken.blocks.indices {
                let wasLent: Void? = unsafe try self.read(index) { block in
                    for part in parts {
                        precondition(part.lowerBound >= 0 && part.upperBound <= block.count, "a layer out of its block")
                        unsafe try read(number, index, UnsafeRawBufferPointer(rebasing: block[part]))
                    }
                }
                guard wasLent != nil else { return number }
            }
            guard isInForce else { return number }
            try isRead(number)
        }
        return layers.count
    }

    /// Gives it back. `done` hears whether it was in force until then; nil without an agent.
    public func release(done: @escaping @Sendable (Bool?) -> Void = { _ in }) { client.release(taken.loan, done: done) }
}

/// Slots that an engine may write into, until it gives them back or their time is over.
public final class EngineReservation: Sendable {
    /// What the agent said: the slots.
    public let reserved: EngineReserved
    private let arena: EngineArena
    private let client: EngineClient

    init(_ client: EngineClient, _ arena: EngineArena, _ reserved: EngineReserved) {
        self.client = client
        self.arena = arena
        self.reserved = reserved
    }

    /// Whether the slots are still this engine's to write.
    public var isInForce: Bool { arena.isInForce(reserved.loan) }

    /// Fills the slot of an index. `false`: it is not this engine's any more.
    public func fill(_ index: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> Void) rethrows -> Bool {
        guard reserved.slots.indices.contains(index), isInForce,
            let bytes = unsafe arena.bytes(of: reserved.slots[index], client.configuration.hello.blockBytes)
        else { return false }
        unsafe try body(bytes)
        return isInForce
    }

    /// Makes slots blocks: the slots of `indices` become the last blocks of a chain, in that order. They are not written into
    /// any more, whatever comes of it.
    public func commit(
        _ indices: Range<Int>, as names: [ObjectName], request: EngineTicket = 0, asker: UInt16 = 0,
        evictionClass: UInt8 = 0, limit: Duration? = nil, done: @escaping EngineClient.SavedBlocks
    ) {
        client.commit(
            reserved.loan, slots: Array(reserved.slots[indices]), names, request: request, asker: asker,
            evictionClass: evictionClass, limit: limit, done: done)
    }

    /// Gives back what was not committed. `done` hears whether it was in force until then; nil without an agent.
    public func release(done: @escaping @Sendable (Bool?) -> Void = { _ in }) {
        client.release(reserved.loan, done: done)
    }
}

extension EngineClient {
    /// How a take ends: a lease, or nil when nothing could be had.
    public typealias LentBlocks = @Sendable (EngineLease?) -> Void
    /// How a reservation ends: slots, or nil when there are none.
    public typealias ReservedSlots = @Sendable (EngineReservation?) -> Void

    /// The arena, once the agent has handed it over.
    public var arena: EngineArena? { state.withLock { $0.arena } }

    /// Borrows the leading run of `count` blocks from `first` on, to read where they lie. Empty `names`: the chain of the
    /// request's look-up; then the lease ends with the request.
    ///
    /// - Parameter isVerified: Whether the agent compares checksums first. Without, `EngineLease.copy` does it.
    public func take(
        _ names: [ObjectName] = [], first: Int32, count: Int, request: EngineTicket = 0, asker: UInt16 = 0,
        isVerified: Bool = true, computeWait: Duration = .zero, lifetime: Duration = .zero, limit: Duration? = nil,
        done: @escaping LentBlocks
    ) {
        let deadline = MonotonicClock.now + (limit ?? configuration.jobLimit)
        let isSent = state.withLock { state -> Bool in
            let known = known(state, request, asker)
            guard !names.isEmpty || known != 0, state.arena != nil, hasRoomForJob(state) else { return false }
            state.tickets += 1
            let take = EngineTake(
                job: state.tickets, request: known, asker: asker, names: names, first: first, count: Int32(count),
                isVerified: isVerified, computeWait: computeWait, deadline: deadline, lifetime: lifetime)
            guard put(&state, .take(take)) else { return false }
            state.jobs[take.job] = Job(done: .take(done), deadline: deadline)
            state.briefly = .take
            watch(&state, deadline)
            return true
        }
        if !isSent { done(nil) }
    }

    /// Asks for empty slots, as many as `count`; fewer come when the arena is full.
    public func reserve(
        _ count: Int, lifetime: Duration = .zero, limit: Duration? = nil, done: @escaping ReservedSlots
    ) {
        let deadline = MonotonicClock.now + (limit ?? configuration.jobLimit)
        let isSent = state.withLock { state -> Bool in
            guard state.arena?.shape.isWritable == true, hasRoomForJob(state) else { return false }
            state.tickets += 1
            let reserve = EngineReserve(job: state.tickets, count: Int32(count), lifetime: lifetime)
            guard put(&state, .reserve(reserve)) else { return false }
            state.jobs[reserve.job] = Job(done: .reserve(done), deadline: deadline)
            state.briefly = .reserve
            watch(&state, deadline)
            return true
        }
        if !isSent { done(nil) }
    }

    /// See `EngineReservation.commit`; the loan and the slots may be anything.
    package func commit(
        _ loan: EngineLoan, slots: [UInt32], _ names: [ObjectName], request: EngineTicket = 0, asker: UInt16 = 0,
        evictionClass: UInt8 = 0, limit: Duration? = nil, done: @escaping SavedBlocks
    ) {
        let deadline = MonotonicClock.now + (limit ?? configuration.jobLimit)
        let isSent = state.withLock { state -> Bool in
            guard hasRoomForJob(state), !slots.isEmpty, slots.count <= names.count else { return false }
            state.tickets += 1
            let commit = EngineCommit(
                job: state.tickets, request: known(state, request, asker), asker: asker, names: names,
                first: Int32(names.count - slots.count), evictionClass: evictionClass, loan: loan, slots: slots)
            guard put(&state, .commit(commit)) else { return false }
            state.jobs[commit.job] = Job(done: .save(count: slots.count, done), deadline: deadline)
            watch(&state, deadline)
            return true
        }
        if !isSent { done(EngineSaved(count: slots.count, bytes: 0, time: .zero, kept: [])) }
    }

    func release(_ loan: EngineLoan, done: @escaping @Sendable (Bool?) -> Void) {
        ask({ .release($0, loan) }) { answer in
            guard case .released(_, let wasInForce) = answer else { return done(nil) }
            done(wasInForce)
        }
    }
}
