// Scenario files: what is read, and the one error that a wrong one gives.

import Foundation
import KVModel
import KVSimulation
import Testing

private let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

private func refusal(_ yaml: String?, _ overrides: [(key: String, value: String)] = []) -> OperatorError? {
    do {
        _ = try Scenario.read(yaml: yaml, file: "s.yaml", overrides: overrides)
        return nil
    } catch { return error }
}

@Suite struct ScenarioTests {
    @Test func embeddedDefaultIsTheFileThatIsShown() throws {
        let file = repository.appendingPathComponent("Traces/scenarios/default.yaml")
        #expect(try String(contentsOf: file, encoding: .utf8) == Scenario.defaultText)
    }

    @Test func everyShippedScenarioIsRead() throws {
        let folder = repository.appendingPathComponent("Traces/scenarios")
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".yaml") }
        #expect(files.count >= 4)
        for file in files {
            let text = try String(contentsOf: folder.appendingPathComponent(file), encoding: .utf8)
            let scenario = try Scenario.read(yaml: text, file: file)
            #expect("\(scenario.name).yaml" == file)
        }
    }

    @Test func statesOnlyWhatDiffers() throws {
        let scenario = try Scenario.read(
            yaml: "replicas: 3\ntiers:\n  dram:\n    perNode: 1.5 TB\n", file: "s.yaml",
            overrides: [("slo.ttft", "750 ms"), ("sweep.loads", "[2, 1]")])
        let plain = try Scenario.read(yaml: nil, file: "default.yaml")
        #expect(scenario.replicas == 3)
        #expect(scenario.tiers.dram.perNode == 1.5e12)
        #expect(scenario.slo.ttft == 0.75)
        #expect(scenario.sweep.loads == [1, 2])
        #expect(scenario.tiers.flash.perServer == plain.tiers.flash.perServer)
    }

    @Test func noGPUOfANodeMayStandIdleUnsaid() throws {
        let error = try #require(refusal("gpu:\n  perNode: 3\ntensorParallel: 2\nreplicas: 4\n"))
        #expect(error.what.contains("`gpu.perNode` is 3, not a multiple of `tensorParallel` 2: 1 of each node's GPUs"))
        #expect(refusal("gpu:\n  perNode: 6\ntensorParallel: 2\n") == nil)
    }

    @Test func whatIsSweptTwiceIsSweptOnce() throws {
        let scenario = try Scenario.read(
            yaml: nil, file: "default.yaml", overrides: [("sweep.loads", "[1, 2, 1]"), ("sweep.replicas", "[3, 3]")])
        #expect(scenario.sweep.loads == [1, 2])
        #expect(scenario.sweep.replicas == [3])
    }

    @Test func textOfAScenarioReadsBackAsItself() throws {
        let scenario = try Scenario.read(yaml: nil, file: "default.yaml", overrides: [("replicas", "7")])
        let again = try Scenario.read(yaml: scenario.text, file: "again.yaml")
        #expect(again.text == scenario.text)
        #expect(again.replicas == 7)
    }

    @Test(arguments: [
        ("replcas: 3", "s.yaml:1", "replcas"),
        ("tiers:\n  dram:\n    perNod: 1 TB", "s.yaml:3", "tiers.dram.perNod"),
        ("replicas: 0", "s.yaml:1", "1 to 1024"),
        ("replicas: 2.5", "s.yaml:1", "a whole number"),
        ("tiers:\n  dram:\n    perNode: 12 parsecs", "s.yaml:3", "bytes, like"),
        ("router:\n  policy: magic", "s.yaml:2", "cacheAware"),
        ("prefetch:\n  use: perhaps", "s.yaml:2", "true or false"),
        ("tiers: none", "s.yaml:1", "is a block"),
        ("replicas:\n  many: 3", "s.yaml:2", "is one value"),
        ("seed: 1\nseed: 2", "s.yaml", "seed"),
        ("tensorParallel: 3", "s.yaml:1", "1, 2, 4 and 8"),
        ("slo:\n  ttft: -1 s", "s.yaml:2", "outside"),
        ("links:\n  efficiency: 1.2", "s.yaml:2", "0.01 to 1"),
        ("links:\n  hostToGPU: 3", "s.yaml:2", "outside 1 MB/s to 10 TB/s"),
        ("slo:\n  tpot: 1 us", "s.yaml:2", "outside 100 us to 60 s"),
        ("tiers:\n  flash:\n    stripe: 9", "s.yaml:3", "servers"),
        ("engine:\n  tokenBudget: 100", "s.yaml:2", "sequences"),
        ("- a\n- b", "s.yaml:1", "key: value"),
        ("a: [", "s.yaml", "YAML"),
        ("", "s.yaml", "empty"),
    ]) func wrongScenarioGivesOneErrorWithPlaceAndRange(yaml: String, place: String, says: String) throws {
        let error = try #require(refusal(yaml))
        #expect(error.place.hasPrefix(place), "\(error)")
        #expect(error.description.contains(says), "\(error)")
    }

    @Test func aliasesOfAliasesAreRefusedBeforeTheyFillTheMemory() throws {
        let tens = (1...8).map { number in
            "k\(number): &a\(number) [\(repeatElement("*a\(number - 1)", count: 10).joined(separator: ", "))]"
        }
        let error = try #require(refusal((["name: &a0 [x, x]"] + tens).joined(separator: "\n")))
        #expect(error.description.contains("more than 10000 values"), "\(error)")
    }

    @Test func wrongOverrideNamesTheOption() throws {
        let unknown = try #require(refusal(nil, [("tiers.dram.size", "1 TB")]))
        #expect(unknown.place == "--set tiers.dram.size")
        #expect(unknown.description.contains("perNode"))
        let range = try #require(refusal(nil, [("warmUp", "2")]))
        #expect(range.place == "--set warmUp")
        #expect(range.description.contains("0 to 0.9"))
    }

    @Test func profileReplacesRatesAndSaysSo() throws {
        var scenario = try Scenario.read(yaml: nil, file: "default.yaml")
        let json =
            #"{"schema": "holdfast-profile-1", "hostNIC": {"bytesPerSecond": 17e9}, "nvme": {"latencySeconds": 9e-5}}"#
        scenario.apply(try DeviceProfile(json: Data(json.utf8), at: "p.json"))
        #expect((scenario.links.hostNIC * scenario.links.efficiency / 17e9 - 1).magnitude < 1e-12)
        #expect(scenario.tiers.nvme.latency == 9e-5)
        #expect(scenario.text.contains("hostNIC"))
    }

    @Test(arguments: [
        (#"{"machine": "x"}"#, "schema"), (#"{"schema": "holdfast-profile-9"}"#, "holdfast-profile-1"),
        (#"{"schema": "holdfast-profile-1", "hostNIC": {"bytesPerSecond": -3}}"#, "outside"),
        (#"{"schema": "holdfast-profile-1", "dram": {"latencySeconds": 7}}"#, "outside"), ("[", "JSON"),
    ]) func wrongProfileGivesOneError(json: String, says: String) {
        #expect {
            _ = try DeviceProfile(json: Data(json.utf8), at: "p.json")
        } throws: { error in
            (error as? OperatorError)?.place == "p.json" && "\(error)".contains(says)
        }
    }
}
