// Links against queueing theory and against a brute-force twin that serves in small steps.

import KVModel
import KVSimulation
import Testing

/// Mean seconds that transfers of one second spend on one link, arriving at random with utilization `load`.
private func meanSojourn(_ discipline: LinkDiscipline, load: Double, count: Int, seed: UInt64) -> Double {
    let link = Link(name: "link 0", lineRate: 1e6, readRate: 1e6, writeRate: 1e6, discipline: discipline)
    var fabric = LinkFabric(links: [link], discipline: discipline)
    var random = RandomSource(seed: seed)
    var arrivals: [Int64] = []
    var now = 0.0
    for _ in 0..<count {
        now += random.exponential(mean: 1e9 / load)
        arrivals.append(Int64(now))
    }
    var ended: [UInt64] = []
    var total = 0.0
    var next = 0
    while next < count || fabric.activeCount > 0 {
        let moment = min(next < count ? arrivals[next] : .max, fabric.nextMoment)
        fabric.advance(to: moment, arrived: &ended)
        for tag in ended { total += Double(moment - arrivals[Int(tag)]) / 1e9 }
        ended.removeAll()
        if next < count, arrivals[next] == moment {
            let hops = [LinkFabric.Hop(link: 0, bytes: 1e6, direction: .read)]
            fabric.start(hops.span, latency: 0, tag: UInt64(next), at: moment)
            next += 1
        }
    }
    return total / Double(count)
}

@Suite struct LinkTests {
    @Test(arguments: [0.3, 0.6, 0.8]) func firstInFirstOutWaitsAsMD1(load: Double) {
        let mean = meanSojourn(.fifo, load: load, count: 400_000, seed: 11)
        let expected = 1 + load / (2 * (1 - load))
        #expect((mean / expected - 1).magnitude < 0.03, "\(mean) against \(expected)")
    }

    @Test(arguments: [0.3, 0.6, 0.8]) func sharedLinkServesAsProcessorSharing(load: Double) {
        let mean = meanSojourn(.fair, load: load, count: 400_000, seed: 12)
        let expected = 1 / (1 - load)
        #expect((mean / expected - 1).magnitude < 0.03, "\(mean) against \(expected)")
    }

