// The promise that all restarts rest on, held against every image a power cut might leave: a valid header's data is
// complete and its own, what was acknowledged is there, what was erased is gone, and the extents add up.

import KVFlash
import KVModel
import KVSystem
import Testing

/// An owner of one drive that follows the rules, over the real scheduler and a modelled device, with power cuts after
/// every step.
private struct PowerCutRun {
    struct Written {
        var object: FlashObject
        var isAcknowledged = false
        var eraseIsAsked = false
        var isErased = false
    }

    static let geometry = try! FlashGeometry(totalBytes: 10 * (68 << 10) + (192 << 10), extentBytes: 64 << 10)
    static let drive = FlashUUID(5, 6)

    var source: RandomSource
    let memory: BlockMemory
    var scheduler: DriveScheduler
    var device: ModelledDevice
    var allocator = ExtentAllocator(count: geometry.extentCount)
    var freeSlots = Array(0..<6)
    var written: [UInt64: Written] = [:]
    var slots: [UInt64: Int] = [:]
    var generation: UInt64 = 0
    var isReadOnly = false
    var imageCount = 0
    var violations: [String] = []
    let countMax: Int

    init(seed: UInt64, knowsOfTheCache: Bool, countMax: Int) throws {
        source = RandomSource(seed: seed)
        self.countMax = countMax
        memory = try BlockMemory(byteCount: 6 * (128 << 10))
        let configuration = FlashDriveConfiguration(
            commandCountMax: 16, transferCountMax: 4, writeTransferCountMax: 3, transferBytesMax: 64 << 10,
            readBytesMax: 128 << 10, readRunMax: 2, timeout: Duration(seconds: 9))
        let transferMemory = try TransferMemory(memory, headerCount: 16)
        scheduler = DriveScheduler(
            device: DriveScheduler.Device(
                geometry: Self.geometry, drive: Self.drive, hasVolatileCache: knowsOfTheCache, canDiscard: true),
            configuration: configuration, memory: transferMemory)
        device = ModelledDevice(byteCount: Self.geometry.totalBytes, memory: transferMemory)
    }

    mutating func run(steps: Int) {
        for _ in 0..<steps {
            if source.below(3) == 0 { command() }
            while let request = scheduler.nextRequest(at: .zero) { device.send(request) }
            if !device.underWay.isEmpty {
                scheduler.complete(device.end(source.below(device.underWay.count)))
                while let request = scheduler.nextRequest(at: .zero) { device.send(request) }
            }
            for event in scheduler.events { take(event) }
            scheduler.events.removeAll()
            let oracle = written
            var found: [String] = []
            var count = 0
            device.imagesAfterPowerCut(&source, countMax: countMax) { image in
                count += 1
                found += Self.problems(image, oracle)
            }
            imageCount += count
            violations += found
        }
    }

    private mutating func command() {
        let live = written.values.filter { $0.isAcknowledged && !$0.eraseIsAsked }
            .sorted { $0.object.generation < $1.object.generation }
        if source.below(3) == 0, let victim = live.randomElement(using: &source)?.object {
            written[victim.generation]!.eraseIsAsked = true
            generation += 1
            scheduler.accept(
                .erase(tag: victim.generation, firstExtent: victim.extents[0], generation: generation), at: .zero)
            return
        }
        let count = 1 + source.below(2)
        guard let slot = freeSlots.popLast() else { return }
        guard let extents = allocator.reserve(count) else {
            freeSlots.append(slot)
            return
        }
        generation += 1
        var object = testObject(
            // Few names, so that one is often written anew while its older object is still there.
            UInt64(source.below(4)), payloadBytes: count * 65536 - source.below(5000), extents: extents,
            generation: generation)
        let slice = MemorySlice(offset: slot * (128 << 10), count: object.payloadBytes)
        object.checksum = fill(memory, slice, object.name, seed: generation)
        slots[generation] = slot
        written[generation] = Written(object: object)
        scheduler.accept(.write(tag: generation, object, from: slice, isVolatile: false), at: .zero)
    }

