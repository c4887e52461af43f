// Events of a journal, from the bytes that `JournalEncoder` wrote. A journal may be cut short anywhere, or be no journal.

import KVModel
import KVTiering

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
