// A node's settings as they are written down in front of a journal.

import Foundation
import KVModel
import KVTiering
import Testing

@Suite struct TieringConfigurationTests {
    /// Settings of which none is nil or what it is by default.
    private var settings: TieringConfiguration {
        var settings = smallConfiguration(
            nvmeBlocks: 16, hasStore: true,
            prefetch: PrefetchConfiguration(
                reasons: [.session], bytesInFlightMax: 6000, linkShare: 0.5, stagingShare: 0.5, probabilityMin: 0.2,
                sessionsMax: 64))
        settings.nvmeWriteBudget = WriteBudgetConfiguration(bytesPerDay: 1e9, burstBytes: 1e6)
        settings.hbmBytes = 8000
        settings.loanShare = 0.25
        settings.hashSeed = 77
        settings.planner.loadGraceShare = 0.5
        settings.limits.knownBlocksExpected = 100
        return settings
    }

    private func bytes(_ settings: TieringConfiguration) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return try encoder.encode(settings)
    }

    /// A setting that is forgotten when they are written down would make other decisions of the same journal.
    @Test func everySettingThatDecisionsDependOnIsWrittenDown() throws {
        func names(_ value: Any) -> Set<String> { Set(Mirror(reflecting: value).children.compactMap(\.label)) }
        let written = try #require(try JSONSerialization.jsonObject(with: bytes(settings)) as? [String: Any])
        #expect(Set(written.keys) == names(settings).subtracting(["hashSeed"]))
        for tier in ["dram", "nvme"] {
            let written = try #require(written[tier] as? [String: Any])
            #expect(Set(written.keys) == names(try #require(settings.dram)).subtracting(["makePolicy"]))
        }
    }

    @Test func whatIsReadIsWhatWasWritten() throws {
        let written = try bytes(settings)
        let read = try JSONDecoder().decode(TieringConfiguration.self, from: written)
        #expect(try bytes(read) == written)
        #expect(read.hashSeed == 0)
    }
}
