// Buffers that are filled and emptied many times a request.

extension Array {
    /// Takes everything out and keeps the memory. Most buffers of an event stay empty, and emptying an empty array costs what
    /// replacing a range costs.
    @inlinable
    public mutating func clear() {
        if !isEmpty { removeAll(keepingCapacity: true) }
    }
}
