// Transfers: begun piece by piece as far as their path has room, ended when the last piece that began has ended. A slot
// or an engine's place is never spoken of as free while somebody may still write it.

import KVFlash
import KVModel
import KVSystem
import KVTiering
import KVTransport

extension LiveWorld {
    mutating func start(_ order: TransferOrder) -> Submission {
        let path = Path(from: order.from, to: order.to)
        switch path {
        case .storeGet, .storePut: guard storeIsUsable else { return .full }
        case .flashRead: guard drive != nil else { return .full }
        case .flashWrite: guard drive != nil, !flashIsReadOnly else { return .full }
        case .outOfEngine, .intoEngine: break
        }
        if order.request != noRequest, order.kind == .load || order.kind == .save, desk.isCut(order.request) {
            desk.flightBegan(order.request, touches: touchesEngine(order))
            end(order, .cancelled, [])
            return .accepted
        }
        let index = Int(order.transfer)
        while flights.count <= index { flights.append(Flight(order: order, path: path, serial: 0)) }
        precondition(!flights[index].isOpen, "two transfers of one number")
        let serial = flights[index].serial &+ 1
        flights[index] = Flight(order: order, path: path, serial: serial, isOpen: true)
        openFlights += 1
        desk.flightBegan(order.request, touches: touchesEngine(order))
        meters[path.rawValue].added(order.bytes, at: now)
        queues[path.rawValue].add(
            FlightName(transfer: order.transfer, serial: serial), order.kind, engine: order.engine)
        return .accepted
    }

    /// Begins what the path has room for.
    mutating func advance(_ path: Path) {
        while underWay[path.rawValue] < room(path), let name = queues[path.rawValue].first {
            let index = Int(name.transfer)
            guard flights[index].isOpen, flights[index].serial == name.serial, !flights[index].isCancelled else {
                queues[path.rawValue].passTurn(isSpent: true)
                continue
            }
            let began: Bool
            switch path {
            case .outOfEngine, .intoEngine: began = beginCopy(index)
            case .flashRead: began = beginRead(index)
            case .flashWrite: began = beginWrite(index)
            case .storeGet: began = beginGet(index)
            case .storePut: began = beginPut(index)
            }
            // No room after all: something of this path is under way, and its end brings us back.
            guard began else { return }
            let isSpent = flights[index].next == flights[index].order.moves.count
            queues[path.rawValue].passTurn(isSpent: isSpent)
            endIfDone(index)
        }
    }

    private func room(_ path: Path) -> Int {
        let limits = settings.limits
        return switch path {
        case .outOfEngine, .intoEngine: max(1, limits.copyWorkers * limits.copyDepth / 2)
        case .flashRead: limits.flashReadsMax
        case .flashWrite: limits.flashWritesMax
        case .storeGet: limits.getsMax
        case .storePut: limits.putsMax
        }
    }

    /// Nobody waits for a transfer any more: what has not begun does not begin. What has begun to come up goes on: it is paid
    /// for, and who asks next finds it here; a path that is a little too slow would otherwise never bring anything.
    mutating func cancel(_ index: Int) {
        guard !flights[index].isCancelled else { return }
        flights[index].isCancelled = true
        if flights[index].path == .storePut {
            for move in 0..<flights[index].next { client?.cancel(tag: tag(index, move)) }
        }
        endIfDone(index)
    }

    /// A piece has ended.
    ///
    /// - Parameters:
    ///   - cause: Why it did not come through; nil when it did.
    ///   - copied: Whether its bytes moved.
    mutating func moveEnded(_ index: Int, _ move: Int, _ cause: LostMove.Cause?, copied: Bool = true) {
        precondition(flights[index].isOpen && flights[index].outstanding > 0, "a move ends that is not under way")
        let path = flights[index].path.rawValue
        flights[index].outstanding -= 1
        let bytes = settings.blockBytes
        meters[path].removed(bytes, moved: cause == nil && copied, at: now)
        if let cause {
            flights[index].lost.append(LostMove(move: Int32(truncatingIfNeeded: move), cause: cause))
            switch cause {
            case .corrupt: counters.corrupt[path] += 1
            case .failed: counters.failed[path] += 1
            case .absent: counters.absent[path] += 1
            case .refused, .overQuota: counters.refused[path] += 1
            }
        } else if copied {
            counters.blocks[path] += 1
            counters.bytes[path] += bytes
        }
        endIfDone(index)
    }

