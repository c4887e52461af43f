// Generated traffic for the tests of the `holdfast` policy: templates of several skews, chat, loops, and traffic that
// changes its nature. Every pattern is decided by its seed.

import KVModel

/// Requests with their times; block numbers are dense and name whole prefixes.
struct HoldfastTraffic {
    var paths: [[BlockNumber]] = []
    var times: [Instant] = []
    private(set) var uniqueBlocks = 0
    private var random: RandomSource
    private var now = Instant.zero

    private init(seed: UInt64) { random = RandomSource(seed: seed) }

    private mutating func fresh(_ count: Int) -> [BlockNumber] {
        defer { uniqueBlocks += count }
        return (uniqueBlocks..<uniqueBlocks + count).map { BlockNumber($0) }
    }

    private mutating func add(_ path: [BlockNumber], at time: Instant) {
        guard !path.isEmpty else { return }
        paths.append(path)
        times.append(time)
    }

    private mutating func pass(mean seconds: Double) -> Instant {
        now = now + Duration(seconds: random.exponential(mean: seconds))
        return now
    }

    /// Cumulative shares of ranks 1…count under Zipf's law.
    private static func zipf(_ count: Int, skew: Double) -> [Double] {
        var sum = 0.0
        var shares: [Double] = []
        for rank in 1...count {
            sum += exponential(-skew * naturalLogarithm(Double(rank)))
            shares.append(sum)
        }
        return shares.map { $0 / sum }
    }

    private mutating func pick(_ shares: [Double]) -> Int {
        let draw = random.uniform()
        var low = 0
        var high = shares.count - 1
        while low < high {
            let middle = (low + high) / 2
            if shares[middle] > draw { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Prompts of `templates` templates of mean length 20, each with a suffix of its own. With `drift` above 0, every
    /// so many requests a twentieth of the templates change their popularity.
    static func templates(
        _ templates: Int, skew: Double, suffix: Double = 8, drift: Int = 0, requests: Int, seed: UInt64
    ) -> HoldfastTraffic {
        var traffic = HoldfastTraffic(seed: seed)
        let shares = zipf(templates, skew: skew)
        var prompts = (0..<templates).map { _ in traffic.fresh(1 + traffic.random.below(40)) }
        for request in 0..<requests {
            if drift > 0, request % drift == 0 {
                for _ in 0..<templates / 20 {
                    prompts.swapAt(traffic.random.below(templates), traffic.random.below(templates))
                }
            }
            let prompt = prompts[traffic.pick(shares)]
            let tail = traffic.fresh(Int(traffic.random.exponential(mean: suffix)))
            traffic.add(prompt + tail, at: traffic.pass(mean: 0.1))
        }
        return traffic
    }

    /// Conversations under one of 20 system prompts that go on after exponential pauses and may end at any turn: no
    /// class tells anything, and least recently used is all there is to know.
    static func chat(pause: Double, turns: Double, requests: Int, seed: UInt64) -> HoldfastTraffic {
        var traffic = HoldfastTraffic(seed: seed)
        let shares = zipf(20, skew: 1)
        let systems = (0..<20).map { _ in traffic.fresh(10) }
        // Conversations under way, in a wheel of tenths of seconds.
        var wheel: [Int: [(path: [BlockNumber], left: Int)]] = [:]
        var tick = 0
        while traffic.paths.count < requests {
            if traffic.random.uniform() < 1 / turns {
                let left = 1 + Int(traffic.random.exponential(mean: turns))
                wheel[tick, default: []].append((systems[traffic.pick(shares)], left))
            }
            for (path, left) in wheel.removeValue(forKey: tick) ?? [] {
                let longer = path + traffic.fresh(1 + Int(traffic.random.exponential(mean: 6)))
                traffic.add(longer, at: Instant(nanoseconds: Int64(tick) * 100_000_000))
                guard left > 1 else { continue }
                let wait = 20 + Int(traffic.random.exponential(mean: pause) * 10)
                wheel[tick + wait, default: []].append((longer, left - 1))
            }
            tick += 1
        }
        return traffic
    }

    /// Texts of 30 blocks that are asked about: each next question adds one block, or, two times in five, a second text of 20;
    /// after that nobody comes back, else nine times in ten.
    static func texts(requests: Int, seed: UInt64) -> HoldfastTraffic {
        var traffic = HoldfastTraffic(seed: seed)
        var wheel: [Int: [[BlockNumber]]] = [:]
        var tick = 0
        while traffic.paths.count < requests {
            for path in (wheel.removeValue(forKey: tick) ?? []) + [traffic.fresh(30)] {
                let leaps = path.count > 30 && traffic.random.uniform() < 0.4
                let longer = path + traffic.fresh(leaps ? 20 : 1)
                traffic.add(longer, at: Instant(nanoseconds: Int64(tick) * 1_000_000_000))
                guard !leaps, traffic.random.uniform() < 0.9 else { continue }
                wheel[tick + 1 + Int(traffic.random.exponential(mean: 60)), default: []].append(longer)
            }
            tick += 1
        }
        return traffic
    }

    /// The same prompts round and round.
    static func loop(prompts: Int, requests: Int, seed: UInt64) -> HoldfastTraffic {
        var traffic = HoldfastTraffic(seed: seed)
        let all = (0..<prompts).map { _ in traffic.fresh(20) }
        for request in 0..<requests { traffic.add(all[request % prompts], at: traffic.pass(mean: 0.1)) }
        return traffic
    }

    /// Popular templates, then a loop, then recency, each for `phase` requests, over and over.
    static func phases(of phase: Int, requests: Int, seed: UInt64) -> HoldfastTraffic {
        var traffic = HoldfastTraffic(seed: seed)
        let shares = zipf(500, skew: 1)
        let templates = (0..<500).map { _ in traffic.fresh(20) }
        let loop = (0..<150).map { _ in traffic.fresh(20) }
        var recent: [[BlockNumber]] = []
        for request in 0..<requests {
            let time = traffic.pass(mean: 0.1)
            switch request / phase % 3 {
            case 0: traffic.add(templates[traffic.pick(shares)] + traffic.fresh(5), at: time)
            case 1: traffic.add(loop[request % 150], at: time)
            default:
                let depth = Int(traffic.random.exponential(mean: 80))
                let isAgain = depth < recent.count && traffic.random.uniform() < 0.8
                let path = isAgain ? recent.remove(at: recent.count - 1 - depth) : traffic.fresh(20)
                recent.append(path)
                traffic.add(path, at: time)
            }
        }
        return traffic
    }
}
