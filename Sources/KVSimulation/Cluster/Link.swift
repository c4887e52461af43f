// One server of bytes: a NIC port set, a drive set, a PCIe path, a copy engine. It knows how long bytes take and who
// shares it; what crosses it, and why, is known elsewhere.

import KVModel

/// How a link is shared by the transfers that cross it.
public enum LinkDiscipline: String, Sendable, CaseIterable {
    /// Blocks of all active transfers are served round robin: processor sharing at block grain.
    case fair
    /// One transfer after another, in the order they came. Cheaper, and coarser under load.
    case fifo
}

/// A server that works off transfers at one second of work a second. Reads go before writes: a waiting request feels a
/// read, nobody feels a write; writes move only while no read does.
///
/// Sharing is kept in virtual time (Demers, Keshav, Shenker, "Analysis and simulation of a fair queueing algorithm",
/// SIGCOMM 1989): virtual time runs at 1/n while n transfers are active, a transfer ends when virtual time has grown by
/// its work, so joining and leaving cost O(log n) and no transfer is visited in between.
package struct Link {
    /// Bytes a second on the data sheet and after efficiency, reading and writing.
    package let lineRate: Double
    package let readRate: Double
    package let writeRate: Double
    package let name: String
    package let discipline: LinkDiscipline

    /// What has passed, in the order of `Direction`.
    private var reads = Share()
    private var writes = Share()
    private var updatedAt: Int64 = 0
    /// When a FIFO link has worked off all that was given to it.
    private var freeAt: Int64 = 0
    package private(set) var usage: LinkUsage

    /// Which way bytes go.
    package enum Direction: UInt8 { case read, write }

    /// One direction's active transfers.
    private struct Share {
        /// Nanoseconds of work that each transfer active since the start of the busy period has had.
        var virtualTime = 0.0
        var backlog = 0.0
        /// A binary heap on `tag`, then `order`.
        var flows: [Flow] = []
    }

    private struct Flow {
        var tag: Double
        var order: UInt64
        var transfer: Int32
    }

    private var order: UInt64 = 0

    package init(name: String, lineRate: Double, readRate: Double, writeRate: Double, discipline: LinkDiscipline) {
        precondition(readRate > 0, "a link without a read rate")
        precondition(writeRate > 0, "a link without a write rate")
        self.name = name
        self.lineRate = lineRate
        self.readRate = readRate
        self.writeRate = writeRate
        self.discipline = discipline
        usage = LinkUsage()
    }

    /// Nanoseconds that `bytes` take alone.
    package func work(_ bytes: Double, _ direction: Direction) -> Double {
        bytes / (direction == .read ? readRate : writeRate) * 1e9
    }

    /// Nanoseconds of work given and not yet done that a new transfer of this direction would compete with.
    package func backlog(_ direction: Direction, at now: Int64) -> Double {
        if discipline == .fifo { return Double(max(0, freeAt - now)) }
        let passed = Double(now - updatedAt)
        let readsLeft = max(0, reads.backlog - passed)
        if direction == .read { return readsLeft }
        return readsLeft + max(0, writes.backlog - max(0, passed - reads.backlog))
    }

    /// How many transfers read from it now.
    package var activeReads: Int { reads.flows.count }

    /// FIFO: the moment the bytes have passed. The link is taken until then.
    package mutating func pass(_ bytes: Double, _ direction: Direction, at now: Int64) -> Int64 {
        let start = max(now, freeAt)
        freeAt = start + Int64(work(bytes, direction).rounded(.up))
        usage.add(bytes: bytes, from: start, to: freeAt)
        return freeAt
    }

    /// Fair: a transfer joins. Bring the link up to `now` first.
    package mutating func join(_ transfer: Int32, bytes: Double, _ direction: Direction) {
        let work = work(bytes, direction)
        order += 1
        if direction == .read {
            Self.push(Flow(tag: reads.virtualTime + work, order: order, transfer: transfer), to: &reads.flows)
            reads.backlog += work
        } else {
            Self.push(Flow(tag: writes.virtualTime + work, order: order, transfer: transfer), to: &writes.flows)
            writes.backlog += work
        }
    }

    /// Fair: brings the link up to `now` and appends the transfers that have ended.
    package mutating func advance(to now: Int64, ended: inout [Int32]) {
        if reads.flows.isEmpty, writes.flows.isEmpty {
            updatedAt = now
            return
        }
        var left = Double(now - updatedAt)
        var at = Double(updatedAt)
        updatedAt = now
        left = Self.serve(&reads, for: left, from: &at, rate: readRate, usage: &usage, ended: &ended)
        // What reads left over goes to the writes; while a read is active that is nothing.
        if left > 0 { _ = Self.serve(&writes, for: left, from: &at, rate: writeRate, usage: &usage, ended: &ended) }
    }

    /// Fair: when the next transfer ends if nothing joins; rounded up, so that it has ended by then.
    package var nextEnd: Int64 {
        let share = reads.flows.isEmpty ? writes : reads
        guard let first = share.flows.first else { return IndexedClock.never }
        let wait = max(0, first.tag - share.virtualTime) * Double(share.flows.count)
        return updatedAt + max(1, Int64(wait.rounded(.up)))
    }

    /// Serves one direction for at most `time` nanoseconds and returns what it did not need.
    private static func serve(
        _ share: inout Share, for time: Double, from at: inout Double, rate: Double, usage: inout LinkUsage,
        ended: inout [Int32]
    ) -> Double {
        var left = time
        let start = at
        while let first = share.flows.first {
            let count = Double(share.flows.count)
            let needed = max(0, first.tag - share.virtualTime) * count
            // Half a nanosecond of slack: the caller's clock is whole nanoseconds.
            if needed > left + 0.5 {
                share.virtualTime += left / count
                at += left
                left = 0
                break
            }
            share.virtualTime = first.tag
            at += needed
            left = max(0, left - needed)
            ended.append(pop(from: &share.flows).transfer)
        }
        let served = at - start
        if served > 0 { usage.add(bytes: served * rate / 1e9, from: Int64(start), to: Int64(at)) }
        share.backlog = max(0, share.backlog - served)
        if share.flows.isEmpty {
            share.virtualTime = 0
            share.backlog = 0
        }
        return left
    }

    private static func push(_ flow: Flow, to heap: inout [Flow]) {
        heap.append(flow)
        var place = heap.count - 1
        while place > 0 {
            let parent = (place - 1) / 2
            guard precedes(heap[place], heap[parent]) else { break }
            heap.swapAt(place, parent)
            place = parent
        }
    }

    private static func pop(from heap: inout [Flow]) -> Flow {
        heap.swapAt(0, heap.count - 1)
        let first = heap.removeLast()
        var place = 0
        while true {
            var child = 2 * place + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, precedes(heap[child + 1], heap[child]) { child += 1 }
            guard precedes(heap[child], heap[place]) else { break }
            heap.swapAt(child, place)
            place = child
        }
        return first
    }

    private static func precedes(_ left: Flow, _ right: Flow) -> Bool {
        left.tag != right.tag ? left.tag < right.tag : left.order < right.order
    }
}

