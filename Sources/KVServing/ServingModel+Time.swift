// The serving model's times: one iteration, a prefill alone, and where loading KV begins to beat computing it.

/// The prefill chunks of one iteration, added up.
public struct PrefillLoad: Sendable, Equatable {
    /// Tokens computed (Σq).
    public var tokens = 0
    /// Chunks.
    public var chunks = 0
    /// Query and key pairs of causal attention, Σ(q·p + q²/2).
    public var pairs = 0.0
    /// The same, within the sliding window.
    public var windowPairs = 0.0
    /// Cached tokens before each chunk (Σp), which latent attention expands again.
    public var cachedTokens = 0

    /// No prefill.
    public init() {}

    /// Adds a chunk of `count` tokens after `start` cached ones. `window` is the model's sliding window, 0 for none.
    public mutating func add(tokens count: Int, after start: Int, window: Int) {
        let q = Double(count)
        tokens += count
        chunks += 1
        pairs += q * Double(start) + q * q / 2
        cachedTokens += start
        if window > 0 { windowPairs += Self.windowPairs(count, after: start, window: window) }
    }

    /// Σ min(position, window) over the chunk's tokens.
    static func windowPairs(_ count: Int, after start: Int, window: Int) -> Double {
        let growing = Double(max(0, min(count, window - start)))
        return growing * Double(start) + growing * growing / 2 + (Double(count) - growing) * Double(window)
    }
}

/// The time of an iteration, and that of the same iteration without its prefill.
public struct IterationSeconds: Sendable, Equatable {
    /// All of it.
    public var total: Double
    /// What its decodes alone would have taken; 0 if nothing decodes.
    public var decodeOnly: Double

    /// A total and the decodes' part of it.
    public init(total: Double, decodeOnly: Double) {
        self.total = total
        self.decodeOnly = decodeOnly
    }
}

extension ServingModel {
    /// The model's sliding window in tokens, 0 for none.
    public var window: Int { shape.window?.tokens ?? 0 }

    /// Seconds of one decode step of `sequences` sequences that attend to `context` tokens in all.
    public func decodeSeconds(sequences: Int, context: Double) -> Double {
        sequences == 0 ? 0 : unscaledSeconds(PrefillLoad(), Double(sequences), context)
    }

    /// Seconds of an iteration of prefill chunks and `sequences` decodes that attend to `context` tokens in all.
    public func iterationSeconds(
        prefill: PrefillLoad, sequences: Int, context: Double
    ) -> IterationSeconds {
        let decode = decodeSeconds(sequences: sequences, context: context)
        if prefill.chunks == 0 { return IterationSeconds(total: decode, decodeOnly: decode) }
        let whole = unscaledSeconds(prefill, Double(sequences), context)
        return IterationSeconds(total: decode + prefillFactor * (whole - decode), decodeOnly: decode)
    }

    /// The sum of an iteration's terms, before the factor for measured prefill.
    private func unscaledSeconds(_ prefill: PrefillLoad, _ sequences: Double, _ context: Double) -> Double {
        let rows = sequences + Double(prefill.tokens)
        var compute = linearPerToken * rows + headPerSequence * (sequences + Double(prefill.chunks))
        var memory = denseWeights + activationsPerToken * rows
        if untouchedExperts > 0 {
            // Few rows per expert fill no matrix unit.
            let slowdown = 1 + Self.expertRowsOfFullRate / (rows * rowsPerExpert)
            compute += expertsPerToken * rows * min(Self.expertSlowdownMax, slowdown)
            memory += expertWeights * (1 - power(untouchedExperts, rows))
        }
        let windowed = window > 0 ? min(context, sequences * Double(window)) : 0
        let attention =
            prefill.pairs * attentionPerPair + prefill.windowPairs * windowAttentionPerPair
            + Double(prefill.cachedTokens) * expansionPerToken + context * kvReadPerToken
            + windowed * windowReadPerToken
        return fourthNorm(compute, memory) + attention + communicationPerToken * rows
            + engine.sequenceSeconds * sequences + fixed
    }

    /// Seconds to compute tokens `start` to `start + count` alone on the replica, chunk by chunk.
    public func prefillSeconds(tokens count: Int, after start: Int) -> Double {
        var seconds = 0.0
        var done = 0
        while done < count {
            let chunk = min(count - done, chunkTokens)
            var load = PrefillLoad()
            load.add(tokens: chunk, after: start + done, window: window)
            seconds += iterationSeconds(prefill: load, sequences: 0, context: 0).total
            done += chunk
        }
        return seconds
    }
}

/// (x⁴ + y⁴)^¼: close to the larger of the two, a fifth above it where they are equal.
@inline(__always)
private func fourthNorm(_ x: Double, _ y: Double) -> Double {
    let xx = x * x
    let yy = y * y
    return (xx * xx + yy * yy).squareRoot().squareRoot()
}

/// A base in (0, 1) to the power of a whole number, by squaring.
private func power(_ base: Double, _ exponent: Double) -> Double {
    var result = 1.0
    var square = base
    var rest = Int(exponent)
    while rest > 0 {
        if rest & 1 == 1 { result *= square }
        square *= square
        // Once the square is this small, every power that is left is nothing beside 1.
        if square < 1e-300 { return rest > 1 ? 0 : result }
        rest >>= 1
    }
    return result
}
