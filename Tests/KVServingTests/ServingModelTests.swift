// Known answers of the serving model: parameter counts, KV sizes, FLOPs and times that were computed by hand or published.

import KVModel
import KVServing
import Testing

/// A model of the built-in catalogue on GPUs of the built-in catalogue.
func servingModel(
    _ model: String, on gpu: String, _ tensorParallel: Int, weights: NumberFormat = .fp8, kv: NumberFormat = .bf16,
    chunkTokens: Int = 8192
) throws -> ServingModel {
    let catalogue = Catalogue.builtIn
    return try ServingModel(
        catalogue.model(named: model), gpu: catalogue.gpu(named: gpu), tensorParallel: tensorParallel, weights: weights,
        kv: kv, engine: catalogue.engine(named: "vllm"), chunkTokens: chunkTokens)
}

private func isNear(_ value: Double, _ expected: Double, within share: Double) -> Bool {
    abs(value - expected) <= share * abs(expected)
}

@Suite struct ServingModelTests {
    /// Parameters in linear layers, in all, and KV bytes a token in bf16, as the models' authors state them.
    @Test(arguments: [
        ("Llama-3.1-8B", 6.98e9, 8.03e9, 131_072.0), ("Llama-3.1-70B", 68.45e9, 70.6e9, 327_680),
        ("Llama-3.1-405B", 401.65e9, 405.9e9, 516_096), ("Qwen2.5-72B", 70.21e9, 72.7e9, 327_680),
        ("Qwen3-8B", 6.95e9, 8.19e9, 147_456), ("Qwen3-32B", 31.21e9, 32.8e9, 262_144),
        ("Qwen3-30B-A3B", 2.73e9, 30.5e9, 98_304), ("Qwen3-235B-A22B", 20.95e9, 235e9, 192_512),
        ("gpt-oss-120b", 4.55e9, 116.8e9, 73_728), ("DeepSeek-V3", 35.70e9, 671e9, 70_272),
        ("Mistral-Large-2", 121.8e9, 122.6e9, 360_448),
    ])
    func shapesGiveThePublishedCounts(name: String, linear: Double, total: Double, kv: Double) throws {
        let shape = try Catalogue.builtIn.model(named: name)
        #expect(isNear(shape.linearParameters, linear, within: 0.002))
        #expect(isNear(shape.totalParameters, total, within: 0.002))
        #expect(shape.kvBytesPerToken(.bf16) == kv)
        #expect(shape.kvBytesPerToken(.fp8) == kv / 2)
    }

    @Test func droppedWindowsHalveTheStoredKVOfGptOss() throws {
        let shape = try Catalogue.builtIn.model(named: "gpt-oss-120b")
        #expect(shape.kvBytesPerToken(.bf16, dropsWindows: true) == 36_864)
    }

    @Test(arguments: [("Llama-3.1-70B", 4.05e16), ("Llama-3.1-8B", 6.33e15), ("Llama-3.1-405B", 1.76e17)])
    func prefillOf128KHasItsFLOPs(name: String, flops: Double) throws {
        let model = try servingModel(name, on: "B200", 8)
        #expect(isNear(model.prefillFLOPs(tokens: 131_072, after: 0), flops, within: 0.005))
    }

    @Test func linearLayersAre44PercentOfALlama70BPrefillOf128K() throws {
        let model = try servingModel("Llama-3.1-70B", on: "H100", 8)
        let share = 2 * model.shape.linearParameters * 131_072 / model.prefillFLOPs(tokens: 131_072, after: 0)
        #expect(isNear(share, 0.44, within: 0.01))
    }

    @Test func expandingLatentsAgainEveryChunkAddsFourPercent() throws {
        let model = try servingModel("DeepSeek-V3", on: "H200", 8)
        let once = model.prefillFLOPs(tokens: 131_072, after: 0)
        #expect(isNear(once, 5.23e16, within: 0.005))
        var chunked = 0.0
        for start in stride(from: 0, to: 131_072, by: 8192) {
            chunked += model.prefillFLOPs(tokens: 8192, after: start)
        }
        #expect(isNear(chunked / once, 1.04, within: 0.006))
    }

