// How fast blocks of node memory come into an engine on this machine: through the door of a real agent, one load at a time.

import Foundation
import KVAgent
import KVModel
import KVSystem
import KVTiering
import Logging

/// Loads from node memory, as an engine sees them.
struct HandOverRates {
    /// Of a load: asking, deciding, answering.
    var latencySeconds = 0.0
    /// Of each block beside its bytes.
    var blockSeconds = 0.0
    /// One thread copies and compares.
    var bytesPerSecond = 0.0

    /// Blocks in the longer of the two loads, and how often each is measured.
    private static let blocks = 48
    private static let rounds = 41

    /// Measures loads of one block and of many, of small blocks and of larger ones: what differs says what costs.
    static func measured() throws -> HandOverRates {
        let small = try seconds(blockBytes: 4 << 10)
        let large = try seconds(blockBytes: 256 << 10)
        let (few, many) = (small.each, large.each)
        var rates = HandOverRates()
        let perByte = max(1e-13, (many - few) / Double((256 - 4) << 10))
        rates.bytesPerSecond = 1 / perByte
        rates.blockSeconds = max(0, few - Double(4 << 10) * perByte)
        rates.latencySeconds = max(1e-6, small.one - few)
        return rates
    }

    /// Seconds of a load of one block, and of each further one: medians.
    private static func seconds(blockBytes: Int) throws -> (one: Double, each: Double) {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        var settings = AgentConfiguration()
        settings.socket = folder.appendingPathComponent("door").path
        settings.dram = max(1 << 20, 3 * blocks * blockBytes)
        (settings.hugePages, settings.pinMemory, settings.prefetch) = (false, false, false)
        (settings.policy, settings.planner, settings.copyThreads) = (.lru, .always, 1)
        (settings.numaNode, settings.http) = ("any", "")
        let sidecar = try AgentSidecar(
            settings, in: AgentSurroundings(links: try AgentSettingsReading.links(settings)),
            logger: Logger(label: "calibrate") { _ in SwiftLogNoOpLogHandler() })
        defer { _ = sidecar.drain(within: KVModel.Duration(seconds: 5)) }
        let engine = try LiveEngine(
            socket: settings.socket, blockTokens: 16, blockBytes: blockBytes, rows: blocks)
        defer { engine.client.close(within: KVModel.Duration(seconds: 2)) }
        let names = (0..<blocks).map { LiveBlocks.name(BlockNumber($0)) }
        for (row, name) in names.enumerated() { engine.fill(name, row: row) }
        let saved = LiveAnswer<Bool>()
        engine.client.save(names, first: 0, places: engine.places(0..<blocks)) { _ in saved.set(true) }
        _ = try saved.wait("the end of a save")
        var (one, all): ([Double], [Double]) = ([], [])
        for _ in 0..<rounds {
            one.append(try load(engine, names, count: 1))
            all.append(try load(engine, names, count: blocks))
        }
        let first = one.sorted()[rounds / 2]
        return (first, max(1e-9, (all.sorted()[rounds / 2] - first) / Double(blocks - 1)))
    }

    private static func load(_ engine: LiveEngine, _ names: [ObjectName], count: Int) throws -> Double {
        let found = LiveAnswer<EngineFound>()
        let chain = Array(names[..<count])
        let ticket = engine.client.lookUp(chain, promptTokens: Int32(16 * count + 1)) { found.set($0) }
        _ = try found.wait("an answer to a look-up")
        let loaded = LiveAnswer<EngineLoaded>()
        let start = MonotonicClock.now
        engine.client.load(first: 0, places: engine.places(0..<count), request: ticket) { loaded.set($0) }
        let end = try loaded.wait("the end of a load")
        let seconds = (MonotonicClock.now - start).seconds
        engine.client.finished(EngineRequestEnd(ticket: ticket))
        guard Int(end.end) == count else { throw OperatorError("an agent does not give back what it took") }
        return seconds
    }
}
