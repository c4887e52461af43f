// A device in memory that remembers what is durable and what only its cache holds, so that a test can cut the power at
// any moment and look at every image the device might wake up with.

import KVFlash
import KVModel
import KVSystem

/// A device with a volatile cache. Requests end when the test says so, in any order.
struct ModelledDevice {
    /// A write of which nothing is promised yet.
    struct LooseWrite {
        var offset: Int
        var bytes: [UInt8]
        /// Which flush covers it: those that were sent after it ended.
        var endedAt: Int?
    }

    private let memory: TransferMemory
    /// What survives a power cut for certain.
    private(set) var durable: [UInt8]
    /// Writes under way, and those that ended and were not flushed, in the order they were sent.
    private(set) var loose: [UInt32: LooseWrite] = [:]
    private var looseOrder: [UInt32] = []
    private var nextLoose: UInt32 = 0
    private(set) var underWay: [DeviceRequest] = []
    private var looseOf: [UInt32: UInt32] = [:]
    private var step = 0
    private var flushSentAt = 0
    /// From which flush on they fail; the kernel then drops what was to be flushed.
    var failingFlush = Int.max
    private var flushCount = 0

    init(byteCount: Int, memory: TransferMemory) {
        durable = [UInt8](repeating: 0, count: byteCount)
        self.memory = memory
    }

    mutating func send(_ request: DeviceRequest) {
        step += 1
        underWay.append(request)
        switch request.kind {
        case .write:
            let bytes = unsafe [UInt8](memory[request.memory])
            loose[nextLoose] = LooseWrite(offset: request.offset, bytes: bytes, endedAt: nil)
            looseOrder.append(nextLoose)
            looseOf[request.ticket] = nextLoose
            nextLoose += 1
        case .flush: flushSentAt = step
        case .read, .discard: break
        }
    }

    /// Ends one of the requests under way.
    mutating func end(_ index: Int) -> DeviceCompletion {
        step += 1
        let request = underWay.remove(at: index)
        var result = Int32(request.byteCount)
        switch request.kind {
        case .write: loose[looseOf[request.ticket]!]!.endedAt = step
        case .read:
            let image = newest(request.offset, request.byteCount)
            unsafe memory[request.memory].copyBytes(from: image)
        case .flush:
            flushCount += 1
            let covered = looseOrder.filter { (loose[$0]!.endedAt ?? .max) < flushSentAt }
            let fails = flushCount >= failingFlush
            for number in covered {
                let write = loose.removeValue(forKey: number)!
                if !fails { Self.apply(write, to: &durable) }
            }
            looseOrder.removeAll { loose[$0] == nil }
            result = fails ? -5 : 0
        case .discard: result = 0
        }
        return DeviceCompletion(ticket: request.ticket, result: result)
    }

    private func newest(_ offset: Int, _ count: Int) -> ArraySlice<UInt8> {
        var image = durable
        for number in looseOrder { Self.apply(loose[number]!, to: &image) }
        return image[offset..<(offset + count)]
    }

    private static func apply(_ write: LooseWrite, to image: inout [UInt8], sectors: Range<Int>? = nil) {
        let range =
            sectors.map { $0.lowerBound * 512..<min($0.upperBound * 512, write.bytes.count) }
            ?? 0..<write.bytes.count
        image.replaceSubrange(
            (write.offset + range.lowerBound)..<(write.offset + range.upperBound), with: write.bytes[range])
    }

    /// Images that a power cut now might leave: every subset of the loose writes when there are few, some of them
    /// otherwise, and writes torn between two sectors.
    func imagesAfterPowerCut(_ source: inout RandomSource, countMax: Int, _ body: (borrowing [UInt8]) -> Void) {
        let writes = looseOrder.map { loose[$0]! }
        let allCount = writes.count <= 16 ? 1 << writes.count : Int.max
        for round in 0..<min(allCount, countMax) {
            let chosen = allCount <= countMax ? UInt64(round) : source.next()
            var image = durable
            for (index, write) in writes.enumerated() where chosen >> UInt64(index) & 1 == 1 {
                Self.apply(write, to: &image)
            }
            body(image)
        }
        guard let torn = writes.indices.randomElement(using: &source) else { return }
        var image = durable
        for (index, write) in writes.enumerated() where index != torn && source.below(2) == 0 {
            Self.apply(write, to: &image)
        }
        let sectorCount = (writes[torn].bytes.count + 511) / 512
        let cut = source.below(sectorCount)
        Self.apply(writes[torn], to: &image, sectors: source.below(2) == 0 ? 0..<cut : cut..<sectorCount)
        body(image)
    }
}
