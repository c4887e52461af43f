// The model check: groups, skipped points, refusals, the gate over published runs, and a small file of our own.

import Foundation
import KVModel
import KVServing
import Testing

/// The check of a file whose list holds these objects.
private func check(_ objects: String...) throws -> ModelCheck {
    let text = "{\"points\": [\(objects.joined(separator: ","))]}"
    return ModelCheck(try MeasuredPoint.read(Array(text.utf8), at: "p.json"), catalogue: .builtIn)
}

/// The sentence with which a file is refused.
private func refusal(_ text: String) -> String {
    do {
        _ = try MeasuredPoint.read(Array(text.utf8), at: "p.json")
        return "accepted"
    } catch { return "\(error)" }
}

/// A closed-loop point with some fields changed or added.
private func closedLoop(_ changes: String = "") -> String {
    """
    {"kind": "closed_loop", "model": "Llama-3.1-8B", "gpu": "H100", "tp": 1, "weights": "bf16", "kv": "bf16",
     "input_tokens": 1024, "output_tokens": 64, "length_ratio": 0.8, "concurrency": 4, "requests_per_client": 3,
     "ttft_mean_ms": 100, "tpot_ms": 8, "reliability": "A", "group": "g"\(changes)}
    """
}

/// The file of published points, where the environment names it or the folder of traces has it beside it.
private let calibration: String? = {
    let environment = ProcessInfo.processInfo.environment
    let folders = [
        environment["HOLDFAST_CALIBRATION"], environment["HOLDFAST_TRACES"].map { $0 + "/../calibration" },
    ]
    return folders.compactMap { $0.map { $0 + "/ttft-points.json" } }.first {
        FileManager.default.fileExists(atPath: $0)
    }
}()

@Suite struct ModelCheckTests {
    @Test func aSingleClientWithOneRequestIsArithmetic() throws {
        let point = """
            {"kind": "closed_loop", "model": "Llama-3.1-70B", "gpu": "H100", "tp": 8, "weights": "fp8", "kv": "bf16",
             "input_tokens": 8192, "output_tokens": 2, "concurrency": 1, "requests_per_client": 1,
             "ttft_mean_ms": 300, "tpot_ms": 10, "reliability": "A", "group": "one"}
            """
        let model = try servingModel("Llama-3.1-70B", on: "H100", 8)
        let prediction = try #require(try check(point).predictions.first)
        let ttft = try #require(prediction.timeToFirstTokenMilliseconds)
        let tpot = try #require(prediction.timePerTokenMilliseconds)
        #expect(abs(ttft - 40 - model.prefillSeconds(tokens: 8192, after: 0) * 1000) < 1e-4)
        #expect(abs(tpot - model.decodeSeconds(sequences: 1, context: 8193) * 1000) < 1e-4)
        #expect(abs(try #require(prediction.timeToFirstTokenError) - abs(ttft / 300 - 1)) < 1e-12)
    }

