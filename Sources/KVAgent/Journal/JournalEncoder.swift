// Events and commands as bytes: little-endian words in the order of the declarations, counts before lists. For journals
// only: nothing but `holdfast journal` reads them outside the agent. `JournalDecoder` is the way back.

import KVModel
import KVSystem
import KVTiering

/// Turns events and commands into bytes.
struct JournalEncoder {
    var bytes: [UInt8] = []

    /// A command's fingerprint.
    static func digest(_ command: Command) -> UInt64 {
        var encoder = JournalEncoder()
        encoder.encode(command)
        var checksum = BlockChecksum()
        unsafe encoder.bytes.withUnsafeBytes { unsafe checksum.add($0) }
        return checksum.value
    }

    mutating func byte(_ value: UInt8) { bytes.append(value) }

    mutating func word(_ value: UInt64) {
        for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }

    private mutating func half(_ value: UInt32) {
        for shift in stride(from: UInt32(0), to: 32, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }

    private mutating func half(_ value: Int32) { half(UInt32(bitPattern: value)) }

    private mutating func key(_ key: BlockKey) {
        word(key.high)
        word(key.low)
    }

    private mutating func keys(_ keys: some Collection<BlockKey>) {
        half(UInt32(keys.count))
        for key in keys { self.key(key) }
    }

    private mutating func slots(_ slots: [SlotIndex]) {
        half(UInt32(slots.count))
        for slot in slots { half(slot) }
    }

    private mutating func link(_ link: LinkState) {
        word(link.bandwidth.bitPattern)
        word(UInt64(bitPattern: link.delay.nanoseconds))
        byte(link.isSteady ? 1 : 0)
    }

    mutating func encode(_ event: Event) {
        switch event {
        case .arrived(let arrival):
            byte(0)
            half(arrival.request)
            half(arrival.engine)
            keys(arrival.chain)
            half(arrival.promptTokens)
            half(arrival.engineBlocks)
            half(arrival.session)
            half(arrival.turn)
            half(arrival.pieceOf)
        case .load(let load):
            byte(1)
            half(load.request)
            half(load.engineBlocks)
            half(load.endMax)
            word(UInt64(bitPattern: load.computeWait.nanoseconds))
            link(load.links.dram)
            link(load.links.nvme)
            link(load.links.flash)
            byte(load.isLease ? 1 : 0)
        case .computed(let computed):
            byte(2)
            half(computed.request)
            half(computed.knownBlocks)
            byte(computed.parts.rawValue)
            half(computed.firstHeld)
            let said: UInt8 = computed.engineBlocks < 0 ? 0 : 4
            if let adopted = computed.adopted {
                byte(said | (adopted.holder == noRequest ? 1 : 2))
                half(adopted.reservation)
                slots(adopted.slots)
                if adopted.holder != noRequest { half(adopted.holder) }
            } else {
                byte(said)
            }
            if said > 0 { half(computed.engineBlocks) }
        case .ended(let request, let reason, let resumesAfter):
            byte(3)
            half(request)
            byte(reason.rawValue)
            word(UInt64(bitPattern: resumesAfter.nanoseconds))
        case .cancelled(let request):
            byte(4)
            half(request)
        case .transferEnded(let end):
            byte(5)
            half(end.transfer)
            byte(end.outcome.rawValue)
            half(UInt32(end.lost.count))
            for lost in end.lost {
                half(lost.move)
                byte(lost.cause.rawValue)
            }
        case .storeAnswered(let answer):
            byte(6)
            half(answer.question)
            byte(answer.isSilent ? 1 : 0)
            half(UInt32(answer.present.count))
            for word in answer.present { self.word(word) }
        case .storeWants(let want):
            byte(7)
            half(want.offer)
            half(UInt32(want.wanted.count))
            for range in want.wanted {
                half(range.lowerBound)
                half(range.upperBound)
            }
            half(want.presentBlocks)
            half(want.refusedFrom)
        case .storeChanged(let added, let removed):
            byte(8)
            keys(added)
            keys(removed)
        case .storeForgotten: byte(9)
        case .pin(let pin):
            byte(10)
            half(pin.pin)
            half(pin.owner)
            keys(pin.chain)
            word(UInt64(bitPattern: pin.expires.nanoseconds))
        case .unpin(let pin):
            byte(11)
            half(pin)
        case .deadline: byte(12)
        case .reserve(let request):
            byte(13)
            half(request.reservation)
            half(request.count)
        case .unreserve(let reservation):
            byte(14)
            half(reservation)
        case .released(let request):
            byte(15)
            half(request)
        case .deviceLost: byte(16)
        case .touched(let chain):
            byte(17)
            keys(chain)
        }
    }

    mutating func encode(_ command: Command) {
        switch command {
        case .answer(let answer):
            byte(0)
            half(answer.request)
            for count in [
                answer.hitBlocks, answer.hbmBlocks, answer.dramBlocks, answer.nvmeBlocks, answer.flashBlocks,
            ] { half(count) }
        case .loading(let plan):
            byte(1)
            half(plan.request)
            half(plan.first)
            half(plan.end)
            word(UInt64(plan.bytes))
            word(UInt64(bitPattern: plan.expected.nanoseconds))
            word(UInt64(bitPattern: plan.deadline.nanoseconds))
        case .ready(let ready):
            byte(2)
            half(ready.request)
            half(ready.first)
            half(ready.end)
            if !ready.slots.isEmpty { slots(ready.slots) }
        case .transfer(let order):
            byte(3)
            half(order.transfer)
            byte(order.kind.rawValue)
            byte(order.from.rawValue)
            byte(order.to.rawValue)
            half(order.engine)
            half(order.request)
            word(UInt64(order.bytes))
            half(UInt32(order.moves.count))
            for move in order.moves {
                key(move.key)
                half(move.block)
                half(move.position)
                half(move.source)
                half(move.destination)
            }
        case .cancel(let transfer):
            byte(4)
            half(transfer)
        case .askStore(let question):
            byte(5)
            half(question.question)
            half(question.request)
            keys(question.keys)
        case .offer(let offer):
            byte(6)
            half(offer.offer)
            keys(offer.chain)
            half(offer.firstOffered)
            half(offer.shownBlocks)
            half(offer.context.request)
            half(offer.context.session)
            half(offer.context.turn)
            word(UInt64(bitPattern: offer.context.now.nanoseconds))
        case .withdraw(let keys):
            byte(7)
            self.keys(keys)
        case .pinned(let answer):
            byte(8)
            half(answer.pin)
            byte(answer.outcome.rawValue)
            half(answer.blocks)
        case .reserved(let answer):
            byte(9)
            half(answer.reservation)
            slots(answer.slots)
        }
    }
}
