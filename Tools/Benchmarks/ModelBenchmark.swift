// The serving model and its batching replica: an iteration's time, and a request's way through a replica, against bounds;
// decode runs against the same replica taking single steps.

import KVModel
import KVServing

struct ModelBenchmark: Benchmark {
    let name = "model"
    let purpose = "serving model and batching replica: time an iteration and a request"

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let catalogue = Catalogue.builtIn
        let model = try ServingModel(
            catalogue.model(named: "Llama-3.1-70B"), gpu: catalogue.gpu(named: "H100"), tensorParallel: 8,
            weights: .fp8, kv: .bf16, engine: catalogue.engine(named: "vllm"))
        let measured = (0..<setting.pairCount).map { _ in iterationNanoseconds(model) }
        let load = ReplicaLoad(requests: 20_000, model: model)
        let runs = PairedRuns(count: setting.pairCount) {
            seconds { keep(load.run(stepsMax: 64)) } / Double(load.lengths.count) * 1e6
        } reference: {
            seconds { keep(load.run(stepsMax: 1)) } / Double(load.lengths.count) * 1e6
        }
        let wholes = (0..<setting.pairCount).map { _ in
            seconds { keep(load.run(stepsMax: 64)) } / Double(load.lengths.count) * 1e6
        }
        let conditions =
            "\(load.lengths.count) requests, mean 12,000 tokens in and 343 out, Poisson at 0.7 of capacity, one replica "
            + "of 8 H100 with Llama-3.1-70B, KV in blocks of 512, processor time of one core"
        return [
            boundRow(
                name: "model iteration", unit: "ns", measured: measured, bound: 100, boundName: "the bound",
                conditions: "prefill chunk and 32 decodes, time with and without the chunk; processor time"),
            boundRow(
                name: "model request", unit: "µs", measured: wholes, bound: 8, boundName: "the bound",
                conditions: conditions),
            runs.row(
                name: "model decode runs", unit: "µs/request", referenceName: "single steps", conditions: conditions),
        ]
    }

    private func iterationNanoseconds(_ model: ServingModel) -> Double {
        let count = 1_000_000
        var sum = 0.0
        let time = seconds {
            for index in 0..<count {
                var prefill = PrefillLoad()
                prefill.add(tokens: 4096 + index & 1023, after: index & 0xFFFF, window: 0)
                sum += model.iterationSeconds(prefill: prefill, sequences: 32, context: 400_000).total
            }
        }
        keep(sum)
        return time / Double(count) * 1e9
    }
}

/// Requests of the size that the Mooncake conversation trace has, and one replica to run them.
private struct ReplicaLoad {
    var lengths: [(input: Int, output: Int)] = []
    var arrivals: [Instant] = []
    let model: ServingModel

    init(requests: Int, model: ServingModel) {
        self.model = model
        var random = RandomSource(seed: 5)
        var now = 0.0
        // A prompt of the mean size, and its share of the decode steps of about twenty sequences.
        let work =
            model.prefillSeconds(tokens: 12_000, after: 0) + 343 * model.decodeSeconds(sequences: 20, context: 240_000)
            / 20
        for _ in 0..<requests {
            let input = 1 + min(120_000, Int(random.exponential(mean: 12_000)))
            lengths.append((input, 1 + Int(random.exponential(mean: 342))))
            now += random.exponential(mean: work / 0.7)
            arrivals.append(Instant(seconds: now))
        }
    }

    /// Runs all requests, and returns when the last one was answered.
    func run(stepsMax: Int) -> Instant {
        var replica = Replica(model: model, batching: Batching(runStepsMax: stepsMax))
        var space = CountingSpace(capacityTokens: model.kvCapacityTokens, blockTokens: 512)
        var now = Instant.zero
        var next = 0
        while true {
            while next < arrivals.count, arrivals[next] <= now {
                replica.enqueue(
                    ReplicaRequest(
                        number: RequestNumber(next), order: next, inputTokens: lengths[next].input,
                        outputTokens: lengths[next].output))
                next += 1
            }
            let arrival = next < arrivals.count ? arrivals[next] : .distantFuture
            guard let iteration = replica.startIteration(at: now, until: arrival, space: &space) else {
                if arrival == .distantFuture { return now }
                now = arrival
                continue
            }
            now = now + iteration.duration
            replica.finishIteration(space: &space)
        }
    }
}