    private mutating func take(_ event: FlashEvent) {
        switch event {
        case .written(let tag, let outcome):
            if let slot = slots.removeValue(forKey: tag) { freeSlots.append(slot) }
            if outcome == .done {
                // Nothing since the last good flush is acknowledged.
                if isReadOnly { violations.append("a write acknowledged by a read-only drive") }
                written[tag]!.isAcknowledged = true
            } else if outcome != .readOnly {
                violations.append("a write ended as \(outcome)")
            }
        case .erased(let tag, let outcome):
            guard outcome == .done else { return }
            written[tag]!.isErased = true
            allocator.release(written[tag]!.object.extents)
        case .becameReadOnly: isReadOnly = true
        case .read, .released: violations.append("an event that nothing asked for")
        }
    }

    /// What is wrong with an image after the restart scan.
    private static func problems(_ image: borrowing [UInt8], _ oracle: [UInt64: Written]) -> [String] {
        var problems: [String] = []
        var allocator = ExtentAllocator(count: geometry.extentCount)
        var found: Set<UInt64> = []
        var census = HeaderCensus(
            superblock: Superblock(
                identity: DriveIdentity(drive: drive, store: FlashUUID(0, 0)), geometry: geometry))
        unsafe image.withUnsafeBytes { bytes in
            let area = FlashGeometry.headerAreaOffset
            let headers = unsafe UnsafeRawBufferPointer(
                rebasing: bytes[area..<(area + geometry.extentCount * FlashGeometry.headerBytes)])
            unsafe census.add(headers, from: 0) { event in
                guard case .object(let object) = event else { return }
                found.insert(object.generation)
                if !allocator.claim(object.extents) { problems.append("two objects claim an extent") }
                guard let wanted = oracle[object.generation], wanted.object == object else {
                    return problems.append("an object nobody wrote")
                }
                if wanted.isErased { problems.append("an erased object is back") }
                var checksum = BlockChecksum.begin(object.name, payloadBytes: object.payloadBytes)
                for index in 0..<object.extents.count {
                    let start = geometry.offset(ofExtent: object.extents[index])
                    let count = min(geometry.extentBytes, object.payloadBytes - index * geometry.extentBytes)
                    unsafe checksum.add(UnsafeRawBufferPointer(rebasing: bytes[start..<(start + count)]))
                }
                if checksum.value != object.checksum { problems.append("a valid header over other data") }
            }
        }
        if census.finish({ _ in }).voidCount > 0 { problems.append("a header that outlived its data") }
        for (generation, written) in oracle where written.isAcknowledged && !written.eraseIsAsked {
            if !found.contains(generation) { problems.append("an acknowledged object is lost") }
        }
        return problems
    }
}

@Suite struct InvariantTests {
    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8] as [UInt64])
    func aValidHeadersDataIsCompleteAndItsOwnAfterEveryPowerCut(seed: UInt64) throws {
        var run = try PowerCutRun(seed: seed, knowsOfTheCache: true, countMax: 16)
        run.run(steps: 800)
        #expect(run.violations.isEmpty)
        #expect(run.imageCount > 2000)
        #expect(run.written.values.filter(\.isErased).count >= 5)
        #expect(run.written.values.filter(\.isAcknowledged).count >= 20)
    }

    /// The same checks find what they look for: a drive that does not flush a cache that is there loses objects.
    @Test func theChecksSeeADeviceThatLiesAboutItsCache() throws {
        var run = try PowerCutRun(seed: 5, knowsOfTheCache: false, countMax: 16)
        run.run(steps: 150)
        #expect(run.violations.contains("an acknowledged object is lost"))
        #expect(run.violations.contains("a valid header over other data"))
    }

    @Test func afterAFailedFlushNothingIsAcknowledgedAndNothingAcknowledgedIsLost() throws {
        var run = try PowerCutRun(seed: 6, knowsOfTheCache: true, countMax: 8)
        run.device.failingFlush = 20
        run.run(steps: 300)
        #expect(run.isReadOnly)
        #expect(run.violations.isEmpty)
        #expect(run.written.values.contains { $0.isAcknowledged })
        #expect(run.slots.isEmpty)
    }
}
