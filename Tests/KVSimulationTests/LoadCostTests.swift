// What loads should take follows from the profile alone: from loads that were measured to costs, from costs to paths, and by the
// planner's own price to seconds.

import Foundation
import KVModel
import KVReport
import KVSimulation
import KVTiering
import Testing

@Suite struct LoadCostTests {
    private let counts = [1, 4, 16, 64]

    private func isClose(_ left: Double, _ right: Double) -> Bool { abs(left - right) <= 1e-6 * right + 2e-9 }

    /// A machine whose loads take so long: two sizes of blocks, three tiers.
    private func profile(_ loads: String) throws -> DeviceProfile {
        try DeviceProfile(
            json: Data(#"{"schema": "holdfast-profile-1", "loads": \#(loads)}"#.utf8), at: "machine.json")
    }

    @Test func theLineGoesThroughLoadsThatLieOnOne() {
        let loads = counts.map { (blocks: $0, seconds: 2e-4 + Double($0) * 3e-5) }
        let cost = LoadCost(blockBytes: 65_536, fitting: loads)
        #expect(isClose(cost.latencySeconds, 2e-4) && isClose(cost.blockSeconds, 3e-5))
        #expect(isClose(cost.seconds(blocks: 10), 5e-4))
    }

    @Test func aLineThroughOneCountOfBlocksIsAllBlocks() {
        let cost = LoadCost(blockBytes: 4096, fitting: [(4, 2e-4), (4, 2e-4)])
        #expect(cost.latencySeconds == 0 && isClose(cost.blockSeconds, 5e-5))
    }

    @Test func aLoadNeverTakesLessThanNoTime() {
        // Blocks that cost more the more there are would put the line below zero at none.
        let steep = LoadCost(blockBytes: 4096, fitting: [(1, 1e-5), (4, 1e-3), (16, 1e-2)])
        #expect(steep.latencySeconds == 0 && steep.blockSeconds > 0)
        // Loads that take longer the fewer blocks they have would let it fall.
        let falling = LoadCost(blockBytes: 4096, fitting: [(1, 1e-3), (64, 5e-4)])
        #expect(falling.blockSeconds == 0 && falling.latencySeconds > 5e-4 && falling.latencySeconds < 1e-3)
    }

    /// A load of one block is as near to the line, in its own measure, as one of sixty-four.
    @Test func shortLoadsCountAsMuchAsLongOnes() {
        // A tenth too slow at both ends, a tenth too fast between: no line by absolute errors would leave the first so near.
        let loads = zip(counts, [1.1, 0.9, 0.9, 1.1]).map { (blocks: $0, seconds: (1e-4 + Double($0) * 1e-4) * $1) }
        let cost = LoadCost(blockBytes: 65_536, fitting: loads)
        for load in loads { #expect(abs(cost.seconds(blocks: load.blocks) / load.seconds - 1) < 0.15) }
    }

    @Test func betweenTwoSizesCostsLieOnALineAndBeyondThemBytesDecide() throws {
        let profile = try profile(
            """
            {"dram": [{"blockBytes": 3000000, "latencySeconds": 3e-4, "blockSeconds": 9e-4},
                      {"blockBytes": 1000000, "latencySeconds": 1e-4, "blockSeconds": 1e-4}]}
            """)
        for (bytes, delay, each) in [
            (1_000_000, 1e-4, 1e-4), (2_000_000, 2e-4, 5e-4), (3_000_000, 3e-4, 9e-4), (500_000, 1e-4, 1e-4),
            (6_000_000, 3e-4, 1.8e-3),
        ] {
            let link = profile.links(blockBytes: bytes).dram
            #expect(isClose(link.delay.seconds, delay), "\(bytes)")
            #expect(isClose(Double(bytes) / link.bandwidth, each), "\(bytes)")
        }
        // Nobody has said of which blocks: of the largest.
        #expect(isClose(3e6 / profile.links(blockBytes: nil).dram.bandwidth, 9e-4))
        // What was not measured is believed as before.
        #expect(profile.links(blockBytes: nil).flash == LinkView.cautious.flash)
    }

    @Test(arguments: [
        (#"{"hostNic": {"bytesPerSecond": 1e9}}"#, "hostNic"),
        (#"{"nvme": {"readBytesPerSecond": 1e9, "latency": 1e-4}}"#, "nvme.latency"),
        (
            #"{"loads": {"dram": [{"blockBytes": 65536, "latencySeconds": 1e-4, "blockSeconds": 1e-5, "note": 1}]}}"#,
            "loads.dram[0].note"
        ),
    ])
    func anUnknownKeyOfAProfileIsRefused(_ text: String, _ key: String) throws {
        let json = text.replacing("{", with: #"{"schema": "holdfast-profile-1", "#, maxReplacements: 1)
        let error = #expect(throws: OperatorError.self) { try DeviceProfile(json: Data(json.utf8), at: "machine.json") }
        #expect(error?.description.contains("`\(key)` is not a key") == true, "\(String(describing: error))")
    }

    @Test func aLoadIsPredictedFromTheProfileAsThePlannerPricesIt() throws {
        let links = try profile(
            """
            {"dram":  [{"blockBytes": 65536, "latencySeconds": 1e-4, "blockSeconds": 2e-5}],
             "nvme":  [{"blockBytes": 65536, "latencySeconds": 3e-4, "blockSeconds": 5e-5}],
             "flash": [{"blockBytes": 65536, "latencySeconds": 5e-4, "blockSeconds": 1e-4}]}
            """
        ).links(blockBytes: 65_536)
        func seconds(_ dram: Int, _ nvme: Int, _ flash: Int) -> Double {
            links.seconds(of: (dram, nvme, flash), blockBytes: 65_536, sliceBlocks: 32)
        }
        #expect(seconds(0, 0, 0) == 0)
        #expect(isClose(seconds(10, 0, 0), 1e-4 + 10 * 2e-5))
        // From below: its own way, and the last slice on into the engine.
        #expect(isClose(seconds(0, 10, 0), 3e-4 + 10 * 5e-5 + 10 * 2e-5))
        #expect(isClose(seconds(0, 0, 40), 5e-4 + 40 * 1e-4 + 32 * 2e-5))
        // What is in node memory goes in meanwhile; the longer way counts.
        #expect(isClose(seconds(10, 0, 10), 5e-4 + 10 * 1e-4 + 10 * 2e-5))
        #expect(isClose(seconds(1000, 0, 1), 1e-4 + 1001 * 2e-5))
    }

    /// From loads that a machine took to the seconds that its profile says: the same.
    @Test func whatWasMeasuredIsWhatIsPredicted() throws {
        let slice = 32
        let inMemory = counts.map { (blocks: $0, seconds: 9e-5 + Double($0) * 2.5e-5) }
        let fromStore = counts.map { count in
            (blocks: count, seconds: 6e-4 + Double(count) * 8e-5 + Double(min(count, slice)) * 2.5e-5)
        }
        let dram = LoadCost(blockBytes: 65_536, fitting: inMemory)
        var costs = LoadCosts()
        costs.dram = [dram]
        costs.flash = [LoadCost(blockBytes: 65_536, fittingWhole: fromStore, dram: dram, sliceBlocks: slice)]
        let text = String(decoding: try JSONEncoder().encode(costs), as: UTF8.self)
        let links = try profile(text).links(blockBytes: 65_536)
        for load in inMemory {
            #expect(
                isClose(
                    links.seconds(of: (load.blocks, 0, 0), blockBytes: 65_536, sliceBlocks: slice), load.seconds))
        }
        for load in fromStore {
            #expect(
                isClose(
                    links.seconds(of: (0, 0, load.blocks), blockBytes: 65_536, sliceBlocks: slice), load.seconds))
        }
    }

    @Test(arguments: [
        (#"{"dram": [{"blockBytes": 0, "latencySeconds": 0, "blockSeconds": 1e-5}]}"#, "loads.dram"),
        (#"{"nvme": [{"blockBytes": 4096, "latencySeconds": -1, "blockSeconds": 1e-5}]}"#, "loads.nvme"),
        (#"{"flash": [{"blockBytes": 4096, "latencySeconds": 0, "blockSeconds": 7}]}"#, "loads.flash"),
        (#"{"flash": [{"blockBytes": 4096, "latencySeconds": 0}]}"#, "blockSeconds"),
    ])
    func costsThatCannotBeAreRefused(_ loads: String, _ word: String) throws {
        let error = try #require(throws: OperatorError.self) { try profile(loads) }
        #expect("\(error)".contains(word), "\(error)")
    }

    @Test func loadsAreReportedByTierAndBySize() {
        func load(_ tier: Tier?, _ blocks: Int, _ measured: Double) -> PredictedLoad {
            PredictedLoad(tier: tier, blocks: blocks, predictedSeconds: 1e-3, measuredSeconds: measured)
        }
        var loads = (0..<5).map { _ in load(.flash, 3, 1e-3) } + (0..<6).map { _ in load(.flash, 20, 3e-3) }
        // Too few to be told apart, but of the whole.
        loads += [load(.flash, 100, 9e-3), load(.dram, 7, 2e-3)]
        // From two tiers at once: no word on either.
        loads += [load(nil, 30, 5e-3)]
        let rows = LoadTimes.rows(of: loads)
        #expect(rows.map(\.tier) == ["dram", "flash", "flash", "flash", LoadTimes.several])
        #expect(rows.map(\.count) == [1, 12, 5, 6, 1])
        #expect(rows.map(\.blocksMin) == [nil, nil, 3, 20, nil])
        #expect(zip(rows.map(\.ratio), [2.0, 3, 1, 3, 5]).allSatisfy { isClose($0, $1) })
        #expect(rows[2].words.hasPrefix("5 loads of 3 blocks took 1"))
    }
}
