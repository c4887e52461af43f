// How guessing gets slower, by address and by tenant.

import KVModel
import KVTransport
import Testing

struct FailedTriesTests {
    private let tries: FailedTries
    private let start = Instant(nanoseconds: 1_000_000_000)

    init() {
        var limits = ServerLimits.standard
        limits.failureDelay = Duration(milliseconds: 10)
        limits.failureDelayMax = Duration(milliseconds: 100)
        tries = FailedTries(limits: limits)
    }

    private func milliseconds(_ peer: String, _ tenant: String, after seconds: Double = 0) -> Int64 {
        tries.add(peer, tenant: tenant, at: start + Duration(seconds: seconds)).nanoseconds / 1_000_000
    }

    @Test func eachFailureFromAnAddressDoublesTheWaitUpToALimit() {
        let waits = (0..<6).map { milliseconds("10.0.0.7:\(50_000 + $0)", "tenant \($0)") }
        #expect(waits == [10, 20, 40, 80, 100, 100])
        #expect(milliseconds("10.0.0.8:50000", "another") == 10)
    }

    @Test func theLongestWaitEndsBeforeAClientGivesUp() {
        let client = StoreClientConfiguration(routes: [], tenant: "tenant", secret: [])
        #expect(ServerLimits.standard.failureDelayMax + Duration(seconds: 1) <= client.connectLimit)
        #expect(ServerLimits.standard.failureDelayMax < ServerLimits.standard.helloLimit)
    }

    @Test func eachFailureAtATenantDoublesTheWaitFromAnyAddress() {
        let waits = (0..<6).map { milliseconds("10.0.0.\($0):50000", "tenant") }
        #expect(waits == [10, 20, 40, 80, 100, 100])
        #expect(milliseconds("10.0.1.1:50000", "another") == 10)
    }

    @Test func addressesWithColonsAreOneAddressWhateverThePort() {
        #expect(milliseconds("[fd00::7]:50000", "a") == 10)
        #expect(milliseconds("[fd00::7]:50001", "b") == 20)
        #expect(milliseconds("[fd00::8]:50000", "c") == 10)
    }

    @Test func failuresAreForgottenAfterAWhile() {
        #expect(milliseconds("10.0.0.7:1", "tenant") == 10)
        #expect(milliseconds("10.0.0.7:1", "tenant", after: 299) == 20)
        #expect(milliseconds("10.0.0.7:1", "tenant", after: 600) == 10)
    }

    /// Whoever floods one table loses nothing of the other.
    @Test func manyNamesPushOutTheOldestOnly() {
        for index in 0..<5 { #expect(milliseconds("10.0.0.7:1", "tenant", after: Double(index)) >= 10) }
        for index in 0..<2000 { _ = milliseconds("10.1.0.1:1", "tenant \(index)", after: 10) }
        // The tenant is forgotten among two thousand; the address is not.
        #expect(milliseconds("10.0.0.8:1", "tenant", after: 20) == 10)
        #expect(milliseconds("10.0.0.7:1", "new", after: 20) == 100)
    }
}
