// How fast this machine's flash is under the store's own engine, on a scratch file.

import Foundation
import KVFlash
import KVModel
import KVSystem

/// What is measured.
struct FlashPlan {
    var fileBytes: Int
    var blockSizes: [Int]
    var depths: [Int]
    /// Bytes moved for each point.
    var pointBytes: Int

    static let quick = FlashPlan(fileBytes: 96 << 20, blockSizes: [2 << 20], depths: [1, 8], pointBytes: 64 << 20)
    static let full = FlashPlan(
        fileBytes: 4 << 30, blockSizes: [2 << 20, 4 << 20, 8 << 20, 16 << 20], depths: [1, 2, 4, 8, 16, 32],
        pointBytes: 2 << 30)
}

/// One measurement.
struct FlashPoint: Encodable {
    var isWrite: Bool
    var blockBytes: Int
    var depth: Int
    var bytesPerSecond: Double
    /// From handing a command over to its end.
    var medianSeconds: Double
}

/// Rates of flash.
struct FlashRates {
    var points: [FlashPoint]
    /// A read of 4 KiB with nothing else under way, the median.
    var firstByteSeconds: Double

    var bestRead: Double { points.filter { !$0.isWrite }.map(\.bytesPerSecond).max() ?? 0 }
    var bestWrite: Double { points.filter(\.isWrite).map(\.bytesPerSecond).max() ?? 0 }

    /// Measures in a folder; `progress` is told how much is done, from 0 to 1.
    static func measured(
        folder: String, plan: FlashPlan, progress: (Double) -> Void
    ) throws(OperatorError) -> FlashRates {
        let path = "\(folder)/holdfast-calibrate-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        do {
            let load = try CalibrationLoad(path: path, plan: plan)
            defer { load.drive.shutDown() }
            var points: [FlashPoint] = []
            let count = plan.blockSizes.count * plan.depths.count * 2
            for isWrite in [true, false] {
                for blockBytes in plan.blockSizes {
                    for depth in plan.depths {
                        points.append(
                            try load.measure(
                                isWrite: isWrite, blockBytes: blockBytes, readBytes: blockBytes, depth: depth,
                                count: max(2 * depth, plan.pointBytes / blockBytes)))
                        progress(Double(points.count) / Double(count))
                    }
                }
            }
            let first = try load.measure(
                isWrite: false, blockBytes: plan.blockSizes[0], readBytes: 4096, depth: 1, count: 500)
            return FlashRates(points: points, firstByteSeconds: first.medianSeconds)
        } catch let error as FlashError {
            throw error.operatorError.under(folder)
        } catch {
            throw OperatorError("\(error)", at: folder)
        }
    }
}

/// A drive on a scratch file, and blocks under way on it.
private final class CalibrationLoad {
    private static let extentBytes = 2 << 20
    let drive: FlashDrive
    private let extentCount: Int
    private let slotBytes: Int
    private let inbox: Mailbox<FlashEvent>
    private let signal: WakeSignal
    private var generation: UInt64 = 0
    private var random = RandomSource(seed: 1)

    /// Formats the file and writes each extent once, so that what is measured extends nothing.
    init(path: String, plan: FlashPlan) throws {
        try FlashDevice.format(
            path: path, byteCount: plan.fileBytes, extentBytes: Self.extentBytes,
            identity: DriveIdentity(drive: try .random(), store: try .random()), force: false)
        let device = try FlashDevice(path: path)
        extentCount = device.geometry.extentCount
        slotBytes = plan.blockSizes.max()!
        let memory = try BlockMemory(byteCount: slotBytes * plan.depths.max()!)
        // Content that no device can compress.
        var source = RandomSource(seed: 2)
        let words = unsafe memory.regions[0].bindMemory(to: UInt64.self)
        for index in words.indices { unsafe words[index] = source.next() }
        let signal = try WakeSignal()
        let inbox = Mailbox<FlashEvent>(capacity: 1024, waking: signal)
        self.signal = signal
        self.inbox = inbox
        drive = try FlashDrive(device, memory: memory, configuration: .standard) { _ = inbox.post($0) }
        var next = 0
        _ = try run(depth: 1, count: extentCount) { slot in
            write(block: next, blockBytes: Self.extentBytes, slot: slot)
            next += 1
        }
    }

    /// Moves `count` blocks, `depth` of them under way; writes go through the blocks in a random order, so that no
    /// two commands write the same.
    func measure(isWrite: Bool, blockBytes: Int, readBytes: Int, depth: Int, count: Int) throws -> FlashPoint {
        let order = (0..<(extentCount * Self.extentBytes / blockBytes)).shuffled(using: &random)
        let depth = min(depth, order.count)
        var position = 0
        let run = try run(depth: depth, count: count) { slot in
            let block = order[position % order.count]
            position += 1
            if isWrite {
                write(block: block, blockBytes: blockBytes, slot: slot)
            } else {
                let into = MemorySlice(offset: slot * slotBytes, count: readBytes)
                _ = drive.post(.read(tag: UInt64(slot), extents(block, blockBytes), into: into))
            }
        }
        return FlashPoint(
            isWrite: isWrite, blockBytes: blockBytes, depth: depth,
            bytesPerSecond: Double(count * readBytes) / run.seconds, medianSeconds: run.median)
    }

    private func run(
        depth: Int, count: Int, begin: (Int) -> Void
    ) throws -> (seconds: Double, median: Double) {
        var began = [Instant](repeating: MonotonicClock.now, count: depth)
        var latencies: [Int64] = []
        var batch: [FlashEvent] = []
        var begun = 0
        func beginNext(_ slot: Int) {
            guard begun < count else { return }
            begun += 1
            began[slot] = MonotonicClock.now
            begin(slot)
        }
        let start = MonotonicClock.now
        for slot in 0..<depth { beginNext(slot) }
        while latencies.count < count {
            signal.prepareToSleep()
            if inbox.isEmpty { signal.wait(atMost: Duration(seconds: 60)) }
            signal.awake()
            inbox.drain(into: &batch)
            guard !batch.isEmpty || MonotonicClock.now - start < Duration(seconds: 600) else {
                throw OperatorError("the drive is silent")
            }
            for event in batch {
                switch event {
                case .read(let tag, .done), .written(let tag, .done):
                    latencies.append((MonotonicClock.now - began[Int(tag)]).nanoseconds)
                    beginNext(Int(tag))
                default: throw OperatorError("the drive failed: \(event)")
                }
            }
        }
        let seconds = Double((MonotonicClock.now - start).nanoseconds) / 1e9
        return (seconds, Double(latencies.sorted()[latencies.count / 2]) / 1e9)
    }

    private func write(block: Int, blockBytes: Int, slot: Int) {
        generation += 1
        let object = FlashObject(
            name: ObjectName(FullKey(UInt64(block), 1, 2, 3)), metadata: ObjectMetadata(), namespace: 0,
            payloadBytes: blockBytes, checksum: 0, generation: generation, extents: extents(block, blockBytes))
        let from = MemorySlice(offset: slot * slotBytes, count: blockBytes)
        _ = drive.post(.write(tag: UInt64(slot), object, from: from, isVolatile: false))
    }

    private func extents(_ block: Int, _ blockBytes: Int) -> ExtentList {
        let count = blockBytes / Self.extentBytes
        return ExtentList(UInt32(block * count)..<UInt32((block + 1) * count))
    }
}
