// The catalogue: what a user's file can change, and how a wrong one is refused.

import KVModel
import KVServing
import Testing

@Suite struct CatalogueTests {
    private func error(of text: String) -> String {
        var catalogue = Catalogue.builtIn
        do {
            try catalogue.extend(with: text, at: "my.yaml")
            return "accepted"
        } catch {
            return error.description
        }
    }

    @Test func namesAndAliasesAreFoundInAnyCase() throws {
        let catalogue = Catalogue.builtIn
        #expect(try catalogue.model(named: "llama-3.1-70b").name == "Llama-3.1-70B")
        #expect(try catalogue.model(named: "Llama-3-70B").name == "Llama-3.1-70B")
        #expect(try catalogue.gpu(named: "h100").name == "H100")
        #expect(throws: OperatorError.self) { try catalogue.gpu(named: "H1000") }
    }

    @Test func everyBuiltInEntryHasASourceAndItsOwnName() throws {
        let catalogue = Catalogue.builtIn
        #expect(!catalogue.models.isEmpty)
        #expect(catalogue.models.allSatisfy { !$0.source.isEmpty })
        #expect(catalogue.gpus.allSatisfy { !$0.source.isEmpty })
        let names =
            catalogue.models.flatMap { [$0.name] + $0.aliases } + catalogue.gpus.flatMap { [$0.name] + $0.aliases }
        #expect(Set(names.map { $0.lowercased() }).count == names.count)
    }

    @Test func aUserFileChangesSingleKeysAndAddsEntries() throws {
        var catalogue = Catalogue.builtIn
        try catalogue.extend(
            with: """
                gpus:
                  - {name: h100, watts: 650}
                  - {name: H100-slow, basedOn: H100, memoryBytesPerSecond: 2e12, source: measured here}
                """, at: "my.yaml")
        #expect(try catalogue.gpu(named: "H100").watts == 650)
        #expect(try catalogue.gpu(named: "H100").memoryBytesPerSecond == 3.35e12)
        let slow = try catalogue.gpu(named: "H100-slow")
        #expect(slow.memoryBytesPerSecond == 2e12)
        #expect(slow.watts == 650)
        #expect(slow.aliases.isEmpty)
        #expect(catalogue.gpus.count == Catalogue.builtIn.gpus.count + 1)
    }

    @Test(arguments: [
        ("gpus: [{name: H100, wats: 3}]", "my.yaml: gpus[0] (H100): unknown key 'wats'"),
        ("gpus: [{name: H100, watts: lots}]", "my.yaml: gpus[0] (H100): watts is not a number"),
        ("gpus: [{name: H100, watts: -3}]", "my.yaml: gpus[0] (H100): watts is -3, outside"),
        ("gpus: [{name: H100, watts: nan}]", "my.yaml: gpus[0] (H100): watts is not a number"),
        ("gpus: [{name: New}]", "my.yaml: gpus[0] (New): "),
        ("gpus: [{name: New, basedOn: H1000}]", "basedOn names the unknown entry 'H1000'"),
        ("gpus: [{watts: 3}]", "my.yaml: gpus[0]: has no name"),
        ("gpu: []", "my.yaml: unknown key 'gpu'"),
        ("models: {name: x}", "my.yaml: models is not a list"),
        ("- 1", "my.yaml: not a catalogue"),
        ("", "my.yaml: not a catalogue"),
        ("a: [", "my.yaml: not readable as YAML"),
        ("gpus: [{name: H100, linearEfficiency: {fp6: 1}}]", "linearEfficiency has the unknown key 'fp6'"),
        ("models: [{name: Llama-3.1-8B, layers: 0}]", "layers is 0, outside 1 to"),
        ("models: [{name: Llama-3.1-8B, kvHeads: 64}]", "kvHeads is above attentionHeads"),
        ("models: [{name: Llama-3.1-8B, expertsPerToken: 2}]", "expertsPerToken needs experts"),
    ])
    func aWrongFileIsRefusedInOneSentence(text: String, sentence: String) {
        #expect(error(of: text).contains(sentence))
    }

    @Test func aliasesOfAliasesAreRefusedBeforeTheyFillTheMemory() {
        let tens = (1...8).map { number in
            "k\(number): &a\(number) [\(repeatElement("*a\(number - 1)", count: 10).joined(separator: ", "))]"
        }
        #expect(error(of: (["models: &a0 [x, x]"] + tens).joined(separator: "\n")).contains("more than 100000 values"))
    }

    @Test func aRefusedFileChangesNothing() throws {
        var catalogue = Catalogue.builtIn
        #expect(throws: OperatorError.self) {
            try catalogue.extend(with: "gpus: [{name: H100, watts: 1}, {name: H200, wats: 1}]", at: "my.yaml")
        }
        #expect(try catalogue.gpu(named: "H100").watts == 700)
    }

    @Test func whatCannotRunIsRefusedWithItsReason() throws {
        let catalogue = Catalogue.builtIn
        func refusal(_ model: String, _ gpu: String, _ gpus: Int) -> String {
            do {
                _ = try ServingModel(
                    catalogue.model(named: model), gpu: catalogue.gpu(named: gpu), tensorParallel: gpus, weights: .bf16,
                    kv: .bf16, engine: catalogue.engine(named: "vllm"))
                return "accepted"
            } catch { return "\(error)" }
        }
        #expect(refusal("Llama-3.1-405B", "H100", 8).contains("leaves no room for KV on 8 × H100"))
        #expect(refusal("Llama-3.1-8B", "H100", 3).contains("no all-reduce rate for 3 × H100"))
        #expect(refusal("Llama-3.1-8B", "H100", 0).contains("at least 1"))
    }
}
