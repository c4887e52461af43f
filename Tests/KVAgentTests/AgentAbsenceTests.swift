// When places of a lost connection are free although no agent says so.

import KVAgent
import KVModel
import Testing

@Suite struct AgentAbsenceTests {
    private static let (missing, refused, busy): (Int32, Int32, Int32) = (2, 111, 11)

    /// What failed tries tell, one after another: an error number and the second of each.
    private func told(_ absence: inout AgentAbsence, _ tries: [(Int32, Double)]) -> [Bool] {
        tries.map { absence.isCertain($0.0, at: Instant.zero + Duration(seconds: $0.1)) }
    }

    @Test func aSocketThatNobodyListensOnTellsAtOnce() {
        var absence = AgentAbsence(limit: Duration(seconds: 3))
        absence.connected()
        let told = told(&absence, [(Self.refused, 1), (Self.busy, 100)])
        #expect(told == [true, false])
    }

    @Test func aSocketThatIsGoneTellsOnceItStaysAway() {
        var absence = AgentAbsence(limit: Duration(seconds: 3))
        absence.connected()
        // It is there in between, once.
        let tries = [(Self.missing, 10), (Self.missing, 12.9), (Self.busy, 12.95), (Self.missing, 13.5)]
        var told = told(&absence, tries + [(Self.missing, 16.5)])
        #expect(told == [false, false, false, false, true])
        absence.connected()
        told = self.told(&absence, [(Self.missing, 17)])
        #expect(told == [false])
    }

    @Test func whoeverWasNeverThereHasNothingMapped() {
        var absence = AgentAbsence(limit: Duration(seconds: 3))
        let told = told(&absence, [(Self.missing, 0)])
        #expect(told == [true])
    }
}
