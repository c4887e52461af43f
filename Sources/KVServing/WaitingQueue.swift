// Requests that wait to start, in order of arrival whatever order they came in.

/// A heap of requests by rank, lowest first. Requests put at the head go before all ranks, the last one put there first.
@usableFromInline
struct WaitingQueue: Sendable {
    private struct Item {
        var rank: Int
        var request: ReplicaRequest
    }

    private var heap: [Item] = []
    /// The rank of the next request put at the head: below every rank given so far.
    private var headRank = -1

    @usableFromInline init() {}

    @usableFromInline var count: Int { heap.count }
    @usableFromInline var isEmpty: Bool { heap.isEmpty }
    @usableFromInline var first: ReplicaRequest? { heap.first?.request }

    /// Adds a request. `rank` must not be negative.
    @usableFromInline
    mutating func insert(_ request: ReplicaRequest, rank: Int) {
        precondition(rank >= 0, "an arrival rank below zero")
        push(Item(rank: rank, request: request))
    }

    /// Adds a request before all others.
    @usableFromInline
    mutating func insertAtHead(_ request: ReplicaRequest) {
        push(Item(rank: headRank, request: request))
        headRank -= 1
    }

    /// The load of a request's gap ended. A request that does not wait here is passed over.
    mutating func closeGap(of number: RequestNumber, at end: Int) -> Int {
        guard let index = heap.firstIndex(where: { $0.request.number == number }) else { return 0 }
        return heap[index].request.closeGap(at: end)
    }

    private mutating func push(_ item: Item) {
        heap.append(item)
        var index = heap.count - 1
        while index > 0 {
            let parent = (index - 1) / 2
            if heap[parent].rank <= item.rank { break }
            heap[index] = heap[parent]
            index = parent
        }
        heap[index] = item
    }

    /// Removes the first request. There must be one.
    @usableFromInline
    mutating func removeFirst() {
        let last = heap.removeLast()
        if heap.isEmpty { return }
        var index = 0
        while true {
            var child = 2 * index + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, heap[child + 1].rank < heap[child].rank { child += 1 }
            if last.rank <= heap[child].rank { break }
            heap[index] = heap[child]
            index = child
        }
        heap[index] = last
    }
}