    @Test func sharedLinkAgreesWithServingInSmallSteps() {
        var random = RandomSource(seed: 5)
        for _ in 0..<20 {
            let count = 2 + random.below(12)
            var arrivals: [Double] = []
            var bytes: [Double] = []
            for _ in 0..<count {
                arrivals.append(Double(random.below(40)) / 10)
                bytes.append(Double(1 + random.below(30)) * 1e5)
            }
            arrivals.sort()
            let expected = naiveEnds(arrivals, bytes, rate: 1e6)
            let link = Link(name: "link 0", lineRate: 1e6, readRate: 1e6, writeRate: 1e6, discipline: .fair)
            var fabric = LinkFabric(links: [link], discipline: .fair)
            var ends = [Double](repeating: 0, count: count)
            var next = 0
            var ended: [UInt64] = []
            while next < count || fabric.activeCount > 0 {
                let arrival = next < count ? Int64(arrivals[next] * 1e9) : .max
                let moment = min(arrival, fabric.nextMoment)
                fabric.advance(to: moment, arrived: &ended)
                for tag in ended { ends[Int(tag)] = Double(moment) / 1e9 }
                ended.removeAll()
                if arrival == moment {
                    let hops = [LinkFabric.Hop(link: 0, bytes: bytes[next], direction: .read)]
                    fabric.start(hops.span, latency: 0, tag: UInt64(next), at: moment)
                    next += 1
                }
            }
            for index in 0..<count { #expect((ends[index] - expected[index]).magnitude < 0.02) }
            let moved = fabric.links[0].usage.bytes
            #expect((moved / bytes.reduce(0, +) - 1).magnitude < 1e-6)
        }
    }

    /// Ends of transfers on one shared link, served in steps of a millisecond.
    private func naiveEnds(_ arrivals: [Double], _ bytes: [Double], rate: Double) -> [Double] {
        var left = bytes
        var ends = [Double](repeating: 0, count: bytes.count)
        var time = 0.0
        while left.contains(where: { $0 > 0 }) {
            let active = left.indices.filter { left[$0] > 0 && arrivals[$0] <= time + 1e-9 }
            for index in active {
                left[index] -= rate * 0.001 / Double(active.count)
                if left[index] <= 0 { ends[index] = time + 0.001 }
            }
            time += 0.001
        }
        return ends
    }

    @Test func readsGoBeforeWrites() {
        let link = Link(name: "drive 0", lineRate: 1e6, readRate: 1e6, writeRate: 1e6, discipline: .fair)
        var fabric = LinkFabric(links: [link], discipline: .fair)
        let write = [LinkFabric.Hop(link: 0, bytes: 1e6, direction: .write)]
        let read = [LinkFabric.Hop(link: 0, bytes: 5e5, direction: .read)]
        fabric.start(write.span, latency: 0, tag: 1, at: 0)
        var ended: [UInt64] = []
        fabric.advance(to: 200_000_000, arrived: &ended)
        fabric.start(read.span, latency: 0, tag: 2, at: 200_000_000)
        fabric.advance(to: 700_000_001, arrived: &ended)
        #expect(ended == [2], "the read takes the whole drive for its half second")
        fabric.advance(to: 1_500_000_001, arrived: &ended)
        #expect(ended == [2, 1], "the write resumes where it was")
    }

    @Test(arguments: LinkDiscipline.allCases) func transferEndsWithTheSlowestLinkOfItsPath(discipline: LinkDiscipline) {
        let links = [2e6, 1e6, 4e6].enumerated().map {
            Link(name: "link \($0)", lineRate: $1, readRate: $1, writeRate: $1, discipline: discipline)
        }
        var fabric = LinkFabric(links: links, discipline: discipline)
        let hops = (0..<3).map { LinkFabric.Hop(link: Int32($0), bytes: 1e6, direction: .read) }
        fabric.start(hops.span, latency: 5_000, tag: 9, at: 0)
        var ended: [UInt64] = []
        fabric.advance(to: 1_000_000_000, arrived: &ended)
        #expect(ended.isEmpty)
        fabric.advance(to: 1_000_006_000, arrived: &ended)
        #expect(ended == [9])
    }

    @Test func usageFillsTheSecondsItSpans() {
        var usage = LinkUsage()
        usage.add(bytes: 300, from: 500_000_000, to: 3_500_000_000)
        #expect(usage.stretches.map { $0.rounded() } == [50, 100, 100, 50])
        #expect(usage.rates(from: 1_000_000_000, to: 5_000_000_000).map { $0.rounded() } == [100, 100, 50, 0])
        #expect(usage.bytes == 300)
    }

    @Test func usageOfYearsTakesNoMoreRoomThanThatOfDays() {
        var usage = LinkUsage()
        let second: Int64 = 1_000_000_000
        for time in [0, 5, 11, 86_400 * 365 * 50] as [Int64] {
            usage.add(bytes: 100, from: time * second, to: (time + 2) * second)
        }
        #expect(usage.stretches.count <= LinkUsage.stretchesMax && usage.width > 1)
        #expect(abs(usage.stretches.reduce(0, +) - 400) < 1e-6)
        #expect(usage.stretches[0] == 300)
        let rates = usage.rates(from: 0, to: 86_400 * 365 * 100 * second)
        #expect(rates.count <= LinkUsage.stretchesMax && rates[0] > 0)
    }
}

@Suite struct IndexedClockTests {
    @Test func agreesWithSortingAtEveryStep() {
        var random = RandomSource(seed: 3)
        var clock = IndexedClock(count: 12)
        var moments = [Int64](repeating: .max, count: 12)
        for _ in 0..<5000 {
            let actor = random.below(12)
            let moment = random.below(4) == 0 ? Int64.max : Int64(random.below(50))
            clock.set(actor, to: moment)
            moments[actor] = moment
            #expect(clock.earliest == moments.min())
            if clock.earliest != .max { #expect(clock.first == moments.firstIndex(of: clock.earliest)) }
        }
    }

    @Test func timersComeInOrderAndEqualOnesAsAdded() {
        var random = RandomSource(seed: 4)
        var queue = TimerQueue<Int>()
        var expected: [(moment: Int64, number: Int)] = []
        for number in 0..<2000 {
            let moment = Int64(random.below(100))
            queue.add(number, at: moment)
            expected.append((moment, number))
        }
        expected.sort { ($0.moment, $0.number) < ($1.moment, $1.number) }
        for entry in expected {
            #expect(queue.earliest == entry.moment)
            #expect(queue.removeFirst() == entry.number)
        }
        #expect(queue.count == 0)
    }
}
