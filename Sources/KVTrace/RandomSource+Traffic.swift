// Draws from the distributions that traffic is made of, by + − × ÷ √ alone.

import KVModel

extension RandomSource {
    /// A log-normal draw, rounded to whole tokens, at least 1 and at most `limit`.
    mutating func tokens(_ distribution: LogNormal, limit: Int = Int(Int32.max)) -> Int {
        let value = logNormal(distribution)
        return value >= Double(limit) ? limit : max(1, Int(value.rounded()))
    }

    /// A log-normal draw.
    mutating func logNormal(_ distribution: LogNormal) -> Double {
        distribution.median * KVModel.exponential(distribution.spread * normal())
    }

    /// Whether an event of that probability happens.
    mutating func happens(_ probability: Double) -> Bool { uniform() < probability }

    /// A draw from the gamma distribution with that shape and mean (Marsaglia and Tsang, "A simple method for
    /// generating gamma variables", ACM TOMS 2000).
    mutating func gamma(shape: Double, mean: Double) -> Double {
        if shape < 1 {
            // Γ(a) = Γ(a + 1) · U^(1/a); the means of both are a and a + 1 scales.
            let scale = mean / shape
            let larger = gamma(shape: shape + 1, mean: (shape + 1) * scale)
            return larger * KVModel.exponential(naturalLogarithm(1 - uniform()) / shape)
        }
        let d = shape - 1.0 / 3
        let c = 1 / (9 * d).squareRoot()
        while true {
            let x = normal()
            let cube = 1 + c * x
            if cube <= 0 { continue }
            let v = cube * cube * cube
            if naturalLogarithm(1 - uniform()) < 0.5 * x * x + d - d * v + d * naturalLogarithm(v) {
                return d * v * mean / shape
            }
        }
    }
}

/// Items whose popularity falls with their rank: item i is drawn in proportion to (i + 1)^−skew.
struct ZipfChoice: Sendable {
    private let cumulative: [Double]

    init(count: Int, skew: Double) {
        precondition(count > 0, "a choice among nothing")
        var sum = 0.0
        cumulative = (0..<count).map { index in
            sum += exponential(-skew * naturalLogarithm(Double(index + 1)))
            return sum
        }
    }

    func draw(_ random: inout RandomSource) -> Int {
        let target = random.uniform() * cumulative[cumulative.count - 1]
        var low = 0
        var high = cumulative.count - 1
        while low < high {
            let middle = (low + high) / 2
            if cumulative[middle] > target { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
