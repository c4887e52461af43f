// How long an iteration of an inference engine takes, from the model's shape and the GPU's constants.
// Arithmetic only, + − × ÷ √: the same bits on every machine. Not a simulator of kernels; its error class is stated.

import KVModel

/// The analytic time of prefill and decode on one replica: the `tensorParallel` GPUs that serve one copy of a model.
///
/// An iteration holds prefill chunks (q tokens after p cached ones each) and b decoding sequences that attend to C
/// tokens in all; M = b + Σq. Its time is
///
///     T    = (tc⁴ + tm⁴)^¼ + Tattn + Tcomm + tStep + tLayer·L
///     tc   = (2·Pdense·M + 2·V·d·(b + chunks)) / Pc + 2·Pexp·k·M / Pc · min(4, 1 + 300·E/(M·k))
///     tm   = (wb·(Pdense + Pexp·E·(1 − (1 − k/E)^M)) + 2·V·d + 20·M·L·d) / Pm
///     Tattn = Σ Fattn(q, p) / Pa + C·kvB / Pkv
///     Tcomm = 2·L·(α + 2·M·d / allReduceRate), with more than one GPU
///
/// with Pc, Pm, Pa, Pkv the reached rates of all GPUs together. Where prefill runs on a mixture of experts, what it
/// adds to the iteration is multiplied by the engine's measured factor. FLOPs as in Mooncake (FAST 2025) eq. 1, with the causal half and the true feed-forward width.
///
/// A class, and all of it constant: it is some 700 bytes with lists in it, and a struct of that size would be copied for each
/// iteration that asks it for a time.
public final class ServingModel: Sendable {
    /// Bytes of activations that go through memory for a token, a layer and a hidden unit: what projections and feed-forward
    /// write and read again in two-byte numbers. Fitted with the rest of the model.
    static let activationBytes = 20.0
    /// Rows of a batch from which on an expert's matrices run at full rate, and by how much fewer rows can slow them. Fitted
    /// to mixtures of experts on H100.
    static let expertRowsOfFullRate = 300.0
    /// See `expertRowsOfFullRate`.
    static let expertSlowdownMax = 4.0

    /// The model served.
    public let shape: ModelShape
    /// The GPU of the replica.
    public let gpu: GPU
    /// GPUs in the replica.
    public let tensorParallel: Int
    /// Format of the weights.
    public let weights: NumberFormat
    /// Format of the KV.
    public let kv: NumberFormat
    /// The engine's constants.
    public let engine: EngineConstants
    /// Largest prefill chunk of one iteration, in tokens.
    public let chunkTokens: Int
    /// KV bytes of one token over all layers.
    public let kvBytesPerToken: Double
    /// Tokens of KV that fit beside the weights; always above 0.
    public let kvCapacityTokens: Int
    /// Peak FLOP/s of the whole replica in the type that linear layers are computed in.
    public let peakFLOPs: Double

    // Seconds per unit of work.
    let linearPerToken: Double
    let headPerSequence: Double
    let expertsPerToken: Double
    let denseWeights: Double
    let expertWeights: Double
    let activationsPerToken: Double
    let attentionPerPair: Double
    let windowAttentionPerPair: Double
    let expansionPerToken: Double
    let kvReadPerToken: Double
    let windowReadPerToken: Double
    let communicationPerToken: Double
    /// Communication latency and the engine's own time of one iteration.
    let fixed: Double
    /// Measured prefill over modelled prefill.
    let prefillFactor: Double
    /// Share of experts that one token leaves untouched; 0 for a dense model.
    let untouchedExperts: Double
    /// Rows per expert and token (k/E); 0 for a dense model.
    let rowsPerExpert: Double

    // FLOPs per unit of work.
    let flopsPerPair: Double
    let windowFLOPsPerPair: Double
    let expansionFLOPsPerToken: Double

