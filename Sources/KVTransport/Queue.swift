// A queue in one array: what waits is not moved, and room once taken is kept.

/// First in, first out.
package struct Queue<Element> {
    private var slots: [Element?] = []
    private var head = 0
    /// How many wait.
    package private(set) var count = 0

    /// Of none.
    package init() {}

    /// Whether none waits.
    package var isEmpty: Bool { count == 0 }
    /// The one that has waited longest.
    package var first: Element? { count == 0 ? nil : slots[head] }
    /// The one that came last; set only while there is one.
    package var last: Element? {
        get { count == 0 ? nil : slots[(head + count - 1) & (slots.count - 1)] }
        set {
            precondition(count > 0, "the last of none")
            slots[(head + count - 1) & (slots.count - 1)] = newValue
        }
    }

    /// Adds one at the end.
    package mutating func append(_ element: Element) {
        if count == slots.count { grow() }
        slots[(head + count) & (slots.count - 1)] = element
        count += 1
    }

    /// Takes the one that has waited longest.
    package mutating func removeFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = slots[head]
        slots[head] = nil
        head = (head + 1) & (slots.count - 1)
        count -= 1
        return element
    }

    private mutating func grow() {
        let size = max(16, slots.count * 2)
        var larger: [Element?] = []
        larger.reserveCapacity(size)
        for index in 0..<count { larger.append(slots[(head + index) & (slots.count - 1)]) }
        larger.append(contentsOf: repeatElement(nil, count: size - count))
        slots = larger
        head = 0
    }
}

extension Dictionary {
    /// Changes the value of a key, if it has one. `self[key]?.field = …` would take a frame from the heap each time.
    @inline(__always)
    mutating func change(_ key: Key, _ body: (inout Value) -> Void) {
        guard var value = self[key] else { return }
        body(&value)
        self[key] = value
    }
}