    @Test func oneOpenLoopRequestIsThatOfAClosedLoop() throws {
        let open = """
            {"kind": "open_loop", "model": "Llama-3.1-8B", "gpu": "H100", "weights": "bf16", "input_tokens": 500,
             "output_tokens": 10, "rate_per_s": 3, "requests": 1, "max_num_batched_tokens": 2048, "max_num_seqs": 8,
             "kv_tokens": 4000, "ttft_ms": {"mean": 60, "p99": 70}, "tpot_ms": {"mean": 7}}
            """
        let prediction = try #require(try check(open).predictions.first)
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1, weights: .bf16)
        let expected = model.prefillSeconds(tokens: 500, after: 0) * 1000 + 40
        #expect(abs(try #require(prediction.timeToFirstTokenMilliseconds) - expected) < 1e-4)
        #expect(prediction.timePerTokenError != nil)
    }

    @Test func moreClientsWaitLonger() throws {
        let few = try check(closedLoop()).predictions[0]
        let many = try check(closedLoop(",\"concurrency\": 64").replacing("\"concurrency\": 4,", with: "")).predictions[
            0]
        #expect((many.timeToFirstTokenMilliseconds ?? 0) > (few.timeToFirstTokenMilliseconds ?? .infinity))
        #expect((many.timePerTokenMilliseconds ?? 0) > (few.timePerTokenMilliseconds ?? .infinity))
    }

    @Test func aStarvedKVMemoryCostsTimeNotAnswers() throws {
        let starved = try check(closedLoop(",\"kv_tokens\": 1200")).predictions[0]
        let roomy = try check(closedLoop()).predictions[0]
        #expect((starved.timeToFirstTokenMilliseconds ?? 0) > (roomy.timeToFirstTokenMilliseconds ?? .infinity))
    }

    /// The section of `Traces/README.md` that documents a points file.
    private func documentation() throws -> String {
        let repository = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let whole = try String(contentsOf: repository.appending(path: "Traces/README.md"), encoding: .utf8)
        return try String(#require(whole.components(separatedBy: "## Measured points").last))
    }

    @Test func theDocumentedFileRunsWhole() throws {
        let example = try #require(
            try documentation().components(separatedBy: "```json\n").last?.components(separatedBy: "```").first)
        let found = ModelCheck(try MeasuredPoint.read(Array(example.utf8), at: "p.json"), catalogue: .builtIn)
        #expect(found.skipped.map(\.reason) == [])
        #expect(Set(found.predictions.map(\.kind)) == Set(MeasuredPoint.Kind.allCases))
        #expect(found.predictions.allSatisfy { $0.timeToFirstTokenError != nil })
    }

    @Test func everyFieldThatIsReadIsDocumented() throws {
        let sources = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Sources/KVServing")
        let documentation = try documentation()
        var fields: Set<String> = []
        for file in ["MeasuredPoint.swift", "PointPrediction.swift"] {
            let text = try String(contentsOf: sources.appending(path: file), encoding: .utf8)
            let calls =
                #/(?:(?:count|number|optionalNumber|text|mean|format)\(|fields\[)"([a-z_A-Z]+)"(?:, "([a-z_]+)")?/#
            for match in text.matches(of: calls) {
                fields.insert(String(match.1))
                if let other = match.2 { fields.insert(String(other)) }
            }
        }
        #expect(fields.count > 20)
        for field in fields { #expect(documentation.contains("`\(field)`"), "\(field) is not documented") }
    }

    @Test func predictionsDoNotDependOnTheOrderOfPoints() throws {
        let other = closedLoop(",\"note\": \"x\"")
        let alone = try check(closedLoop()).predictions[0].timeToFirstTokenMilliseconds
        #expect(try check(other, closedLoop()).predictions[1].timeToFirstTokenMilliseconds == alone)
    }

    @Test func whatCannotRunIsSkippedByName() throws {
        func replacing(_ old: String, _ new: String) -> String { closedLoop().replacing(old, with: new) }
        let found = try check(
            replacing("closed_loop", "half_loop"), replacing("Llama-3.1-8B", "Llama-9"), replacing("H100", "TPU"),
            replacing("\"tp\": 1", "\"tp\": 3"), replacing("\"weights\": \"bf16\"", "\"weights\": \"int3\""),
            closedLoop(",\"engine\": \"own\""), closedLoop(",\"kv_tokens\": 500"),
            """
            {"kind": "open_loop", "trace": "sharegpt", "model": "Llama-3.1-8B", "gpu": "H100", "rate_per_s": 1,
             "requests": 10}
            """)
        #expect(found.predictions.isEmpty)
        let reasons = found.skipped.map(\.reason)
        #expect(reasons.count == 8)
        for (reason, word) in zip(
            reasons, ["half_loop", "Llama-9", "TPU", "3 × H100", "int3", "own", "500", "sharegpt"])
        {
            #expect(reason.contains(word))
        }
    }

    @Test(arguments: [
        ("{", "p.json: not readable as JSON"), ("{}", "p.json: has no list \"points\""),
        ("{\"points\": [{\"tReq\": 1e400}]}", "p.json: a number at `points` is beyond 1.8e308"),
        ("{\"points\": []}", "p.json: has no points"), ("{\"points\": [{\"kind\": }]}", "p.json: not readable as JSON"),
    ])
    func aMalformedFileIsRefused(text: String, sentence: String) { #expect(refusal(text).contains(sentence)) }

    @Test(arguments: [
        ("3", "is not an object"), ("{}", "kind is missing"), ("{\"kind\": 3}", "kind is not a text"),
        ("{\"kind\": \"load\", \"bytes\": 3}", "line_rate_GBps is missing"),
        (
            closedLoop().replacing("\"concurrency\": 4", with: "\"concurrency\": -4"),
            "concurrency is -4, outside 1 to 100000"
        ),
        (closedLoop().replacing("1024", with: "1.5"), "input_tokens is not a whole number"),
        (closedLoop().replacing("0.8", with: "1.2"), "length_ratio is 1.2, outside 0.0 to 1.0"),
        (closedLoop().replacing("\"tpot_ms\": 8", with: "\"tpot_ms\": 0"), "tpot_ms is 0.0, not above 0"),
        (
            closedLoop().replacing("\"tpot_ms\": 8", with: "\"tpot_ms\": \"8\""),
            "tpot_ms is neither a number nor an object with a mean"
        ),
    ])
    func aMalformedPointIsSkippedAndTheOthersRun(point: String, reason: String) throws {
        let found = try check(point, closedLoop())
        #expect(found.predictions.count == 1)
        #expect(found.skipped.map(\.reason) == [reason])
        #expect(found.skipped.map(\.point.place) == ["p.json: points[0]"])
        #expect(found.json.formatted.contains(reason))
    }

    @Test(arguments: ["8xH800", "8xA800", "8xA100-80 (A800)", "8xH200"])
    func aNumberBeforeTheGPUIsItsTensorParallelism(gpu: String) throws {
        func prefill(_ gpu: String) -> String {
            """
            {"kind": "prefill", "model": "Llama-3.1-70B", "gpu": \(gpu), "input_tokens": 8192, "value_ms": 500}
            """
        }
        let name = String(gpu.dropFirst(2).prefix { $0 != " " })
        let found = try check(prefill("\"\(gpu)\""), prefill("\"\(name)\", \"tp\": 8"))
        #expect(found.skipped.isEmpty)
        let times = found.predictions.map(\.timeToFirstTokenMilliseconds)
        #expect(times.count == 2 && times[0] != nil && times[0] == times[1])
    }

    @Test func jsonHasTheNamedFieldsAndThePointsOwn() throws {
        let json = try check(closedLoop(",\"mine\": [1, null]"), "{\"kind\": \"odd\"}").json.formatted
        let root = try #require(
            try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: [[String: Any]]])
        #expect(Set(root.keys) == ["groups", "points", "skipped"])
        #expect(
            Set(try #require(root["groups"]?.first).keys) == [
                "group", "kind", "reliability", "count", "ttftMeanError", "ttftP90Error", "tpotMeanError",
                "tpotP90Error",
            ])
        let point = try #require(root["points"]?.first)
        #expect(point["mine"] != nil)
        #expect(point["predictedTTFTMeanMs"] is Double)
        #expect(point["predictedTPOTMs"] is Double)
        #expect(root["skipped"]?.first?["reason"] as? String == "unknown kind 'odd'")
    }

    /// Figures that were published with all that is needed to recompute them.
    @Test func publishedArithmeticIsReproduced() throws {
        let measured = try MeasuredPoint.read(PackageResources.known_points_json, at: "known-points.json")
        let found = ModelCheck(measured, catalogue: .builtIn)
        #expect(found.skipped.isEmpty)
        #expect(found.predictions.count == measured.count)
        for prediction in found.predictions {
            let tolerance = try #require(prediction.point.fields["tolerance"])
            guard case .number(let bound) = tolerance else {
                Issue.record("\(prediction.point.place) has no tolerance")
                continue
            }
            #expect(try #require(prediction.timeToFirstTokenError) < bound, "\(prediction.point.place)")
        }
    }

    @Test(.enabled(if: calibration != nil, "needs HOLDFAST_CALIBRATION, a folder with ttft-points.json"))
    func publishedServingRunsAreReproducedWithinTheGate() throws {
        let path = try #require(calibration)
        let measured = try MeasuredPoint.read(Array(try Data(contentsOf: URL(filePath: path))), at: path)
        let found = ModelCheck(measured, catalogue: .builtIn)
        #expect(found.reliable.count >= 30)
        #expect(found.passesGate)
        #expect(try #require(found.reliable.timeToFirstTokenMean) < ModelCheck.gate.timeToFirstToken)
        #expect(try #require(found.reliable.timePerTokenMean) < ModelCheck.gate.timePerToken)
    }
}