    @Test func flopsOfPartsAddUpToThoseOfTheWhole() throws {
        for name in ["Llama-3.1-8B", "gpt-oss-120b"] {
            let model = try servingModel(name, on: "H200", 4)
            var parts = 0.0
            for start in stride(from: 0, to: 4000, by: 50) { parts += model.prefillFLOPs(tokens: 50, after: start) }
            #expect(isNear(parts, model.prefillFLOPs(tokens: 4000, after: 0), within: 1e-12))
        }
    }

    @Test func windowedLayersSeeTheirWindowOnly() throws {
        let model = try servingModel("gpt-oss-120b", on: "H200", 4)
        // Past the window each further token adds the same work on 18 layers and growing work on the other 18.
        let perPair = 4.0 * 64 * 64
        let expected = 2 * model.shape.linearParameters + 18 * perPair * (10_000 + 0.5) + 18 * perPair * 128
        #expect(isNear(model.prefillFLOPs(tokens: 1, after: 10_000), expected, within: 1e-12))
    }

    @Test func llama70BOnEightH100HasItsTimes() throws {
        let model = try servingModel("Llama-3.1-70B", on: "H100", 8)
        #expect(isNear(model.prefillSeconds(tokens: 8192, after: 0), 0.30, within: 0.03))
        #expect(isNear(model.prefillSeconds(tokens: 131_072, after: 0), 8.5, within: 0.01))
        #expect(isNear(model.prefillSeconds(tokens: 2048, after: 129_024), 0.20, within: 0.03))
        #expect(isNear(model.decodeSeconds(sequences: 8, context: 8 * 131_072), 0.0236, within: 0.01))
    }

    @Test(arguments: [(312e12, 5.86e9), (989e12, 18.6e9)])
    func mooncakeEquation2IsReproduced(peak: Double, rate: Double) throws {
        let shape = try Catalogue.builtIn.model(named: "Llama-3-70B")
        let found = ServingModel.mooncakeBreakEvenRate(shape: shape, peakFLOPs: 8 * peak, prefix: 8192)
        #expect(isNear(found, rate, within: 0.003))
    }

    @Test func kvCapacityIsWhatTheWeightsLeave() throws {
        let model = try servingModel("Llama-3.1-70B", on: "H100", 8)
        let bytes = 80e9 * 8 * 0.9 - model.shape.totalParameters - 3.5e9 * 8
        #expect(model.kvCapacityTokens == Int(bytes / 327_680))
        // Latents are held whole by every GPU.
        let latent = try servingModel("DeepSeek-V3", on: "H200", 8)
        let left = 141e9 * 8 * 0.9 - latent.shape.totalParameters - 3.5e9 * 8
        #expect(latent.kvCapacityTokens == Int(left / (70_272 * 8)))
    }

    @Test func fp4WeightsWithoutFp4UnitsComputeAtTheBf16Rate() throws {
        let hopper = try servingModel("gpt-oss-120b", on: "H100", 4, weights: .fp4)
        #expect(hopper.peakFLOPs == 4 * 989e12)
        let blackwell = try servingModel("gpt-oss-120b", on: "B200", 4, weights: .fp4)
        #expect(blackwell.peakFLOPs == 4 * 9000e12)
    }

    @Test func aPrefillCostsItsPositionAndNeverLessThanNothing() throws {
        let model = try servingModel("Llama-3.1-70B", on: "H100", 8)
        let early = model.prefillSeconds(tokens: 512, after: 0)
        let late = model.prefillSeconds(tokens: 512, after: 100_000)
        #expect(late > early)
        #expect(model.prefillSeconds(tokens: 0, after: 100) == 0)
    }

    @Test func mixturesPayTheirFactorOnPrefillOnly() throws {
        let model = try servingModel("Qwen3-30B-A3B", on: "H100", 2)
        var load = PrefillLoad()
        load.add(tokens: 4096, after: 0, window: 0)
        let mixed = model.iterationSeconds(prefill: load, sequences: 16, context: 16_000)
        #expect(mixed.decodeOnly == model.decodeSeconds(sequences: 16, context: 16_000))
        #expect(mixed.total > mixed.decodeOnly)
        let alone = model.iterationSeconds(prefill: load, sequences: 0, context: 0)
        #expect(alone.decodeOnly == 0)
        #expect(alone.total == model.prefillSeconds(tokens: 4096, after: 0))
    }
}
