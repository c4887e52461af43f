// All links of a cluster and the transfers that cross them. A transfer names its path; how the links are shared is
// theirs to know.

import KVModel

/// The links of a cluster. Transfers go in with a path, and come out, by number, when their last byte has arrived.
///
/// A transfer is pipelined: it is on all links of its path at once, and ends when the last of them is done with it,
/// plus a latency. That makes its end the slowest link's share, as a long transfer of many blocks sees it.
package struct LinkFabric {
    package private(set) var links: [Link]
    private let discipline: LinkDiscipline
    private var clock: IndexedClock
    private var arrivals = TimerQueue<Int32>()
    private var transfers: [Transfer] = []
    private var free: [Int32] = []
    private var ended: [Int32] = []
    /// Transfers under way.
    package private(set) var activeCount = 0

    private struct Transfer {
        /// Links that still work on it.
        var parts: Int32
        var latency: Int64
        /// What the caller calls it.
        var tag: UInt64
    }

    /// One link a transfer crosses, and how many of its bytes do.
    package struct Hop {
        package var link: Int32
        package var bytes: Double
        package var direction: Link.Direction

        package init(link: Int32, bytes: Double, direction: Link.Direction) {
            self.link = link
            self.bytes = bytes
            self.direction = direction
        }
    }

    package init(links: [Link], discipline: LinkDiscipline) {
        self.links = links
        self.discipline = discipline
        clock = IndexedClock(count: links.count)
    }

    /// When something ends next, or `IndexedClock.never`.
    package var nextMoment: Int64 { min(clock.earliest, arrivals.earliest) }

    /// Starts a transfer over `path`; `tag` comes back when it has arrived. Bring the fabric up to `now` first.
    package mutating func start(_ path: Span<Hop>, latency: Int64, tag: UInt64, at now: Int64) {
        let number: Int32
        if let last = free.popLast() {
            number = last
        } else {
            number = Int32(transfers.count)
            transfers.append(Transfer(parts: 0, latency: 0, tag: 0))
        }
        activeCount += 1
        transfers[Int(number)] = Transfer(parts: 0, latency: latency, tag: tag)
        if discipline == .fifo {
            var end = now
            for index in path.indices where path[index].bytes > 0 {
                let hop = path[index]
                end = max(end, links[Int(hop.link)].pass(hop.bytes, hop.direction, at: now))
            }
            arrivals.add(number, at: end + latency)
            return
        }
        for index in path.indices where path[index].bytes > 0 {
            let hop = path[index]
            let link = Int(hop.link)
            transfers[Int(number)].parts += 1
            catchUp(link, to: now)
            links[link].join(number, bytes: hop.bytes, hop.direction)
            clock.set(link, to: links[link].nextEnd)
        }
        if transfers[Int(number)].parts == 0 { arrivals.add(number, at: now + latency) }
    }

    /// Brings everything up to `now` and hands over the tags of transfers that have arrived, in order.
    package mutating func advance(to now: Int64, arrived: inout [UInt64]) {
        while clock.earliest <= now {
            let link = clock.first
            catchUp(link, to: clock.earliest)
            clock.set(link, to: links[link].nextEnd)
        }
        while arrivals.earliest <= now {
            let number = Int(arrivals.removeFirst())
            arrived.append(transfers[number].tag)
            free.append(Int32(number))
            activeCount -= 1
        }
    }

    private mutating func catchUp(_ link: Int, to moment: Int64) {
        ended.clear()
        links[link].advance(to: moment, ended: &ended)
        for number in ended {
            let transfer = Int(number)
            transfers[transfer].parts -= 1
            if transfers[transfer].parts == 0 {
                arrivals.add(number, at: moment + transfers[transfer].latency)
            }
        }
    }
}
