// What the serving model says to one measured point.

import KVModel

/// A predicted point beside the measured one. Times in milliseconds.
public struct PointPrediction: Sendable {
    /// The point.
    public let point: MeasuredPoint
    /// Its kind.
    public let kind: MeasuredPoint.Kind
    /// Mean time to the first token; for a prefill or a load the time it takes.
    public var timeToFirstTokenMilliseconds: Double?
    /// Mean over requests of the time per further token.
    public var timePerTokenMilliseconds: Double?
    /// For a break-even point the rate, in GB/s.
    public var gigabytesPerSecond: Double?
    /// |predicted/measured − 1| of the first of these that the kind has: TTFT, prefill or load time, break-even rate.
    public var timeToFirstTokenError: Double?
    /// |predicted/measured − 1| of the time per token.
    public var timePerTokenError: Double?
}

/// A point that was not run, and why.
public struct SkippedPoint: Sendable {
    /// The point.
    public let point: MeasuredPoint
    /// Why.
    public let reason: String
}

/// Predicts measured points.
struct PointPredictor {
    var catalogue: Catalogue
    /// Draws of each closed or open loop, so that the prediction is a mean and not one draw's luck.
    var draws = 8
    var seed: UInt64 = 1

    /// Why a point that is well formed cannot run.
    struct Skip: Error {
        var reason: String
    }

    enum Outcome {
        case predicted(PointPrediction)
        case skipped(SkippedPoint)
    }

    /// Predicts a point, or says why it cannot: what the catalogue lacks, or the field that is missing or impossible.
    func predict(_ point: MeasuredPoint) -> Outcome {
        do {
            guard point.isObject else { throw Skip(reason: "is not an object") }
            let name = try point.text("kind")
            guard let kind = MeasuredPoint.Kind(rawValue: name) else { throw Skip(reason: "unknown kind '\(name)'") }
            var prediction = PointPrediction(point: point, kind: kind)
            switch kind {
            case .closedLoop: try closedLoop(&prediction)
            case .openLoop: try openLoop(&prediction)
            case .prefill: try prefill(&prediction)
            case .load: try load(&prediction)
            case .breakEven: try breakEven(&prediction)
            }
            return .predicted(prediction)
        } catch let skip as Skip {
            return .skipped(SkippedPoint(point: point, reason: skip.reason))
        } catch let error as OperatorError {
            // It says where, and the list of skipped points says that already.
            return .skipped(SkippedPoint(point: point, reason: error.what))
        } catch {
            preconditionFailure("unexpected \(error)")
        }
    }

    private func closedLoop(_ prediction: inout PointPrediction) throws {
        let point = prediction.point
        let clients = try point.count("concurrency", in: 1...100_000)
        let each = try point.count("requests_per_client", in: 1...100_000, missing: 10)
        guard clients * each <= 10_000_000 else { throw point.error("requests_per_client", "makes too many requests") }
        try loop(&prediction, requests: clients * each) { run, _ in run.closedLoop(clients: clients) }
    }

    private func openLoop(_ prediction: inout PointPrediction) throws {
        let point = prediction.point
        if let trace = try point.fields["trace"].map({ _ in try point.text("trace") }) {
            throw Skip(reason: "its trace of lengths, '\(trace)', is not here")
        }
        let rate = try point.number("rate_per_s", in: 1e-6...1e6)
        let requests = try point.count("requests", in: 1...10_000_000)
        try loop(&prediction, requests: requests) { run, random in
            var now = 0.0
            return run.openLoop(
                arrivals: (0..<requests).map { _ in
                    now += random.exponential(mean: 1 / rate)
                    return Instant(seconds: now)
                })
        }
    }

    /// Draws lengths, runs the engine some times, and compares the means.
    private func loop(
        _ prediction: inout PointPrediction, requests: Int,
        _ run: (inout EngineRun, inout RandomSource) -> EngineRun.Latencies
    ) throws {
        let point = prediction.point
        let input = try point.count("input_tokens", in: 1...100_000_000)
        let output = try point.count("output_tokens", in: 1...10_000_000)
        let ratio = try point.optionalNumber("length_ratio", in: 0.0...1.0) ?? 1
        let budget = try point.count("max_num_batched_tokens", in: 1...10_000_000, missing: 8192)
        let sequences = try point.count("max_num_seqs", in: 1...budget, missing: min(256, budget))
        let measured = (try point.mean("ttft_mean_ms", "ttft_ms"), try point.mean("tpot_ms", "tpot_mean_ms"))
        let model = try servingModel(of: point, chunkTokens: budget)
        let kvTokens = try point.count("kv_tokens", in: 16...1_000_000_000_000, missing: model.kvCapacityTokens)
        var random = RandomSource(seed: seed)
        var firstToken = Mean()
        var perToken = Mean()
        for _ in 0..<draws {
            let lengths = (0..<requests).map { _ in
                EngineRun.Lengths(
                    input: draw(ratio, of: input, &random), output: draw(ratio, of: output, &random))
            }
            var engine = try skipping {
                () throws(OperatorError) in
                try EngineRun(
                    model: model, batching: Batching(tokenBudget: budget, sequencesMax: sequences), kvTokens: kvTokens,
                    requests: lengths)
            }
            let latencies = run(&engine, &random)
            for seconds in latencies.firstToken { firstToken.add(seconds + model.engine.requestSeconds) }
            for seconds in latencies.perToken { perToken.add(seconds) }
        }
        prediction.timeToFirstTokenMilliseconds = firstToken.value.map { $0 * 1000 }
        prediction.timePerTokenMilliseconds = perToken.value.map { $0 * 1000 }
        // A point of reliability C holds one usable figure, which its note names.
        let note = point.fields["note"]?.text ?? ""
        let onlyPerToken = point.reliability == "C" && note.contains("use TPOT")
        if !onlyPerToken {
            prediction.timeToFirstTokenError = error(prediction.timeToFirstTokenMilliseconds, measured.0)
        }
        prediction.timePerTokenError = error(prediction.timePerTokenMilliseconds, measured.1)
    }

