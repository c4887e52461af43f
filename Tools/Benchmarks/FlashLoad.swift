// Our side of the flash benchmark: blocks read from and written to a drive with a number of them under way.

import Foundation
import KVFlash
import KVModel
import KVSystem

/// What one run took.
struct FlashRun {
    /// Wall and processor seconds for 10⁹ bytes.
    var wall: Double
    var processor: Double
    /// From handing a command over to its answer, sorted.
    var latencies: [Duration] = []
    var flushCount = 0

    /// The latency that so much of the blocks stay below, in microseconds.
    func percentile(_ part: Double) -> Double {
        Double(latencies[min(latencies.count - 1, Int(Double(latencies.count) * part))].nanoseconds) / 1000
    }
}

/// A drive on a file that holds known bytes everywhere.
final class FlashLoad {
    static let extentBytes = 2 << 20
    let device: FlashDevice
    let drive: FlashDrive
    private let memory: BlockMemory
    private let inbox: Mailbox<FlashEvent>
    private let signal: WakeSignal
    private var events: [FlashEvent] = []
    private var checksums: [Int: [UInt64]] = [:]
    private var generation: UInt64 = 1

    /// Formats a file of about `byteCount` bytes and writes every extent once, so that no later write extends anything.
    init(path: String, byteCount: Int) throws {
        try FlashDevice.format(
            path: path, byteCount: byteCount, extentBytes: Self.extentBytes,
            identity: DriveIdentity(drive: try .random(), store: try .random()), force: true)
        device = try FlashDevice(path: path)
        memory = try BlockMemory(byteCount: 512 << 20)
        let signal = try WakeSignal()
        let inbox = Mailbox<FlashEvent>(capacity: 1024, waking: signal)
        self.signal = signal
        self.inbox = inbox
        drive = try FlashDrive(device, memory: memory, configuration: .standard) { _ = inbox.post($0) }
        let words = unsafe memory.regions[0].bindMemory(to: UInt64.self)
        var source = RandomSource(seed: 4)
        for index in 0..<(Self.extentBytes / 8) { unsafe words[index] = source.next() }
        for extent in 0..<device.geometry.extentCount {
            unsafe words[extent % 1000] = UInt64(extent)
            try write(extent, slot: 0, blockBytes: Self.extentBytes, isVolatile: true)
            _ = try next()
        }
    }

    /// How many blocks of a size the drive holds.
    func blockCount(_ blockBytes: Int) -> Int {
        device.geometry.extentCount / max(1, blockBytes / Self.extentBytes)
    }

    private func extents(_ block: Int, _ blockBytes: Int) -> ExtentList {
        let count = max(1, blockBytes / Self.extentBytes)
        var list = ExtentList()
        for extent in block * count..<(block + 1) * count { list.append(UInt32(extent)) }
        return list
    }

    private func slice(_ slot: Int, _ blockBytes: Int) -> MemorySlice {
        MemorySlice(offset: slot * blockBytes, count: blockBytes)
    }

    private func name(_ block: Int) -> ObjectName { ObjectName(FullKey(mixBits(UInt64(block)), 1, 2, 3)) }

    private func checksum(_ block: Int, slot: Int, _ blockBytes: Int) -> UInt64 {
        unsafe BlockChecksum.of(name(block), UnsafeRawBufferPointer(memory[slice(slot, blockBytes)]))
    }

    private func next() throws -> FlashEvent {
        while events.isEmpty {
            inbox.drain(into: &events)
            if !events.isEmpty { break }
            signal.prepareToSleep()
            var wait = pollfd(fd: signal.descriptor, events: Int16(POLLIN), revents: 0)
            if inbox.isEmpty, unsafe poll(&wait, 1, 60_000) == 0 { throw BenchmarkFailure(what: "the drive is silent") }
            signal.awake()
        }
        return events.removeFirst()
    }

    /// Learns what each block of a size holds.
    func learn(_ blockBytes: Int) throws {
        guard checksums[blockBytes] == nil else { return }
        var sums: [UInt64] = []
        for block in 0..<blockCount(blockBytes) {
            _ = drive.post(.read(tag: 0, extents(block, blockBytes), into: slice(0, blockBytes)))
            guard case .read(_, .done) = try next() else { throw BenchmarkFailure(what: "a read failed") }
            sums.append(checksum(block, slot: 0, blockBytes))
        }
        checksums[blockBytes] = sums
    }

