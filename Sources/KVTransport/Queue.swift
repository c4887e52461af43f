// A queue in one array: what waits is not moved, and room once taken is kept.

/// First in, first out.
///
/// Its functions are compiled where it is used, for the type that waits there: without that each call looks up how to move one.
@usableFromInline
package struct Queue<Element> {
    @usableFromInline var slots: [Element?] = []
    @usableFromInline var head = 0
    /// How many wait.
    @usableFromInline package internal(set) var count = 0

    /// Of none.
    @inlinable package init() {}

    /// Whether none waits.
    @inlinable package var isEmpty: Bool { count == 0 }
    /// How many there is room for before it grows.
    package var room: Int { slots.count }
    /// The one that has waited longest.
    @inlinable package var first: Element? { count == 0 ? nil : slots[head] }
    /// The one that came last; set only while there is one.
    @inlinable package var last: Element? {
        get { count == 0 ? nil : slots[(head + count - 1) & (slots.count - 1)] }
        set {
            precondition(count > 0, "the last of none")
            slots[(head + count - 1) & (slots.count - 1)] = newValue
        }
    }

    /// Adds one at the end.
    @inlinable package mutating func append(_ element: Element) {
        if count == slots.count { grow() }
        slots[(head + count) & (slots.count - 1)] = element
        count += 1
    }

    /// Whether one of them is as wanted.
    @inlinable package func contains(where isWanted: (Element) -> Bool) -> Bool {
        (0..<count).contains { index in slots[(head + index) & (slots.count - 1)].map(isWanted) ?? false }
    }

    /// The one at a place, counted from the one that has waited longest.
    @inlinable package subscript(index: Int) -> Element {
        precondition(index >= 0 && index < count, "a place where none waits")
        guard let element = slots[(head + index) & (slots.count - 1)] else { preconditionFailure("an empty place") }
        return element
    }

    /// Takes the one at a place; those before it move, so it is for places near the front.
    @inlinable package mutating func remove(at index: Int) -> Element {
        let element = self[index]
        for place in stride(from: index, to: 0, by: -1) {
            slots[(head + place) & (slots.count - 1)] = slots[(head + place - 1) & (slots.count - 1)]
        }
        _ = removeFirst()
        return element
    }

    /// Takes the one that has waited longest.
    @inlinable package mutating func removeFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = slots[head]
        slots[head] = nil
        head = (head + 1) & (slots.count - 1)
        count -= 1
        return element
    }

    @usableFromInline
    mutating func grow() {
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
