// The shape of a model as its configuration file gives it, and the figures that follow from it.

/// A transformer's shape, and the parameter counts and sizes derived from it.
///
/// Derived counts leave out norms, biases and expert scores' biases: less than 0.1 % of any model here.
public struct ModelShape: Sendable, Equatable {
    /// Its name in the catalogue.
    public var name: String
    /// Other names for it.
    public var aliases: [String]
    /// Where the figures come from.
    public var source: String
    /// Transformer layers (L).
    public var layers: Int
    /// Width of the residual stream (d).
    public var hiddenSize: Int
    /// Query heads (H).
    public var attentionHeads: Int
    /// Numbers in one head (dh).
    public var headSize: Int
    /// Key and value heads (Hkv); of no meaning with latent attention.
    public var kvHeads: Int
    /// Width of the gated feed-forward layers; 0 where every layer is a mixture of experts.
    public var feedForwardSize: Int
    /// Tokens in the vocabulary (V).
    public var vocabulary: Int
    /// Whether the output head shares the embedding's weights.
    public var tiedEmbeddings: Bool
    /// The mixture of experts, or nil for a dense model.
    public var experts: Experts?
    /// Multi-head latent attention, or nil for grouped-query attention.
    public var latent: LatentAttention?
    /// The layers that attend to a window only, or nil.
    public var window: SlidingWindow?

    /// Routed and shared experts.
    public struct Experts: Sendable, Equatable {
        /// Routed experts a layer (E).
        public var count: Int
        /// Routed experts a token passes through (k).
        public var perToken: Int
        /// Experts that every token passes through.
        public var shared: Int
        /// Width of one expert.
        public var feedForwardSize: Int
        /// The first layers, which are dense.
        public var denseLayers: Int
    }

    /// Keys and values compressed into one latent vector a token (DeepSeek-V2, 2024).
    public struct LatentAttention: Sendable, Equatable {
        /// Numbers in the latent vector.
        public var rank: Int
        /// Numbers in the queries' latent vector.
        public var queryRank: Int
        /// Numbers of a head that carry position.
        public var ropeSize: Int
        /// Numbers of a head that do not.
        public var plainHeadSize: Int
        /// Numbers of a value head.
        public var valueHeadSize: Int
    }

    /// Layers that attend to the last tokens only.
    public struct SlidingWindow: Sendable, Equatable {
        /// Tokens a windowed layer attends to.
        public var tokens: Int
        /// How many layers are windowed.
        public var layers: Int
    }
}

extension ModelShape {
    /// Whether feed-forward layers are mixtures of experts.
    public var isMixtureOfExperts: Bool { experts != nil }

    /// Parameters of the attention projections of one layer.
    private var attentionParameters: Double {
        let d = Double(hiddenSize)
        let heads = Double(attentionHeads)
        if let latent {
            let head = Double(latent.plainHeadSize + latent.ropeSize)
            let values = Double(latent.valueHeadSize)
            let queries = Double(latent.queryRank) * (d + heads * head)
            let latents = d * Double(latent.rank + latent.ropeSize)
            let expansion = Double(latent.rank) * heads * (Double(latent.plainHeadSize) + values)
            return queries + latents + expansion + heads * values * d
        }
        return 2 * d * Double(headSize) * (heads + Double(kvHeads))
    }

    /// Parameters of one routed expert of each layer, summed over layers (Pexp); 0 for a dense model.
    public var expertParameters: Double {
        guard let experts else { return 0 }
        return Double(layers - experts.denseLayers) * 3 * Double(hiddenSize) * Double(experts.feedForwardSize)
    }

    /// Parameters in linear layers that every token is multiplied by (Pdense): attention projections, dense
    /// feed-forward layers, shared experts and routers. Without embedding and output head.
    public var denseParameters: Double {
        let d = Double(hiddenSize)
        var sum = Double(layers) * attentionParameters
        guard let experts else { return sum + Double(layers) * 3 * d * Double(feedForwardSize) }
        sum += Double(experts.denseLayers) * 3 * d * Double(feedForwardSize)
        sum += expertParameters * Double(experts.shared)
        return sum + Double(layers - experts.denseLayers) * d * Double(experts.count)
    }

    /// Parameters multiplied per token in linear layers (Plin), routed experts counted as often as a token uses them.
    public var linearParameters: Double { denseParameters + expertParameters * Double(experts?.perToken ?? 0) }

    /// Parameters of the output head (V·d).
    public var headParameters: Double { Double(vocabulary) * Double(hiddenSize) }

    /// All parameters (Wtot).
    public var totalParameters: Double {
        denseParameters + expertParameters * Double(experts?.count ?? 0) + headParameters * (tiedEmbeddings ? 1 : 2)
    }

    /// Numbers of KV that one layer stores for one token.
    public var kvNumbersPerLayer: Int {
        if let latent { latent.rank + latent.ropeSize } else { 2 * kvHeads * headSize }
    }

    /// KV bytes of one token over all layers: 2·L·Hkv·dh·s, or L·(rank + rope)·s with latent attention. Layers with a
    /// window are counted like the others unless the engine drops what leaves the window.
    public func kvBytesPerToken(_ format: NumberFormat, dropsWindows: Bool = false) -> Double {
        let counted = layers - (dropsWindows ? window?.layers ?? 0 : 0)
        return Double(counted) * Double(kvNumbersPerLayer) * format.bytes
    }

    /// How many of `gpus` GPUs hold the same KV: heads cannot be split finer than one a GPU, latents not at all.
    public func kvReplication(tensorParallel gpus: Int) -> Double {
        latent != nil ? Double(gpus) : max(1, Double(gpus) / Double(kvHeads))
    }
}