    private mutating func endIfDone(_ index: Int) {
        guard flights[index].isOpen, flights[index].outstanding == 0 else { return }
        let count = flights[index].order.moves.count
        let left = count - flights[index].next
        guard left == 0 || flights[index].isCancelled else { return }
        flights[index].isOpen = false
        openFlights -= 1
        let path = flights[index].path.rawValue
        if left > 0 { meters[path].removed(left * settings.blockBytes, moved: false, at: now) }
        let order = flights[index].order
        // A transfer whose every move ended before its cancellation was heard is as good as any; one that comes up counts
        // as far as it came.
        let outcome: TransferEnd.Outcome = left == 0 || order.to == .dram && order.from != .hbm ? .done : .cancelled
        if outcome == .done {
            for move in flights[index].next..<count {
                flights[index].lost.append(LostMove(move: Int32(truncatingIfNeeded: move), cause: .failed))
            }
        }
        let lost = flights[index].lost.sorted { $0.move < $1.move }
        flights[index].order.moves = []
        flights[index].lost = []
        end(order, outcome, outcome == .done ? lost : [])
    }

    private mutating func end(_ order: TransferOrder, _ outcome: TransferEnd.Outcome, _ lost: [LostMove]) {
        ordinary.append(
            DueEvent(
                event: .transferEnded(TransferEnd(transfer: order.transfer, outcome: outcome, lost: lost)),
                request: order.request, touchesEngine: touchesEngine(order)))
    }

    /// Names a move towards the drive and the store. The serial tells a late word from a present one.
    func tag(_ index: Int, _ move: Int) -> UInt64 {
        UInt64(flights[index].serial & 0xFF_FFFF) << 38 | UInt64(index) << 16 | UInt64(move)
    }

    /// The move that a tag names, if it is still under way.
    func move(of tag: UInt64) -> (index: Int, move: Int)? {
        let index = Int(tag >> 16 & 0x3F_FFFF)
        guard flights.indices.contains(index), flights[index].isOpen, self.tag(index, Int(tag & 0xFFFF)) == tag else {
            return nil
        }
        return (index, Int(tag & 0xFFFF))
    }

    // MARK: Between engines and node memory

    /// Hands the next few blocks to a worker.
    private mutating func beginCopy(_ index: Int) -> Bool {
        if let device { return beginDeviceCopy(index, device) }
        let flight = flights[index]
        if let hand = desk.handOver(of: flight.order.request) { return beginHandOver(index, hand) }
        let moves = flight.order.moves
        guard let place = desk.place(of: flight.order.request) else {
            // Its engine has no place for it: nothing of it can move.
            return lose(index, through: moves.count)
        }
        let perPiece = max(1, min(16, settings.limits.copyBytesMax / place.blockBytes))
        let end = min(moves.count, flight.next + perPiece)
        var blocks: [CopyBlock] = []
        blocks.reserveCapacity(end - flight.next)
        for move in moves[flight.next..<end] {
            let position = Int(move.position) - place.first
            guard position >= 0, position < place.places.blockCount else { break }
            let firstSlice = position * place.places.segmentsPerBlock
            if flight.path == .outOfEngine {
                let name = place.names[Int(move.position)]
                blocks.append(
                    CopyBlock(
                        name: name, slot: slots.slice(move.destination, place.blockBytes), firstSlice: firstSlice,
                        checksum: 0))
            } else {
                let content = slots[move.source]
                // Another layout under the same key would be another block.
                guard content.name.blockKey == move.key, Int(content.payloadBytes) == place.blockBytes else { break }
                blocks.append(
                    CopyBlock(
                        name: content.name, slot: slots.slice(move.source, place.blockBytes), firstSlice: firstSlice,
                        checksum: content.checksum))
            }
        }
        guard !blocks.isEmpty else { return lose(index, through: flight.next + 1) }
        let order = CopyOrder(
            work: flight.path == .outOfEngine ? .outOfEngine : .intoEngine, transfer: flight.order.transfer,
            firstMove: Int32(truncatingIfNeeded: flight.next), blocks: blocks, places: place.places,
            regions: place.regions)
        guard workers.post(order) == .accepted else { return false }
        flights[index].next += order.blocks.count
        flights[index].outstanding += order.blocks.count
        underWay[flight.path.rawValue] += 1
        return true
    }

