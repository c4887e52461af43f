// The ceiling: what a cache of this size could hit if it knew every request to come. It sees the future, so it is
// no `TierPolicy`: it is walked once over the whole trace and cannot be deployed.

import KVModel

/// When each block reference of a trace is followed by the next one to the same block, as a request number.
///
/// It costs four bytes a reference and one walk backwards, and serves every capacity.
public struct NextUses: Sendable {
    /// For each reference, the number of the next request that uses the block; `never` when none does.
    public let requests: [UInt32]

    /// The mark of a block that is not used again.
    public static let never = UInt32.max

    /// Finds the next uses of a sequence of paths. `pathEnds[r]` is where request `r`'s path ends in `blocks`; it
    /// starts where the one before it ends. Blocks are below `uniqueBlockCount`.
    public init(blocks: [BlockNumber], pathEnds: [Int], uniqueBlockCount: Int) {
        precondition(pathEnds.count < Int(Self.never), "more requests than a 32-bit number can name")
        var next = [UInt32](repeating: Self.never, count: blocks.count)
        var soonest = [UInt32](repeating: Self.never, count: uniqueBlockCount)
        for request in stride(from: pathEnds.count - 1, through: 0, by: -1) {
            let path = (request == 0 ? 0 : pathEnds[request - 1])..<pathEnds[request]
            for reference in path { next[reference] = soonest[Int(blocks[reference])] }
            for reference in path { soonest[Int(blocks[reference])] = UInt32(truncatingIfNeeded: request) }
        }
        requests = next
    }
}

/// After each request it keeps the `capacity` blocks with the soonest next use among those it holds and the
/// request's; among equals it drops the deepest, and it never keeps what is not used again.
///
/// A parent is needed no later than its children, so the blocks kept for a request are always a leading run of it,
/// and no cache of the same size can hit more blocks.
///
/// Blocks wait in one queue per request to come. Of two requests that add to the same queue, the later one shares
/// the shorter prefix with it, so a queue filled deepest first is in order of depth, and the block to drop is at its
/// front: constant work a reference, without a heap of blocks.
public struct ClairvoyantCache {
    /// How many blocks it can hold.
    public let capacity: Int
    /// How many it holds; never above `capacity` between requests.
    public private(set) var residentCount = 0

    /// For each request to come, the first and last block that waits for it; `none` when none does.
    private var queues: [Queue]
    private var waiting: RequestSet
    /// The block behind each block in its queue.
    private var behind: [BlockNumber]
    private var isHeld: [Bool]

    private static let none = BlockNumber.max

    private struct Queue {
        var first = none
        var last = none
    }

    /// A cache of `capacity` blocks over a trace of so many requests and different blocks.
    public init(capacity: Int, requestCount: Int, uniqueBlockCount: Int) {
        precondition(capacity >= 1, "a cache without room for one block")
        self.capacity = capacity
        queues = Array(repeating: Queue(), count: requestCount)
        waiting = RequestSet(requestCount: requestCount)
        behind = Array(repeating: Self.none, count: uniqueBlockCount)
        isHeld = Array(repeating: false, count: uniqueBlockCount)
    }

    /// The length of the longest leading run of `path` that is held.
    public func hitRun(_ path: Span<BlockNumber>) -> Int {
        var length = 0
        while length < path.count, isHeld[Int(path[length])] { length += 1 }
        return length
    }

    /// Takes in the path of one request. Requests come in order; `nextUses` are those of the path's references.
    public mutating func access(request: Int, _ path: Span<BlockNumber>, nextUses: Span<UInt32>) {
        // What waited for this request is on its path, and is kept again only for a later one.
        var block = queues[request].first
        while block != Self.none {
            isHeld[Int(block)] = false
            residentCount -= 1
            block = behind[Int(block)]
        }
        queues[request] = Queue()
        waiting.remove(request)

        var position = path.count
        while position > 0 {
            position -= 1
            let block = path[position]
            let next = nextUses[position]
            if next != NextUses.never, !isHeld[Int(block)] { append(block, to: Int(next)) }
        }
        while residentCount > capacity { dropFurthest() }
    }

    private mutating func append(_ block: BlockNumber, to request: Int) {
        isHeld[Int(block)] = true
        behind[Int(block)] = Self.none
        residentCount += 1
        let last = queues[request].last
        queues[request].last = block
        if last == Self.none {
            queues[request].first = block
            waiting.insert(request)
        } else {
            behind[Int(last)] = block
        }
    }

    private mutating func dropFurthest() {
        guard let request = waiting.largest else { preconditionFailure("blocks are held that wait for no request") }
        let block = queues[request].first
        let next = behind[Int(block)]
        queues[request].first = next
        if next == Self.none {
            queues[request].last = Self.none
            waiting.remove(request)
        }
        isHeld[Int(block)] = false
        residentCount -= 1
    }
}

/// A set of request numbers that knows its largest member: one bit a request, and above them one bit a word.
struct RequestSet {
    /// `levels[0]` holds the members; a bit of level `n + 1` says that a word of level `n` is not zero.
    private var levels: [[UInt64]] = []

    init(requestCount: Int) {
        var words = requestCount
        repeat {
            words = (words + 63) / 64
            levels.append(Array(repeating: 0, count: max(words, 1)))
        } while words > 1
    }

    mutating func insert(_ member: Int) {
        var index = member
        for level in levels.indices {
            levels[level][index >> 6] |= 1 << UInt64(index & 63)
            index >>= 6
        }
    }

    mutating func remove(_ member: Int) {
        var index = member
        for level in levels.indices {
            levels[level][index >> 6] &= ~(1 << UInt64(index & 63))
            if levels[level][index >> 6] != 0 { return }
            index >>= 6
        }
    }

    var largest: Int? {
        var index = 0
        for level in levels.indices.reversed() {
            let word = levels[level][index]
            if word == 0 { return nil }
            index = index << 6 | (63 - word.leadingZeroBitCount)
        }
        return index
    }
}