/// What a link carried, by time.
package struct LinkUsage {
    /// Bytes in each stretch of the run, `width` seconds long.
    package private(set) var stretches: [Double] = []
    /// Seconds of a stretch: 1, and twice as many whenever a run is too long for them.
    package private(set) var width: Int64 = 1
    /// All of them.
    package private(set) var bytes = 0.0
    /// The stretch that was added to last, and its first and last moment: most of what follows passes in it, too, and is added
    /// without a division.
    private var latest = 0
    private var latestMoments: Range<Int64> = 0..<0

    /// Twelve days of seconds.
    package static let stretchesMax = 1 << 20

    package init() {}

    private var unit: Int64 { width * 1_000_000_000 }

    /// Adds bytes that passed evenly between two moments.
    package mutating func add(bytes: Double, from start: Int64, to end: Int64) {
        self.bytes += bytes
        if start >= latestMoments.lowerBound, end < latestMoments.upperBound {
            stretches[latest] += bytes
            return
        }
        widen(for: end)
        let first = Int(start / unit)
        let last = Int(max(start, end - 1) / unit)
        while stretches.count <= last { stretches.append(0) }
        latest = last
        latestMoments = Int64(last) * unit..<Int64(last + 1) * unit
        if first == last {
            stretches[first] += bytes
            return
        }
        let rate = bytes / Double(end - start)
        for stretch in first...last {
            let from = max(start, Int64(stretch) * unit)
            let to = min(end, Int64(stretch + 1) * unit)
            stretches[stretch] += rate * Double(to - from)
        }
    }

    /// Makes stretches so long that those up to a moment are few enough.
    package mutating func widen(for end: Int64) {
        while end / unit >= Int64(Self.stretchesMax) {
            width *= 2
            for index in 0..<(stretches.count + 1) / 2 {
                let second = 2 * index + 1 < stretches.count ? stretches[2 * index + 1] : 0
                stretches[index] = stretches[2 * index] + second
            }
            stretches.removeLast(stretches.count / 2)
        }
    }

    /// Bytes a second in each stretch between two moments, at least one.
    package func rates(from start: Int64, to end: Int64) -> [Double] {
        var usage = self
        usage.widen(for: end)
        let first = Int(start / usage.unit)
        let last = max(first + 1, Int((end + usage.unit - 1) / usage.unit))
        return (first..<last).map { index in
            index < usage.stretches.count ? usage.stretches[index] / Double(usage.width) : 0
        }
    }
}
