// A bounded first-in-first-out line of command numbers.

/// Numbers in the order they came, in room that was taken at the start.
struct SlotQueue {
    private var slots: [UInt32]
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) { slots = [UInt32](repeating: 0, count: capacity) }

    var isEmpty: Bool { count == 0 }

    /// The one that came first.
    var first: UInt32? { count == 0 ? nil : slots[head] }

    mutating func append(_ slot: UInt32) {
        precondition(count < slots.count, "a queue shorter than what may wait in it")
        slots[(head + count) % slots.count] = slot
        count += 1
    }

    mutating func removeFirst() {
        precondition(count > 0, "taking from an empty queue")
        head = (head + 1) % slots.count
        count -= 1
    }

    /// The first of those that it holds for.
    func first(where holds: (UInt32) -> Bool) -> UInt32? {
        for place in 0..<count {
            let slot = slots[(head + place) % slots.count]
            if holds(slot) { return slot }
        }
        return nil
    }

    /// Takes one out of the line. Unless it is the first it walks the line: for commands that failed or overtake.
    mutating func remove(_ slot: UInt32) {
        if first == slot { return removeFirst() }
        let waiting = count
        for _ in 0..<waiting {
            let front = slots[head]
            removeFirst()
            if front != slot { append(front) }
        }
    }
}
