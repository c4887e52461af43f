// Engines whose HBM slots are the agent's, over a real agent and the emulated device: real bytes go up, down and stay, each block
// is where the ledger says, and nobody's slot is written under it.

import Foundation
import KVAgent
import KVMemory
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite(.serialized) struct DeviceAgentTests: DeviceBench {
    @Test func whatAnEngineWroteIsReadWhereItLiesAndNodeMemoryHasItsCopy() throws {
        try withSidecar { sidecar in
            let (one, other) = (try attached(sidecar), try attached(sidecar))
            defer { _ = (one.close(), other.close()) }
            #expect(one.arena?.shape.memory == .emulatedDevice && one.arena?.shape.slotCount == 32)
            let first = try begin(one, seed: 1, count: 6)
            #expect(first.found.hitBlocks == 0)
            // It goes on reading what it wrote; another reads the same slots.
            let second = try begin(other, seed: 1, count: 6)
            #expect(second.found.hbmBlocks == 6)
            #expect(second.lease?.taken.blocks.map(\.slot) == first.reservation?.reserved.slots)
            end(one, first)
            end(other, second)
            let status = try status(sidecar)
            #expect(status.ledger["hbm"] == 96 && status.hbm?.hitTokens == 96 && status.ledger["dram"] == 0)
            #expect(status.hbm?.totalBytes == 32 * Sample.blockBytes)
            #expect(status.hbm?.usedBytes == 6 * Sample.blockBytes)
            #expect(status.totals["bytes_out_of_engine"] == 6 * Sample.blockBytes)
            #expect(status.totals["bytes_into_engine"] == 0)
            #expect(status.device == "emulated device (no GPU)")
            #expect(
                AgentMetrics.text(sidecar).contains(
                    "holdfast_agent_tier_bytes{tier=\"hbm\"} \(32 * Sample.blockBytes)\n"))
        }
    }

    @Test func aDeviceThatIsTooSmallForgetsAndNodeMemoryBringsEveryByteBack() throws {
        try withSidecar { sidecar in
            let client = try attached(sidecar)
            defer { client.close() }
            for seed in 1...8 as ClosedRange<UInt64> {
                end(client, try begin(client, seed: seed, count: 12))
                // Slots whose blocks are still copied down cannot be given to the next: it would get eight of twelve.
                _ = try status(sidecar)
            }
            for round in 0..<3 {
                for seed in 1...8 as ClosedRange<UInt64> {
                    let holding = try begin(client, seed: seed, count: 12)
                    #expect(holding.lease?.taken.blocks.count == 12, "round \(round), chain \(seed)")
                    end(client, holding)
                    _ = try status(sidecar)
                }
            }
            let status = try status(sidecar)
            #expect(status.ledger["dram"] ?? 0 > 0)
            #expect((status.ledger["dram"] ?? 0) + (status.ledger["hbm"] ?? 0) == 24 * 12 * 16)
            #expect(status.hbm?.usedBytes ?? .max <= 32 * Sample.blockBytes)
            #expect(status.totals["hbm_evictions"] ?? 0 > 0 && status.totals["corrupt_into_engine"] == 0)
            let agent = try #require(sidecar.agent)
            #expect(agent.inspect { $0.audit() } == [])
        }
    }

    @Test func whatADeadEngineHeldOnTheDeviceComesBack() throws {
        try withSidecar { sidecar in
            let (one, other) = (try attached(sidecar), try attached(sidecar))
            defer { other.close() }
            let holding = try begin(one, seed: 1, count: 8)
            let spare = try #require(reserve(one, 100))
            #expect(spare.reserved.slots.count == 24)
            #expect(reserve(other, 1) == nil)
            one.abandon()
            #expect(Sample.wait { holding.reservation?.isInForce == false && !spare.isInForce })
            #expect(Sample.wait { sidecar.view.leaving == 0 })
            #expect(try status(sidecar).loanedBytes == 0)
            // What it had made blocks of is still there for others, and every slot can be had again.
            let again = try begin(other, seed: 1, count: 8)
            #expect(again.found.hbmBlocks == 8 && again.lease?.taken.blocks.count == 8)
            #expect(reserve(other, 100)?.reserved.slots.count == 24)
            end(other, again)
        }
    }

    @Test func nobodyIsGivenASlotThatAnEngineHolds() throws {
        try withSidecar { sidecar in
            let client = try attached(sidecar)
            defer { client.close() }
            let held = try begin(client, seed: 1, count: 10)
            for seed in 2...20 as ClosedRange<UInt64> { end(client, try begin(client, seed: seed, count: 12)) }
            let slots = try #require(held.reservation).reserved.slots
            for (index, slot) in slots.enumerated() {
                let first = try #require(sidecar.agent?.device?.slice(Int(slot), 1))
                let memory = try #require((sidecar.agent?.device as? EmulatedDevice)?.memory)
                #expect(unsafe memory[first][0] == byte(1, index))
            }
            end(client, held)
        }
    }

    @Test func aBlockDamagedInNodeMemoryIsAMissOnTheDevice() throws {
        try withSidecar { sidecar in
            let client = try attached(sidecar)
            defer { client.close() }
            end(client, try begin(client, seed: 1, count: 8))
            for seed in 2...4 as ClosedRange<UInt64> { end(client, try begin(client, seed: seed, count: 12)) }
            _ = try status(sidecar)
            let agent = try #require(sidecar.agent)
            let key = Sample.names(1, 8)[3].blockKey
            let place = try #require(agent.inspect { $0.slot(of: key, in: .dram) } ?? nil)
            unsafe agent.memory[MemorySlice(offset: Int(place) * Sample.blockBytes, count: 1)][0] ^= 1
            let holding = try begin(client, seed: 1, count: 8)
            #expect(holding.lease?.taken.blocks.count == 3)
            end(client, holding)
            let status = try status(sidecar)
            #expect(status.totals["corrupt_into_engine"] == 1 && status.totals["blocks_corrupt"] == 1)
            #expect(agent.inspect { $0.audit() } == [])
        }
    }

    @Test func blocksOfTheStoreComeUpToTheDevice() throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder)
        try withSidecar(store.name(in:), secret: store.secret) { sidecar in
            let client = try attached(sidecar)
            defer { client.close() }
            end(client, try begin(client, seed: 9, count: 20))
            #expect(Sample.wait { sidecar.agent?.status.totals["blocks_store_put"] == 20 })
        }
        try withSidecar(store.name(in:), secret: store.secret) { sidecar in
            let client = try attached(sidecar)
            defer { client.close() }
            let holding = try begin(client, seed: 9, count: 20)
            #expect(holding.found.flashBlocks == 20 && holding.lease?.taken.blocks.count == 20)
            // What came up has a checksum, compared on the way: its reader may compare it again.
            var copy = [UInt8](repeating: 0, count: Sample.blockBytes)
            let lease = try #require(holding.lease)
            let names = Sample.names(9, 20)
            #expect(unsafe copy.withUnsafeMutableBytes { unsafe lease.copy(7, named: names[7], to: $0) })
            #expect(unsafe !copy.withUnsafeMutableBytes { unsafe lease.copy(7, named: names[8], to: $0) })
            end(client, holding)
        }
    }

    @Test func anEngineThatOwnsItsMemoryIsRefusedAndOneThatDoesNotHasNothingToCopyTo() throws {
        try withSidecar { sidecar in
            let full = try attached(sidecar)
            defer { full.close() }
            let stranger = try engine(sidecar, .host, .none)
            defer { stranger.close() }
            #expect(Sample.wait { stranger.refusal != nil })
            #expect(stranger.refusal?.description.contains("hbm") == true)
            // A commit without a request has nobody to hold its slots by: nothing is taken over.
            let reservation = try #require(reserve(full, 3))
            #expect(commit(reservation, 0..<reservation.reserved.slots.count, Sample.names(3, 3))?.keptCount == 0)
            #expect(reservation.isInForce)
            #expect(try status(sidecar).reservedBytes == 3 * Sample.blockBytes)
        }
    }
}
