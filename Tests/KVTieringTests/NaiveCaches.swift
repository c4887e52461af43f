// The named policies again, written straight from their papers on plain arrays and with no thought of speed: the
// reference that the fast ones must agree with, block by block.

import KVModel

/// A cache that is fed one block at a time.
protocol NaiveCache {
    init(capacity: Int)
    /// Blocks it holds now.
    var held: Set<BlockNumber> { get }
    mutating func access(_ block: BlockNumber)
}

struct NaiveLRU: NaiveCache {
    let capacity: Int
    /// Oldest first.
    var order: [BlockNumber] = []
    init(capacity: Int) { self.capacity = capacity }
    var held: Set<BlockNumber> { Set(order) }

    mutating func access(_ block: BlockNumber) {
        if order.contains(block) {
            order.removeAll { $0 == block }
        } else if order.count == capacity {
            order.removeFirst()
        }
        order.append(block)
    }
}

struct NaiveFIFO: NaiveCache {
    let capacity: Int
    var order: [BlockNumber] = []
    init(capacity: Int) { self.capacity = capacity }
    var held: Set<BlockNumber> { Set(order) }

    mutating func access(_ block: BlockNumber) {
        if order.contains(block) { return }
        if order.count == capacity { order.removeFirst() }
        order.append(block)
    }
}

struct NaiveLFU: NaiveCache {
    let capacity: Int
    var clock = 0
    var entries: [BlockNumber: (count: Int, since: Int)] = [:]
    init(capacity: Int) { self.capacity = capacity }
    var held: Set<BlockNumber> { Set(entries.keys) }

    mutating func access(_ block: BlockNumber) {
        clock += 1
        if let entry = entries[block] {
            entries[block] = (entry.count + 1, clock)
            return
        }
        if entries.count == capacity {
            let victim = entries.min { ($0.value.count, $0.value.since) < ($1.value.count, $1.value.since) }
            entries[victim!.key] = nil
        }
        entries[block] = (1, clock)
    }
}

struct NaiveS3FIFO: NaiveCache {
    let capacity: Int
    /// All oldest first.
    var small: [(block: BlockNumber, hits: Int)] = []
    var main: [(block: BlockNumber, hits: Int)] = []
    var ghosts: [BlockNumber] = []
    init(capacity: Int) { self.capacity = capacity }
    var held: Set<BlockNumber> { Set(small.map(\.block) + main.map(\.block)) }

    mutating func access(_ block: BlockNumber) {
        if let place = small.firstIndex(where: { $0.block == block }) {
            small[place].hits = min(3, small[place].hits + 1)
            return
        }
        if let place = main.firstIndex(where: { $0.block == block }) {
            main[place].hits = min(3, main[place].hits + 1)
            return
        }
        while small.count + main.count == capacity { evict() }
        let wasGhost = ghosts.contains(block)
        ghosts.removeAll { $0 == block }
        if wasGhost { main.append((block, 0)) } else { small.append((block, 0)) }
    }

    mutating func evict() {
        let smallSize = max(1, capacity / 10)
        guard small.count >= smallSize || main.isEmpty else { return evictMain() }
        while !small.isEmpty {
            let oldest = small.removeFirst()
            if oldest.hits > 1 {
                main.append((oldest.block, 0))
            } else {
                ghosts.append(oldest.block)
                if ghosts.count > capacity - smallSize { ghosts.removeFirst() }
                return
            }
        }
    }

    mutating func evictMain() {
        while true {
            let oldest = main.removeFirst()
            if oldest.hits == 0 { return }
            main.append((oldest.block, oldest.hits - 1))
        }
    }
}

struct NaiveSIEVE: NaiveCache {
    let capacity: Int
    /// Oldest first.
    var queue: [(block: BlockNumber, visited: Bool)] = []
    var hand = 0
    init(capacity: Int) { self.capacity = capacity }
    var held: Set<BlockNumber> { Set(queue.map(\.block)) }

    mutating func access(_ block: BlockNumber) {
        if let place = queue.firstIndex(where: { $0.block == block }) {
            queue[place].visited = true
            return
        }
        if queue.count == capacity {
            if hand >= queue.count { hand = 0 }
            while queue[hand].visited {
                queue[hand].visited = false
                hand = (hand + 1) % queue.count
            }
            queue.remove(at: hand)
            // A hand that was at the newest end starts again from the oldest.
            if hand == queue.count { hand = 0 }
        }
        queue.append((block, false))
    }
}

struct NaiveARC: NaiveCache {
    let capacity: Int
    /// All least recent first.
    var t1: [BlockNumber] = []
    var t2: [BlockNumber] = []
    var b1: [BlockNumber] = []
    var b2: [BlockNumber] = []
    var p = 0.0
    init(capacity: Int) { self.capacity = capacity }
    var held: Set<BlockNumber> { Set(t1 + t2) }

    mutating func access(_ x: BlockNumber) {
        if t1.contains(x) || t2.contains(x) {
            t1.removeAll { $0 == x }
            t2.removeAll { $0 == x }
            t2.append(x)
        } else if b1.contains(x) {
            p = min(Double(capacity), p + max(Double(b2.count) / Double(b1.count), 1))
            replace(inB2: false)
            b1.removeAll { $0 == x }
            t2.append(x)
        } else if b2.contains(x) {
            p = max(0, p - max(Double(b1.count) / Double(b2.count), 1))
            replace(inB2: true)
            b2.removeAll { $0 == x }
            t2.append(x)
        } else {
            if t1.count + b1.count == capacity {
                if t1.count < capacity {
                    b1.removeFirst()
                    replace(inB2: false)
                } else {
                    t1.removeFirst()
                }
            } else if t1.count + t2.count + b1.count + b2.count >= capacity {
                if t1.count + t2.count + b1.count + b2.count == 2 * capacity { b2.removeFirst() }
                replace(inB2: false)
            }
            t1.append(x)
        }
    }

    mutating func replace(inB2: Bool) {
        if !t1.isEmpty, Double(t1.count) > p || (inB2 && Double(t1.count) == p) {
            b1.append(t1.removeFirst())
        } else {
            b2.append(t2.removeFirst())
        }
    }
}
