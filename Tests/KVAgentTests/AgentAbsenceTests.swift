// When places of a lost connection are free although no agent says so.

import KVAgent
import KVModel
import Testing

@Suite struct AgentAbsenceTests {
    private static let (missing, refused, busy): (Int32, Int32, Int32) = (2, 111, 11)

    private func at(_ seconds: Double) -> Instant { Instant.zero + Duration(seconds: seconds) }

    @Test func aSocketThatNobodyListensOnTellsAtOnce() {
        var absence = AgentAbsence(limit: Duration(seconds: 3))
        absence.connected()
        #expect(absence.isCertain(Self.refused, at: at(1)))
        #expect(!absence.isCertain(Self.busy, at: at(100)))
    }

    @Test func aSocketThatIsGoneTellsOnceItStaysAway() {
        var absence = AgentAbsence(limit: Duration(seconds: 3))
        absence.connected()
        #expect(!absence.isCertain(Self.missing, at: at(10)))
        #expect(!absence.isCertain(Self.missing, at: at(12.9)))
        // It was there in between.
        #expect(!absence.isCertain(Self.busy, at: at(12.95)))
        #expect(!absence.isCertain(Self.missing, at: at(13.5)))
        #expect(absence.isCertain(Self.missing, at: at(16.5)))
        absence.connected()
        #expect(!absence.isCertain(Self.missing, at: at(17)))
    }

    @Test func whoeverWasNeverThereHasNothingMapped() {
        var absence = AgentAbsence(limit: Duration(seconds: 3))
        #expect(absence.isCertain(Self.missing, at: at(0)))
    }
}
