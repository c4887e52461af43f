// A GPU and an inference engine as the catalogue describes them.

/// What the serving model needs to know of one GPU. Rates are decimal, dense, one direction.
public struct GPU: Sendable, Equatable {
    /// Its name in the catalogue.
    public var name: String
    /// Other names for it.
    public var aliases: [String]
    /// Where the figures come from, and which of them are assumed.
    public var source: String
    /// Peak FLOP/s by weight type; a missing type computes at the bf16 rate.
    public var peakFLOPs: [NumberFormat: Double]
    /// Bytes of memory.
    public var memoryBytes: Double
    /// Bytes per second of that memory.
    public var memoryBytesPerSecond: Double
    /// Share of the peak that large matrix products reach (ηc).
    public var linearEfficiency: [NumberFormat: Double]
    /// Share of the memory's rate that small products reach (ηm).
    public var memoryEfficiency: [NumberFormat: Double]
    /// Share of the bf16 peak that causal attention reaches (ηa).
    public var attentionEfficiency: Double
    /// Share of the memory's rate that decode attention reaches (ηkv).
    public var kvReadEfficiency: Double
    /// Rate of a large all-reduce, by number of GPUs.
    public var allReduceBytesPerSecond: [Int: Double]
    /// Seconds of a small all-reduce (α).
    public var allReduceLatencySeconds: Double
    /// Bytes per second to the host, each way, as reached.
    public var hostLinkBytesPerSecond: Double
    /// Bytes per second of the usual NIC, each way, line rate.
    public var nicBytesPerSecond: Double
    /// Board power.
    public var watts: Double
    /// Lowest and highest public price of an hour, or nil.
    public var dollarsPerHour: PriceRange?

    /// The lowest and the highest of a spread of prices.
    public struct PriceRange: Sendable, Equatable {
        /// The lowest.
        public var low: Double
        /// The highest.
        public var high: Double
    }

    /// The type that products with such weights are computed in: the weights' own, or bf16 where the GPU has no units for it.
    public func computeFormat(for weights: NumberFormat) -> NumberFormat { peakFLOPs[weights] == nil ? .bf16 : weights }
}

/// What an iteration of an inference engine costs besides physics, and what memory it takes.
public struct EngineConstants: Sendable, Equatable {
    /// Its name in the catalogue.
    public var name: String
    /// Other names for it.
    public var aliases: [String]
    /// Where the figures come from.
    public var source: String
    /// Seconds per iteration.
    public var stepSeconds: Double
    /// Seconds per layer of an iteration.
    public var layerSeconds: Double
    /// Seconds per decoding sequence of an iteration.
    public var sequenceSeconds: Double
    /// Measured prefill over modelled prefill, for mixtures of experts.
    public var expertPrefillFactor: Double
    /// The same for mixtures of experts with latent attention.
    public var latentPrefillFactor: Double
    /// Share of GPU memory that the engine takes.
    public var memoryShare: Double
    /// Bytes per GPU for activations and graphs.
    public var reservedBytes: Double
    /// Seconds that a client sees besides the engine, once a request (HTTP, tokenizer, hand-off).
    public var requestSeconds: Double
}
