// Randomness that is given, never taken: a seed decides every draw, on every machine.
// No draw uses the C mathematics library, whose last digit differs between machines.

/// A seeded generator of uniform bits: xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number
/// generators", ACM TOMS 2021), its state filled by SplitMix64.
public struct RandomSource: RandomNumberGenerator, Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    /// A generator whose draws are decided by `seed` alone.
    public init(seed: UInt64) {
        var word = seed
        func next() -> UInt64 {
            word &+= 0x9E37_79B9_7F4A_7C15
            return mixBits(word)
        }
        state = (next(), next(), next(), next())
    }

    /// The next 64 bits.
    public mutating func next() -> UInt64 {
        let scrambled = rotateLeft(state.1 &* 5, 7) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = rotateLeft(state.3, 45)
        return scrambled
    }

    /// A uniform draw from [0, 1), with 53 random bits.
    public mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// A uniform whole number from 0 to `bound` − 1. `bound` must be above 0. The bias is below 2⁻³² for bounds
    /// below 2³² (multiply-shift).
    public mutating func below(_ bound: Int) -> Int {
        precondition(bound > 0, "a draw below zero or less")
        return Int(next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// An exponential draw with the given mean: the gap between arrivals of a Poisson process.
    public mutating func exponential(mean: Double) -> Double { -mean * naturalLogarithm(1 - uniform()) }

    /// A draw from the standard normal distribution (Marsaglia's polar method).
    public mutating func normal() -> Double {
        while true {
            let x = 2 * uniform() - 1
            let y = 2 * uniform() - 1
            let radius = x * x + y * y
            if radius > 0, radius < 1 { return x * (-2 * naturalLogarithm(radius) / radius).squareRoot() }
        }
    }
}

@inline(__always)
private func rotateLeft(_ word: UInt64, _ count: UInt64) -> UInt64 { (word << count) | (word >> (64 - count)) }

/// The natural logarithm of a positive finite number by + − × ÷ alone, so that every machine gives the same bits.
/// Error below 1e−15 relative to the result, absolute near 1.
///
/// x = m·2^e with m in [√½, √2); ln x = e·ln 2 + 2·(t + t³/3 + t⁵/5 + …), t = (m − 1)/(m + 1), |t| ≤ 0.172.
public func naturalLogarithm(_ value: Double) -> Double {
    precondition(value > 0, "logarithm of a number that is not positive")
    precondition(value.isFinite, "logarithm of infinity")
    var exponent = Double(value.exponent)
    var mantissa = value.significand
    if mantissa > 1.414_213_562_373_095_1 {
        mantissa /= 2
        exponent += 1
    }
    let t = (mantissa - 1) / (mantissa + 1)
    let square = t * t
    var sum = 0.0
    var order = 23.0
    while order >= 1 {
        sum = sum * square + 1 / order
        order -= 2
    }
    return exponent * 0.693_147_180_559_945_3 + 2 * t * sum
}

/// e to the power of a finite number by + − × ÷ alone, so that every machine gives the same bits. Results too small
/// or too large for a double are 0 and infinity.
public func exponential(_ value: Double) -> Double {
    let halvings = (value / 0.693_147_180_559_945_3).rounded()
    if halvings < -1080 { return 0 }
    if halvings > 1030 { return .infinity }
    let rest = (value - halvings * 0.693_147_180_369_123_8) - halvings * 1.908_214_929_270_587_7e-10
    var sum = 1.0
    var order = 18.0
    while order >= 1 {
        sum = 1 + rest / order * sum
        order -= 1
    }
    let half = Int(halvings) / 2
    return sum * powerOfTwo(half) * powerOfTwo(Int(halvings) - half)
}

private func powerOfTwo(_ exponent: Int) -> Double { Double(sign: .plus, exponent: exponent, significand: 1) }
