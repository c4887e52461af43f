// The last hop of a block that is handed over where it lies: nothing moves. What an engine wrote gets its checksum here, and is a
// block from then on; what an engine is to read is compared with its checksum first, if the engine asks for that.

import KVModel
import KVSystem
import KVTiering

extension LiveWorld {
    /// Ends or begins the next few blocks of a transfer that moves nothing.
    mutating func beginHandOver(_ index: Int, _ hand: EngineDesk.HandOver) -> Bool {
        let flight = flights[index]
        let moves = flight.order.moves
        let isAdoption = flight.path == .outOfEngine
        guard isAdoption == hand.isAdoption else { return lose(index, through: moves.count) }
        let perPiece = max(1, min(16, settings.limits.copyBytesMax / hand.blockBytes))
        let end = hand.isVerified ? min(moves.count, flight.next + perPiece) : moves.count
        var blocks: [CopyBlock] = []
        blocks.reserveCapacity(end - flight.next)
        for move in moves[flight.next..<end] {
            guard hand.positions.contains(move.position) else { break }
            let slot = isAdoption ? move.destination : move.source
            let content = slots[slot]
            // Another layout under the same key would be another block.
            guard isAdoption || (content.name.blockKey == move.key && Int(content.payloadBytes) == hand.blockBytes)
            else { break }
            blocks.append(
                CopyBlock(
                    name: isAdoption ? hand.names[Int(move.position)] : content.name,
                    slot: slots.slice(slot, hand.blockBytes), firstSlice: 0, checksum: content.checksum))
        }
        guard !blocks.isEmpty else { return lose(index, through: flight.next + 1) }
        var order = CopyOrder(
            work: isAdoption ? .adopt : .verify, transfer: flight.order.transfer,
            firstMove: Int32(truncatingIfNeeded: flight.next), blocks: blocks, places: nil, regions: nil)
        // Node memory keeps nobody waiting, and a worker takes longer to wake than a small block to be looked at.
        let isHere = !hand.isVerified || (blocks.count * hand.blockBytes <= Self.verifiedHereMax && !isBusy)
        if !isHere, workers.post(order) == .full { return false }
        flights[index].next += blocks.count
        flights[index].outstanding += blocks.count
        underWay[flight.path.rawValue] += 1
        guard isHere else { return true }
        if hand.isVerified { workers.perform(&order) }
        handedOver(order)
        return true
    }

    /// Bytes of which this thread takes the checksum itself when nothing else waits.
    private static let verifiedHereMax = 64 << 10

    /// Blocks have their checksums, or were compared with them, or nobody asked.
    mutating func handedOver(_ order: CopyOrder) {
        let index = Int(order.transfer)
        let request = flights[index].order.request
        underWay[flights[index].path.rawValue] -= 1
        for (offset, block) in order.blocks.enumerated() {
            let number = Int(order.firstMove) + offset
            let move = flights[index].order.moves[number]
            if order.work == .adopt {
                noteComing(block.name, into: move.destination)
                slots[move.destination] = SlotContent(
                    name: block.name, metadata: desk.metadata(of: request, at: move.position),
                    payloadBytes: Int32(truncatingIfNeeded: block.slot.count), checksum: block.checksum)
                desk.handOver.blocksAdopted += 1
                desk.handOver.bytesAdopted += block.slot.count
            } else if block.isWhole {
                desk.lend(request, at: move.position, LeasedBlock(slot: move.source, checksum: block.checksum))
                if block.wasCompared { desk.handOver.blocksVerified += 1 }
            } else {
                desk.handOver.blocksDamaged += 1
            }
            moveEnded(index, number, block.isWhole ? nil : .corrupt, copied: false)
        }
    }

    /// An engine writes into these slots from now on: what lay there is gone.
    mutating func giveAway(_ given: [SlotIndex]) {
        for slot in given {
            noteLeaving(slot, for: .none)
            slots[slot] = SlotContent()
        }
    }
}

extension EngineDesk {
    /// A job whose bytes stay where they are.
    struct HandOver {
        var isAdoption: Bool
        /// Whether every byte is looked at: always when blocks come, and when they go if the engine asked for it.
        var isVerified: Bool
        var positions: Range<Int32>
        var names: [ObjectName]
        var blockBytes: Int
    }

    /// The hand-over of a request's job; nil: its blocks are copied.
    func handOver(of request: RequestNumber) -> HandOver? {
        guard request != noRequest, let job = records[Int(request)].job, job.kind == .take || job.isAdoption,
            let hello = engines[records[Int(request)].engine]?.hello
        else { return nil }
        return HandOver(
            isAdoption: job.isAdoption, isVerified: job.isAdoption || job.isVerified,
            positions: job.first..<job.first + Int32(truncatingIfNeeded: job.blockCount),
            names: records[Int(request)].names, blockBytes: hello.blockBytes)
    }
}
