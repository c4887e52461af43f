// Engines name conversations by any 64-bit word; the decisions by small numbers. Bounded: the one that was heard of
// longest ago is forgotten, and is a new one when it comes back.

/// Numbers of conversations.
struct SessionTable {
    private var numbers: [UInt64: Int32] = [:]
    private var ring: [UInt64] = []
    private var wasUsed: [Bool] = []
    private var places: [UInt64: Int32] = [:]
    private var hand = 0
    private var next: Int32 = 0
    private let countMax: Int

    init(countMax: Int) {
        precondition(countMax > 0, "a table for no conversation")
        self.countMax = countMax
    }

    var count: Int { ring.count }

    /// The number of a conversation; −1 for 0, which stands for none.
    mutating func number(of session: UInt64) -> Int32 {
        guard session != 0 else { return -1 }
        if let place = places[session], let number = numbers[session] {
            wasUsed[Int(place)] = true
            return number
        }
        let place: Int
        if ring.count < countMax {
            place = ring.count
            ring.append(session)
            wasUsed.append(false)
        } else {
            while wasUsed[hand] {
                wasUsed[hand] = false
                hand = (hand + 1) % ring.count
            }
            place = hand
            hand = (hand + 1) % ring.count
            numbers[ring[place]] = nil
            places[ring[place]] = nil
            ring[place] = session
        }
        let number = next
        // Numbers of conversations long forgotten come round again after two thousand million.
        next = next == .max ? 0 : next + 1
        numbers[session] = number
        places[session] = Int32(place)
        return number
    }

    /// The number of a conversation that is known.
    func find(_ session: UInt64) -> Int32? { numbers[session] }
}
