// Events and commands as bytes: little-endian words in the order of the declarations, counts before lists. For journals
// only: nothing but `holdfast journal` reads them outside the agent.

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

/// Turns bytes back into events. What does not fit is an error, never a crash.
struct JournalDecoder {
    private let bytes: [UInt8]
    private var position: Int

    init(_ bytes: [UInt8], from position: Int) {
        self.bytes = bytes
        self.position = position
    }

    func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func optionalByte() -> UInt8? {
        guard position < bytes.count else { return nil }
        defer { position += 1 }
        return bytes[position]
    }

    mutating func byte() throws(OperatorError) -> UInt8 {
        guard let byte = optionalByte() else { throw damaged() }
        return byte
    }

    mutating func word() throws(OperatorError) -> UInt64 {
        guard bytes.count - position >= 8 else { throw damaged() }
        var value: UInt64 = 0
        for index in 0..<8 { value |= UInt64(bytes[position + index]) << UInt64(8 * index) }
        position += 8
        return value
    }

    private func damaged() -> OperatorError {
        OperatorError("it is damaged or cut short at byte \(position)")
    }

    private mutating func half() throws(OperatorError) -> UInt32 {
        guard bytes.count - position >= 4 else { throw damaged() }
        var value: UInt32 = 0
        for index in 0..<4 { value |= UInt32(bytes[position + index]) << UInt32(8 * index) }
        position += 4
        return value
    }

    private mutating func signed() throws(OperatorError) -> Int32 { Int32(bitPattern: try half()) }

    private mutating func count(of bytesEach: Int) throws(OperatorError) -> Int {
        let count = Int(try half())
        guard count <= (bytes.count - position) / bytesEach else { throw damaged() }
        return count
    }

    private mutating func keys() throws(OperatorError) -> [BlockKey] {
        let count = try count(of: 16)
        var keys: [BlockKey] = []
        keys.reserveCapacity(count)
        for _ in 0..<count { keys.append(BlockKey(high: try word(), low: try word())) }
        return keys
    }

    private mutating func slots() throws(OperatorError) -> [SlotIndex] {
        var slots: [SlotIndex] = []
        for _ in 0..<(try count(of: 4)) { slots.append(try half()) }
        return slots
    }

    private mutating func time() throws(OperatorError) -> Int64 { Int64(bitPattern: try word()) }

    private mutating func link() throws(OperatorError) -> LinkState {
        LinkState(
            bandwidth: Double(bitPattern: try word()), delay: Duration(nanoseconds: try time()),
            isSteady: try byte() != 0)
    }

    private mutating func reason() throws(OperatorError) -> StopReason {
        guard let reason = StopReason(rawValue: try byte()) else { throw damaged() }
        return reason
    }

    mutating func event() throws(OperatorError) -> Event {
        switch try byte() {
        case 0:
            return .arrived(
                Arrival(
                    request: try half(), engine: try signed(), chain: try keys()[...], promptTokens: try signed(),
                    engineBlocks: try signed(), session: try signed(), turn: try signed(), pieceOf: try half()))
        case 1:
            var load = LoadRequest(
                request: try half(), engineBlocks: try signed(), endMax: try signed(),
                computeWait: Duration(nanoseconds: try time()),
                links: LinkView(dram: try link(), nvme: try link(), flash: try link()))
            load.isLease = try byte() == 1
            return .load(load)
        case 2:
            var computed = Computed(
                request: try half(), knownBlocks: try signed(), parts: Computed.Parts(rawValue: try byte()),
                firstHeld: try signed())
            let more = try byte()
            let adoption = more & 3
            if adoption > 0 { computed.adopted = Adoption(reservation: try half(), slots: try slots()) }
            if adoption == 2 { computed.adopted?.holder = try half() }
            if more & 4 != 0 { computed.engineBlocks = try signed() }
            return .computed(computed)
        case 3:
            return .ended(
                request: try half(), reason: try reason(), resumesAfter: Duration(nanoseconds: try time()))
        case 4: return .cancelled(request: try half())
        case 5: return .transferEnded(try transferEnd())
        case 6:
            let question = try half()
            let isSilent = try byte() == 1
            var present: [UInt64] = []
            for _ in 0..<(try count(of: 8)) { present.append(try word()) }
            return .storeAnswered(StoreAnswer(question: question, present: present, isSilent: isSilent))
        case 7:
            let offer = try half()
            var wanted: [Range<Int32>] = []
            for _ in 0..<(try count(of: 8)) {
                let (lower, upper) = (try signed(), try signed())
                guard lower <= upper else { throw damaged() }
                wanted.append(lower..<upper)
            }
            return .storeWants(
                StoreWant(offer: offer, wanted: wanted, presentBlocks: try signed(), refusedFrom: try signed()))
        case 8: return .storeChanged(added: try keys(), removed: try keys())
        case 9: return .storeForgotten
        case 10:
            return .pin(
                PinRequest(
                    pin: try half(), owner: try signed(), chain: try keys()[...],
                    expires: Instant(nanoseconds: try time())))
        case 11: return .unpin(pin: try half())
        case 12: return .deadline
        case 13: return .reserve(ReserveRequest(reservation: try half(), count: try signed()))
        case 14: return .unreserve(reservation: try half())
        case 15: return .released(request: try half())
        case 16: return .deviceLost
        case 17: return .touched(chain: try keys()[...])
        default: throw damaged()
        }
    }

    private mutating func transferEnd() throws(OperatorError) -> TransferEnd {
        let transfer = try half()
        guard let outcome = TransferEnd.Outcome(rawValue: try byte()) else { throw damaged() }
        var lost: [LostMove] = []
        for _ in 0..<(try count(of: 5)) {
            let move = try signed()
            guard let cause = LostMove.Cause(rawValue: try byte()) else { throw damaged() }
            lost.append(LostMove(move: move, cause: cause))
        }
        return TransferEnd(transfer: transfer, outcome: outcome, lost: lost)
    }
}