    /// Reads random blocks, `depth` of them under way; each is checked when `verifies`.
    func read(_ blockBytes: Int, depth: Int, count: Int, verifies: Bool, seed: UInt64) throws -> FlashRun {
        var source = RandomSource(seed: seed)
        var blocks = [Int](repeating: 0, count: depth)
        return try run(depth: depth, count: count, blockBytes: blockBytes) { slot in
            blocks[slot] = source.below(blockCount(blockBytes))
            _ = drive.post(
                .read(tag: UInt64(slot), extents(blocks[slot], blockBytes), into: slice(slot, blockBytes)))
        } end: { slot in
            if verifies, checksum(blocks[slot], slot: slot, blockBytes) != checksums[blockBytes]![blocks[slot]] {
                throw BenchmarkFailure(what: "a block is not what was written")
            }
        }
    }

    /// Writes random blocks, restart-safe; the checksum of each is taken before when `sums`.
    func write(_ blockBytes: Int, depth: Int, count: Int, sums: Bool, seed: UInt64) throws -> FlashRun {
        var source = RandomSource(seed: seed)
        let flushes = drive.counters.flushes
        // No block is written by two commands at once.
        let order = (0..<blockCount(blockBytes)).shuffled(using: &source)
        var position = 0
        var result = try run(depth: depth, count: count, blockBytes: blockBytes) { slot in
            let block = order[position % order.count]
            position += 1
            let sum = sums ? checksum(block, slot: slot, blockBytes) : 0
            try write(block, slot: slot, blockBytes: blockBytes, isVolatile: false, checksum: sum)
        } end: { _ in
        }
        result.flushCount = drive.counters.flushes - flushes
        return result
    }

    private func write(
        _ block: Int, slot: Int, blockBytes: Int, isVolatile: Bool, checksum: UInt64 = 0
    ) throws {
        generation += 1
        let object = FlashObject(
            name: name(block), metadata: ObjectMetadata(), namespace: 0, payloadBytes: blockBytes, checksum: checksum,
            generation: generation, extents: extents(block, blockBytes))
        _ = drive.post(
            .write(tag: UInt64(slot), object, from: slice(slot, blockBytes), isVolatile: isVolatile))
    }

    private func run(
        depth: Int, count: Int, blockBytes: Int, begin: (Int) throws -> Void, end: (Int) throws -> Void
    ) throws -> FlashRun {
        var began = [Instant](repeating: .zero, count: depth)
        var latencies: [Duration] = []
        latencies.reserveCapacity(count)
        let start = MonotonicClock.now
        let processor = try seconds {
            var sent = 0
            while sent < min(depth, count) {
                began[sent] = MonotonicClock.now
                try begin(sent)
                sent += 1
            }
            for _ in 0..<count {
                let slot: Int
                switch try next() {
                case .read(let tag, .done), .written(let tag, .done): slot = Int(tag)
                case let event: throw BenchmarkFailure(what: "the drive says \(event)")
                }
                latencies.append(MonotonicClock.now - began[slot])
                try end(slot)
                if sent < count {
                    began[slot] = MonotonicClock.now
                    try begin(slot)
                    sent += 1
                }
            }
        }
        let gigabytes = Double(count * blockBytes) * 1e-9
        return FlashRun(
            wall: (MonotonicClock.now - start).seconds / gigabytes, processor: processor / gigabytes,
            latencies: latencies.sorted())
    }

    /// Seconds for the checksum of 10⁹ bytes of blocks, alone.
    func checksumPass(_ blockBytes: Int) -> Double {
        let count = max(4, (256 << 20) / blockBytes)
        let taken = seconds {
            for index in 0..<count { keep(checksum(index, slot: index % ((512 << 20) / blockBytes), blockBytes)) }
        }
        return taken / (Double(count * blockBytes) * 1e-9)
    }
}

/// A benchmark cannot be run, or what it ran went wrong.
struct BenchmarkFailure: Error, CustomStringConvertible {
    var what: String
    var description: String { what }
}
