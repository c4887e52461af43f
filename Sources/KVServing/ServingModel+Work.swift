// The serving model's floating-point work, for shares of an iteration and for model FLOPs utilization.

extension ServingModel {
    /// FLOPs of tokens `start` to `start + count` of a prompt: 2·Plin·q + Fattn(q, p), without the output head.
    ///
    /// `expandingLatents` adds what latent attention spends on expanding the `start` cached latents again.
    public func prefillFLOPs(tokens count: Int, after start: Int, expandingLatents: Bool = true) -> Double {
        var load = PrefillLoad()
        load.add(tokens: count, after: start, window: window)
        let attention = load.pairs * flopsPerPair + load.windowPairs * windowFLOPsPerPair
        let expansion = expandingLatents ? Double(start) * expansionFLOPsPerToken : 0
        return 2 * shape.linearParameters * Double(count) + attention + expansion
    }

    /// FLOPs of one decode step of `sequences` sequences that attend to `context` tokens in all, output head included.
    public func decodeFLOPs(sequences: Int, context: Double) -> Double {
        let b = Double(sequences)
        let windowed = window > 0 ? min(context, b * Double(window)) : 0
        // With latent attention a decode works on the latents themselves: rank + rope for the scores, rank for the sum.
        let perToken =
            shape.latent.map { Double(shape.layers * shape.attentionHeads * 2 * (2 * $0.rank + $0.ropeSize)) }
            ?? flopsPerPair
        return b * 2 * (shape.linearParameters + shape.headParameters) + context * perToken
            + windowed * windowFLOPsPerPair
    }

    /// FLOPs of the output head for one sequence that emits a token.
    public var headFLOPs: Double { 2 * shape.headParameters }

    /// The least load rate at which fetching a prefix of `prefix` tokens beats computing it, by the simplified form of
    /// Mooncake (FAST 2025) eq. 2: all GPUs at their peak, attention not causal. With `attention` = 4 and `linear` = 22
    /// FLOPs per token pair and width, and per token and width squared. Bytes per second; only a check of arithmetic.
    public static func mooncakeBreakEvenRate(
        shape: ModelShape, peakFLOPs: Double, prefix: Int, attention: Double = 4, linear: Double = 22
    ) -> Double {
        let d = Double(shape.hiddenSize)
        let groups = Double(shape.attentionHeads) / Double(shape.kvHeads)
        return 2 * d * 2 / groups / (attention * d * Double(prefix) + linear * d * d) * peakFLOPs
    }
}
