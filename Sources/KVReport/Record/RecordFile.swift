// Records as files: JSON with sorted keys, the same bytes on every machine. A file that is damaged, foreign or newer is
// one clear error.

import Crypto
import Foundation
import KVModel

extension Record {
    /// The record's bytes: JSON on one line, keys sorted, a line feed at the end.
    public func encoded() throws(OperatorError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return [UInt8](try encoder.encode(self)) + [0x0A]
        } catch {
            // Only infinities and NaN cannot be written, and `validate` refuses those when a record is read.
            throw OperatorError(
                "the record holds a number that is not finite", at: name, remedy: "this is a defect; report it")
        }
    }

    /// SHA-256 of `encoded()`, in hexadecimal.
    public var digest: String {
        guard let bytes = try? encoded() else { return "" }
        return SHA256.hash(data: bytes).map { byte in
            let text = String(byte, radix: 16)
            return text.count == 1 ? "0" + text : text
        }.joined()
    }

    /// Reads a record; `place` names it in errors.
    public init(decoding bytes: [UInt8], at place: String) throws(OperatorError) {
        let again = "make it again with `holdfast replay -o`"
        guard !bytes.isEmpty else { throw OperatorError("the file is empty, not a record", at: place, remedy: again) }
        let decoder = JSONDecoder()
        let head: Head
        do {
            head = try decoder.decode(Head.self, from: Data(bytes))
        } catch {
            throw OperatorError("not a record: \(Record.reason(error))", at: place, remedy: again)
        }
        guard let schema = head.schema, schema.hasPrefix("holdfast-record-") else {
            throw OperatorError(
                "not a record: its schema is \(head.schema.map { "\"\($0)\"" } ?? "missing")", at: place, remedy: again)
        }
        guard schema == Record.schemaName else {
            throw OperatorError(
                "the record has schema \(schema), this version reads \(Record.schemaName)", at: place,
                remedy: "use the version of Holdfast that made it, or make it again")
        }
        do {
            self = try decoder.decode(Record.self, from: Data(bytes))
        } catch {
            throw OperatorError("damaged record: \(Record.reason(error))", at: place, remedy: again)
        }
        try validate(at: place)
    }

    private struct Head: Decodable { var schema: String? }

    private static func reason(_ error: any Error) -> String {
        func path(_ context: DecodingError.Context) -> String {
            let keys = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? ".\($0.stringValue)" }.joined()
            return keys.isEmpty ? "the top level" : String(keys.drop { $0 == "." })
        }
        switch error as? DecodingError {
        case .keyNotFound(let key, let context): return "\(path(context)) lacks \(key.stringValue)"
        case .typeMismatch(_, let context): return "\(path(context)) has the wrong type"
        case .valueNotFound(_, let context): return "\(path(context)) is null"
        case .dataCorrupted(let context) where !context.codingPath.isEmpty:
            return "\(path(context)) has a value that does not fit"
        default: return "it is not valid JSON"
        }
    }

    /// Refuses a record whose parts contradict each other, so that no printer has to ask again.
    private func validate(at place: String) throws(OperatorError) {
        func refuse(_ what: String) -> OperatorError {
            OperatorError("damaged record: \(what)", at: place, remedy: "make it again with `holdfast replay -o`")
        }
        guard systems.contains(where: { $0.key == "1" }) else { throw refuse("systems lacks key \"1\"") }
        guard Set(systems.map(\.key)).count == systems.count else { throw refuse("two systems have the same key") }
        guard trace.requests >= 0, trace.inputTokens >= 0, trace.outputTokens >= 0, configuration.gpus > 0 else {
            throw refuse("trace counts below 0 or no GPUs")
        }
        guard (0...1e12).contains(configuration.kvBytesPerToken) else {
            throw refuse("kvBytesPerToken is out of range")
        }
        for system in systems {
            let ledger = system.ledger
            let parts =
                [ledger.hbm, ledger.dram, ledger.nvme, ledger.flash, ledger.firstSeen, ledger.alwaysComputed]
                + RecomputeCause.all.map { $0.tokens(ledger) }
            guard parts.allSatisfy({ $0 >= 0 && $0 <= 1 << 52 }) else {
                throw refuse("system \(system.key): a token count is out of range")
            }
            for distribution in [system.ttft, system.tpot, system.ttftAfterWarmUp] {
                guard distribution.cdf.allSatisfy({ $0.count == 2 }),
                    zip(distribution.cdf, distribution.cdf.dropFirst()).allSatisfy({ $0[0] <= $1[0] && $0[1] <= $1[1] })
                else { throw refuse("system \(system.key): a distribution is not made of rising pairs") }
            }
            let time = system.gpuSeconds.classes.map(\.seconds) + [system.gpuSeconds.total]
            guard time.allSatisfy({ $0 >= 0 }) else { throw refuse("system \(system.key): GPU time below 0") }
        }
        if let curve = missRatioCurve {
            guard curve.policies.values.allSatisfy({ $0.count == curve.bytes.count }),
                zip(curve.bytes, curve.bytes.dropFirst()).allSatisfy({ $0 < $1 })
            else { throw refuse("missRatioCurve: lists of different lengths or sizes that do not rise") }
        }
        if let sweep = loadSweep {
            let lists = [sweep.usefulShareOfBusy, sweep.costPerMillionTokens, sweep.metSLO].flatMap(\.values)
            guard lists.allSatisfy({ $0.count == sweep.sessionsPerGPU.count }),
                zip(sweep.sessionsPerGPU, sweep.sessionsPerGPU.dropFirst()).allSatisfy({ $0 < $1 })
            else { throw refuse("loadSweep: lists of different lengths or loads that do not rise") }
        }
    }
}