    /// A model on GPUs. Throws where the GPU has no all-reduce rate for so many GPUs, or the weights leave no room for KV.
    ///
    /// `dropsWindows`: the engine frees KV that has left a sliding window.
    public init(
        _ shape: ModelShape, gpu: GPU, tensorParallel: Int, weights: NumberFormat, kv: NumberFormat,
        engine: EngineConstants, chunkTokens: Int = 8192, dropsWindows: Bool = false
    ) throws(OperatorError) {
        guard chunkTokens >= 1 else {
            throw OperatorError("a prefill chunk of \(chunkTokens) tokens", remedy: "at least 1")
        }
        let allReduce = try Self.allReduceRate(gpu, tensorParallel)
        let gpus = Double(tensorParallel)
        let format = gpu.computeFormat(for: weights)
        let replication = shape.kvReplication(tensorParallel: tensorParallel)
        let kvBytes = shape.kvBytesPerToken(kv, dropsWindows: dropsWindows)
        let capacity =
            (gpu.memoryBytes * gpus * engine.memoryShare - weights.bytes * shape.totalParameters
                - engine.reservedBytes * gpus) / (kvBytes * replication)
        guard capacity >= 1 else {
            throw OperatorError(
                "\(shape.name) with \(weights.rawValue) weights leaves no room for KV on \(tensorParallel) × \(gpu.name)",
                remedy: "more GPUs per replica or smaller weights")
        }
        self.shape = shape
        self.gpu = gpu
        self.tensorParallel = tensorParallel
        self.weights = weights
        self.kv = kv
        self.engine = engine
        self.chunkTokens = chunkTokens
        kvBytesPerToken = kvBytes
        kvCapacityTokens = Int(capacity)

        let bf16 = gpu.peakFLOPs[.bf16] ?? 0
        peakFLOPs = gpus * (gpu.peakFLOPs[format] ?? bf16)
        let computeRate = peakFLOPs * (gpu.linearEfficiency[format] ?? 1)
        let memory = gpus * gpu.memoryBytesPerSecond
        let memoryRate = memory * (gpu.memoryEfficiency[weights] ?? gpu.memoryEfficiency[.bf16] ?? 1)
        let attentionRate = gpus * bf16 * gpu.attentionEfficiency
        let kvRate = memory * gpu.kvReadEfficiency / replication

        let layers = Double(shape.layers)
        let windowLayers = Double(shape.window?.layers ?? 0)
        let d = Double(shape.hiddenSize)
        let headFLOPs = 2 * shape.headParameters
        linearPerToken = 2 * shape.denseParameters / computeRate
        headPerSequence = headFLOPs / computeRate
        let perToken = Double(shape.experts?.perToken ?? 0)
        let experts = Double(shape.experts?.count ?? 1)
        expertsPerToken = 2 * shape.expertParameters * perToken / computeRate
        denseWeights = (weights.bytes * shape.denseParameters + 2 * shape.headParameters) / memoryRate
        expertWeights = weights.bytes * shape.expertParameters * experts / memoryRate
        rowsPerExpert = perToken / experts
        untouchedExperts = shape.isMixtureOfExperts ? 1 - rowsPerExpert : 0
        activationsPerToken = Self.activationBytes * layers * d / memoryRate

        let heads = Double(shape.attentionHeads)
        if let latent = shape.latent {
            let head = Double(latent.plainHeadSize + latent.ropeSize + latent.valueHeadSize)
            flopsPerPair = layers * 2 * heads * head
            windowFLOPsPerPair = 0
            expansionFLOPsPerToken =
                layers * 2 * Double(latent.rank) * heads * Double(latent.plainHeadSize + latent.valueHeadSize)
        } else {
            let layerFLOPs = 4 * heads * Double(shape.headSize)
            flopsPerPair = layerFLOPs * (layers - windowLayers)
            windowFLOPsPerPair = layerFLOPs * windowLayers
            expansionFLOPsPerToken = 0
        }
        attentionPerPair = flopsPerPair / attentionRate
        windowAttentionPerPair = windowFLOPsPerPair / attentionRate
        expansionPerToken = expansionFLOPsPerToken / attentionRate
        let layerKV = Double(shape.kvNumbersPerLayer) * kv.bytes
        kvReadPerToken = (layers - windowLayers) * layerKV / kvRate
        windowReadPerToken = windowLayers * layerKV / kvRate
        communicationPerToken = tensorParallel > 1 ? 2 * layers * 2 * d / allReduce : 0
        let latency = tensorParallel > 1 ? 2 * layers * gpu.allReduceLatencySeconds : 0
        fixed = latency + engine.stepSeconds + engine.layerSeconds * layers
        prefillFactor =
            !shape.isMixtureOfExperts
            ? 1 : shape.latent == nil ? engine.expertPrefillFactor : engine.latentPrefillFactor
    }

    private static func allReduceRate(_ gpu: GPU, _ gpus: Int) throws(OperatorError) -> Double {
        guard gpus >= 1 else { throw OperatorError("a replica of \(gpus) GPUs", remedy: "at least 1") }
        if gpus == 1 { return .infinity }
        if let rate = gpu.allReduceBytesPerSecond[gpus] { return rate }
        let known = ([1] + gpu.allReduceBytesPerSecond.keys.sorted()).map(String.init).joined(separator: ", ")
        throw OperatorError(
            "no all-reduce rate for \(gpus) × \(gpu.name)",
            remedy: "known numbers of GPUs: \(known); others come from a catalogue file (allReduceBytesPerSecond)")
    }
}
