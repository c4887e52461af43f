// Deadlines against a sorted list, and that those which nobody waits for any more make room without a long turn.

import KVModel
import KVTiering
import Testing

@Suite struct DeadlineQueueTests {
    /// Deadlines with their times, in the order in which they were set.
    private struct Model {
        var open: [(time: Instant, matter: Int)] = []

        mutating func pop(at now: Instant) -> Int? {
            guard let place = open.indices.min(by: { (open[$0].time, $0) < (open[$1].time, $1) }),
                open[place].time <= now
            else { return nil }
            return open.remove(at: place).matter
        }
    }

    private func time(_ seconds: Int) -> Instant { Instant(seconds: Double(seconds)) }

    /// Stale ones may be forgotten at any time; all others come, the soonest first, equal times as they were set.
    @Test(arguments: 0..<20) func whatMattersComesInItsTurn(seed: UInt64) {
        var random = RandomSource(seed: seed)
        var queue = DeadlineQueue<Int>(capacity: 64)
        var model = Model()
        var (stale, now, next): (Set<Int>, Int, Int) = ([], 0, 0)
        for _ in 0..<4_000 {
            switch random.below(8) {
            case 0..<4:
                for _ in 0..<DeadlineQueue<Int>.examinedEach {
                    guard let other = queue.nextToExamine else { break }
                    queue.examined(isStale: stale.contains(other))
                }
                let due = time(now + random.below(12))
                // Half of the capacity matters at most; then there is room always.
                guard model.open.count(where: { !stale.contains($0.matter) }) < 32 else { continue }
                let hasRoom = queue.insert(next, at: due)
                #expect(hasRoom)
                model.open.append((due, next))
                next += 1
            case 4..<6:
                if let matter = model.open.randomElement(using: &random)?.matter { stale.insert(matter) }
            default:
                now += random.below(3)
                while true {
                    var (said, expected) = (queue.pop(at: time(now)), model.pop(at: time(now)))
                    while let one = expected, one != said, stale.contains(one) { expected = model.pop(at: time(now)) }
                    #expect(said == expected)
                    if said == nil { break }
                }
            }
            let soonest = model.open.filter { !stale.contains($0.matter) }.map(\.time).min() ?? .distantFuture
            #expect(queue.first <= soonest && queue.count <= queue.capacity)
        }
        #expect(next > 500)
    }

    /// However many are left behind, no insertion looks at more than a few, and there is room.
    @Test func deadlinesThatAreLeftBehindMakeRoom() {
        let far = Instant(seconds: 1e9)
        var queue = DeadlineQueue<Int>(capacity: 1_000)
        var most = 0
        for number in 0..<100_000 {
            for _ in 0..<DeadlineQueue<Int>.examinedEach {
                guard let other = queue.nextToExamine else { break }
                // The last 400 matter.
                queue.examined(isStale: other < number - 400)
            }
            let hasRoom = queue.insert(number, at: far)
            #expect(hasRoom)
            most = max(most, queue.count)
        }
        #expect(most > 500 && most < 650, "\(most)")
        // None of those that matter was lost, and they come as they were set.
        var came: [Int] = []
        while let matter = queue.pop(at: far) { if matter >= 99_600 { came.append(matter) } }
        #expect(came == Array(99_600..<100_000))
    }
}
