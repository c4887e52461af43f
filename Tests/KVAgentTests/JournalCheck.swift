// What every agent of these tests did, once more: its journal gives fresh decisions the same commands.

import Foundation
import KVAgent
import KVFlash
import KVModel
import KVTiering
import Testing

/// Journals of tests are kept whole.
let journalBytesMax = 256 << 20

/// Fails the test when fresh decisions make something else of the same inputs.
///
/// - Parameter tiering: What they are made with; nil: what the journal's head says.
func checkJournal(_ bytes: [UInt8], _ tiering: TieringConfiguration?) {
    do {
        var journal = try Journal(bytes)
        var fresh = TieringManager(try tiering ?? journal.head.tiering())
        let verdict = try journal.replay(into: &fresh)
        #expect(verdict.difference == nil, "after \(verdict.commands) commands")
        #expect(!verdict.isCutShort && verdict.eventKinds.values.reduce(0, +) == verdict.events)
    } catch { Issue.record(error, "the journal of \(bytes.count) bytes") }
}

extension AgentSettings {
    /// What the agent's decisions are made with: the tiers that it really has.
    func effectiveTiering() throws -> TieringConfiguration {
        var effective = tiering
        effective.hasStore = store != nil
        guard let localFlash, let totalBytes = localFlash.byteCount else {
            effective.nvme = nil
            return effective
        }
        let geometry = try FlashGeometry(totalBytes: totalBytes, extentBytes: localFlash.extentBytes)
        let extentsPerBlock = (tiering.blockBytes + localFlash.extentBytes - 1) / localFlash.extentBytes
        effective.nvme?.bytes = geometry.extentCount / extentsPerBlock * tiering.blockBytes
        return effective
    }
}

extension AgentSidecar {
    /// Ends the agent and checks its journal, which lies at the path of its settings.
    ///
    /// - Parameter ownership: Of the engines that came; without one there is nothing to check.
    func endWithJournal(ownership: Ownership) {
        let came = agent != nil
        _ = drain(within: Duration(seconds: 5))
        guard came else { return }
        do {
            let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: configuration.journal)))
            let slotBytes = (Sample.blockBytes + 4095) / 4096 * 4096
            checkJournal(
                bytes, try configuration.tiering(slotBytes: slotBytes, blockTokens: 16, ownership: ownership))
            checkJournal(bytes, nil)
        } catch { Issue.record(error) }
    }
}