    /// Uniform in [ratio, 1] × nominal, in whole tokens.
    private func draw(_ ratio: Double, of nominal: Int, _ random: inout RandomSource) -> Int {
        let low = max(1, Int((ratio * Double(nominal)).rounded()))
        return low + random.below(nominal - low + 1)
    }

    private func prefill(_ prediction: inout PointPrediction) throws {
        let point = prediction.point
        let tokens = try point.count("input_tokens", in: 1...100_000_000)
        let measured = try point.number("value_ms", in: 1e-9...1e15)
        let budget = try point.count("max_num_batched_tokens", in: 1...10_000_000, missing: 8192)
        let model = try servingModel(of: point, chunkTokens: budget)
        prediction.timeToFirstTokenMilliseconds = model.prefillSeconds(tokens: tokens, after: 0) * 1000
        prediction.timeToFirstTokenError = error(prediction.timeToFirstTokenMilliseconds, measured)
    }

    private func load(_ prediction: inout PointPrediction) throws {
        let point = prediction.point
        let bytes = try point.number("bytes", in: 1...1e18)
        let rate = try point.number("line_rate_GBps", in: 1e-6...1e9) * 1e9
        let efficiency = try point.optionalNumber("eff", in: 1e-6...1) ?? 0.85
        let measured = try point.number("value_ms", in: 1e-9...1e15)
        prediction.timeToFirstTokenMilliseconds = bytes / (rate * efficiency) * 1000
        prediction.timeToFirstTokenError = error(prediction.timeToFirstTokenMilliseconds, measured)
    }

    private func breakEven(_ prediction: inout PointPrediction) throws {
        let point = prediction.point
        let prefix = try point.count("prefix", in: 1...100_000_000)
        let measured = try point.number("value_GBps", in: 1e-9...1e9)
        let (count, gpu) = try gpus(of: point)
        let shape = try model(of: point)
        let peak = Double(count) * (gpu.peakFLOPs[.bf16] ?? 0)
        let rate = ServingModel.mooncakeBreakEvenRate(shape: shape, peakFLOPs: peak, prefix: prefix)
        prediction.gigabytesPerSecond = rate / 1e9
        prediction.timeToFirstTokenError = error(rate / 1e9, measured)
    }

    private func error(_ predicted: Double?, _ measured: Double?) -> Double? {
        guard let predicted, let measured else { return nil }
        return abs(predicted / measured - 1)
    }

    // MARK: The point's model and GPUs

    private func servingModel(of point: MeasuredPoint, chunkTokens: Int) throws -> ServingModel {
        let (count, gpu) = try gpus(of: point)
        let shape = try model(of: point)
        let tensorParallel = try point.count("tp", in: 1...1024, missing: count)
        let engine = try skipping { () throws(OperatorError) in
            try catalogue.engine(named: try point.text("engine", missing: "vllm"))
        }
        let weights = try format("weights", of: point)
        let kv = try format("kv", of: point)
        return try skipping { () throws(OperatorError) in
            try ServingModel(
                shape, gpu: gpu, tensorParallel: tensorParallel, weights: weights, kv: kv, engine: engine,
                chunkTokens: chunkTokens)
        }
    }

    private func model(of point: MeasuredPoint) throws -> ModelShape {
        let name = try point.text("model")
        return try skipping { () throws(OperatorError) in try catalogue.model(named: name) }
    }

    /// "H100", or "8xH100"; what a remark in brackets says besides is not read.
    private func gpus(of point: MeasuredPoint) throws -> (count: Int, gpu: GPU) {
        var name = Substring(try point.text("gpu"))
        if let bracket = name.firstIndex(of: "(") { name = name[..<bracket] }
        while name.last == " " { name.removeLast() }
        var count = 1
        if let times = name.firstIndex(of: "x"), let stated = Int(name[..<times]), stated > 0 {
            count = stated
            name = name[name.index(after: times)...]
        }
        let gpu = try skipping { () throws(OperatorError) in try catalogue.gpu(named: String(name)) }
        return (count, gpu)
    }

    private func format(_ key: String, of point: MeasuredPoint) throws -> NumberFormat {
        let name = try point.text(key, missing: "bf16")
        guard let format = NumberFormat(named: name) else { throw Skip(reason: "unknown format of \(key) '\(name)'") }
        return format
    }

    /// What the catalogue lacks is a reason to skip a point, not a mistake in the file.
    private func skipping<Value>(_ body: () throws(OperatorError) -> Value) throws -> Value {
        do { return try body() } catch { throw Skip(reason: error.what) }
    }
}

/// A running mean.
private struct Mean {
    var sum = 0.0
    var count = 0

    mutating func add(_ value: Double) {
        sum += value
        count += 1
    }

    var value: Double? { count == 0 ? nil : sum / Double(count) }
}