    /// Moves that cannot even begin.
    mutating func lose(_ index: Int, through end: Int) -> Bool {
        let path = flights[index].path.rawValue
        for move in flights[index].next..<end {
            flights[index].lost.append(LostMove(move: Int32(truncatingIfNeeded: move), cause: .failed))
            counters.failed[path] += 1
            meters[path].removed(settings.blockBytes, moved: false, at: now)
        }
        flights[index].next = end
        return true
    }

    mutating func copied(_ order: CopyOrder) {
        let index = Int(order.transfer)
        switch order.work {
        case .check: return checked(order)
        case .verify, .adopt: return handedOver(order)
        case .outOfEngine, .intoEngine: break
        }
        underWay[flights[index].path.rawValue] -= 1
        for (offset, block) in order.blocks.enumerated() {
            let number = Int(order.firstMove) + offset
            let move = flights[index].order.moves[number]
            guard block.isWhole else {
                moveEnded(index, number, order.work == .intoEngine ? .corrupt : .failed)
                continue
            }
            if order.work == .outOfEngine {
                noteComing(block.name, into: move.destination)
                slots[move.destination] = SlotContent(
                    name: block.name, metadata: desk.metadata(of: flights[index].order.request, at: move.position),
                    payloadBytes: Int32(truncatingIfNeeded: block.slot.count), checksum: block.checksum)
            }
            moveEnded(index, number, nil)
        }
    }

    // MARK: Local flash

    private mutating func beginRead(_ index: Int) -> Bool {
        let move = flights[index].order.moves[flights[index].next]
        guard let drive, let flash = flashSlots, flash[move.source].name.blockKey == move.key else {
            return lose(index, through: flights[index].next + 1)
        }
        let bytes = Int(flash[move.source].payloadBytes)
        let command = FlashCommand.read(
            tag: tag(index, flights[index].next), flash.extents(of: move.source, payloadBytes: bytes),
            into: slots.slice(move.destination, bytes))
        return beginDrive(index, drive, command)
    }

    private mutating func beginWrite(_ index: Int) -> Bool {
        let move = flights[index].order.moves[flights[index].next]
        let content = slots[move.source]
        guard let drive, let flash = flashSlots, content.name.blockKey == move.key else {
            return lose(index, through: flights[index].next + 1)
        }
        let bytes = Int(content.payloadBytes)
        generation += 1
        let object = FlashObject(
            name: content.name, metadata: content.metadata, namespace: 0, payloadBytes: bytes,
            checksum: content.checksum, generation: generation,
            extents: flash.extents(of: move.destination, payloadBytes: bytes))
        let command = FlashCommand.write(
            tag: tag(index, flights[index].next), object, from: slots.slice(move.source, bytes), isVolatile: true)
        return beginDrive(index, drive, command)
    }

    private mutating func beginDrive(_ index: Int, _ drive: any Drive, _ command: FlashCommand) -> Bool {
        let path = flights[index].path.rawValue
        // Counted first: a drive may answer before `post` returns.
        flights[index].next += 1
        flights[index].outstanding += 1
        underWay[path] += 1
        guard drive.post(command) == .full else { return true }
        flights[index].outstanding -= 1
        underWay[path] -= 1
        flights[index].next -= 1
        if underWay[path] > 0 { return false }
        return lose(index, through: flights[index].next + 1)
    }

