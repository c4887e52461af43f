// The conformance suite: one set of operations and faults that every carrier passes. The host's carriers run here, verbs
// in the lab; the same cases, the same expectations.

import KVTransport
import Testing

/// One thing that must hold over a carrier.
struct ConformanceCase: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// Carriers that it makes sense for.
    let isFor: @Sendable (TestCarrier) -> Bool
    let play: @Sendable (TestCarrier) async throws -> Void

    init(
        _ rule: String, for isFor: @escaping @Sendable (TestCarrier) -> Bool = { _ in true },
        _ play: @escaping @Sendable (TestCarrier) async throws -> Void
    ) {
        testDescription = rule
        self.isFor = isFor
        self.play = play
    }

    static let all = operations + requestFaults + peerFaults + clientFaults

    /// The pairs of these carriers with the cases that are for them.
    static func pairs(_ carriers: [TestCarrier]) -> [ConformancePair] {
        carriers.flatMap { carrier in all.filter { $0.isFor(carrier) }.map { ConformancePair(carrier, $0) } }
    }
}

/// One case over one carrier.
struct ConformancePair: Sendable, CustomTestStringConvertible {
    let carrier: TestCarrier
    let rule: ConformanceCase

    init(_ carrier: TestCarrier, _ rule: ConformanceCase) {
        self.carrier = carrier
        self.rule = rule
    }

    var testDescription: String { "\(carrier.rawValue): \(rule.testDescription)" }
}

@Suite(.serialized) struct TransportConformance {
    @Test(arguments: ConformanceCase.pairs(TestCarrier.ofHost))
    func holds(_ pair: ConformancePair) async throws { try await pair.rule.play(pair.carrier) }
}

extension VerbsTests {
    /// Among the suites that use the device: one at a time.
    @Suite(.serialized) struct VerbsConformance {
        @Test(arguments: ConformanceCase.pairs([.verbs]))
        func holds(_ pair: ConformancePair) async throws {
            let before = VerbsLiveObjects.now
            try await pair.rule.play(pair.carrier)
            #expect(
                await eventually { VerbsLiveObjects.now.isNoMore(than: before) },
                "queue pairs or registrations are left")
        }
    }
}

extension VerbsLiveObjects {
    /// Whether nothing was added: what an earlier test gave up may be freed meanwhile.
    fileprivate func isNoMore(than before: VerbsLiveObjects) -> Bool {
        devices <= before.devices && domains <= before.domains && regions <= before.regions
            && completionQueues <= before.completionQueues && pairs <= before.pairs
    }
}