    mutating func take(_ event: FlashEvent) {
        switch event {
        case .read(let tag, let outcome): driveEnded(tag, outcome, isRead: true)
        case .written(let tag, let outcome): driveEnded(tag, outcome, isRead: false)
        case .released(let tag):
            guard let cause = returning.removeValue(forKey: tag), let (index, move) = move(of: tag) else { return }
            underWay[flights[index].path.rawValue] -= 1
            moveEnded(index, move, cause)
        case .becameReadOnly: flashIsReadOnly = true
        case .erased: break
        }
    }

    private mutating func driveEnded(_ tag: UInt64, _ outcome: FlashOutcome, isRead: Bool) {
        guard let (index, number) = move(of: tag) else { preconditionFailure("a drive answers what was not asked") }
        let move = flights[index].order.moves[number]
        switch outcome {
        case .overdue:
            // The device may still touch slot and extents: the move ends when it has let go.
            returning[tag] = .failed
            counters.quarantined += 1
        case .failed, .readOnly:
            underWay[flights[index].path.rawValue] -= 1
            moveEnded(index, number, .failed)
        case .done where isRead:
            guard let content = flashSlots?[move.source] else { preconditionFailure("a read of no drive") }
            let block = CopyBlock(
                name: content.name, slot: slots.slice(move.destination, Int(content.payloadBytes)), firstSlice: 0,
                checksum: content.checksum)
            let order = CopyOrder(
                work: .check, transfer: flights[index].order.transfer, firstMove: Int32(truncatingIfNeeded: number),
                blocks: [block], places: nil, regions: nil)
            // There is room: the workers' mailboxes hold all that drives and copies can have under way.
            precondition(workers.post(order) == .accepted, "more checks than reads")
        case .done:
            underWay[flights[index].path.rawValue] -= 1
            flashSlots?[move.destination] = slots[move.source]
            moveEnded(index, number, nil)
        }
    }

    /// What came from local flash was compared with its checksum.
    private mutating func checked(_ order: CopyOrder) {
        let index = Int(order.transfer)
        let number = Int(order.firstMove)
        let move = flights[index].order.moves[number]
        underWay[Path.flashRead.rawValue] -= 1
        guard order.blocks[0].isWhole, let content = flashSlots?[move.source] else {
            return moveEnded(index, number, .corrupt)
        }
        noteLeaving(move.destination, for: content.name)
        slots[move.destination] = content
        moveEnded(index, number, nil)
    }
}

extension TransferOrder {
    /// Whether it goes out of or into an engine's memory.
    package var touchesEngine: Bool { from == .hbm || to == .hbm }
}

extension EngineDesk {
    /// Where the blocks of a request's job lie in its engine.
    struct Place {
        var places: EnginePlaces
        var first: Int
        var names: [ObjectName]
        var regions: EngineRegions
        var blockBytes: Int
    }

    func place(of request: RequestNumber) -> Place? {
        guard request != noRequest, let job = records[Int(request)].job,
            let engine = engines[records[Int(request)].engine], let hello = engine.hello
        else { return nil }
        return Place(
            places: job.places, first: Int(job.first), names: records[Int(request)].names, regions: engine.regions,
            blockBytes: hello.blockBytes)
    }

    /// Whether a request's job gets no more blocks.
    func isCut(_ request: RequestNumber) -> Bool { records[Int(request)].job?.isCancelled ?? false }

    /// What is kept beside a block of a request.
    func metadata(of request: RequestNumber, at position: Int32) -> ObjectMetadata {
        guard request != noRequest else { return ObjectMetadata() }
        let record = records[Int(request)]
        let parent = position > 0 && Int(position) <= record.names.count ? record.names[Int(position) - 1].key : .none
        return ObjectMetadata(
            parent: parent, indexInChain: UInt32(max(0, position)), evictionClass: record.evictionClass,
            session: record.session)
    }
}
