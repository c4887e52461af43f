// Damage on flash and on the way from it, read by read: nothing damaged may pass the check, nothing whole may fail it.

import Foundation
import KVFlash
import KVModel
import KVSystem

/// Objects of one size on one drive, damaged and read.
struct FlashCorruptionCampaign {
    let quick: Bool
    let seed: UInt64

    /// What is done to the bytes of an object on flash before it is read.
    enum Damage: CaseIterable {
        case flipFirst, flipLast, flipAnywhere, torn, truncated, stale, swapped, misdirected, lostWrite
    }

    func run() throws -> [CampaignResult] {
        try reads(extentBytes: 64 << 10, objectCount: 512, count: quick ? 20_000 : 1_000_000)
            + reads(extentBytes: 2 << 20, objectCount: 64, count: quick ? 500 : 10_000) + [headers()]
    }

    private static let batch = 16

    /// Reads with every tenth object damaged on flash, and every fiftieth on the way. The control is the same reads with
    /// the check left out.
    private func reads(extentBytes: Int, objectCount: Int, count: Int) throws -> [CampaignResult] {
        let size = extentBytes >= 1 << 20 ? "\(extentBytes >> 20) MiB" : "\(extentBytes >> 10) KiB"
        var result = CampaignResult(name: "flash corruption \(size)")
        var control = CampaignResult(name: "flash corruption \(size), control without checks")
        let began = Date()
        let folder = try ScratchFolder()
        let bench = try DamageBench(folder.path + "/drive", extentBytes: extentBytes, objectCount: objectCount, seed)
        var source = RandomSource(seed: seed ^ UInt64(extentBytes))
        while result.trials < count {
            let chosen = (0..<Self.batch).map { _ in source.below(objectCount) }
            var damaged: Set<Int> = []
            for index in chosen where source.below(10) == 0 {
                guard let damage = Damage.allCases.randomElement(using: &source) else { continue }
                try bench.damage(index, damage, &source)
                damaged.insert(index)
            }
            for (slot, index) in chosen.enumerated() { bench.read(index, into: slot) }
            for _ in chosen.indices {
                guard let answer = bench.answer() else {
                    result.hangs += 1
                    continue
                }
                result.trials += 1
                guard answer.isDone else { continue }
                let index = chosen[answer.slot]
                let passes = bench.passesCheck(index, answer.slot)
                let isRight = bench.isRight(index, answer.slot)
                if passes, !isRight { result.wrongBytes += 1 }
                if !passes { result.detected += 1 }
                // A whole object that fails the check would be lost for nothing.
                if !passes, isRight { result.lostAcknowledged += 1 }
                control.trials += 1
                if !isRight { control.wrongBytes += 1 }
            }
            for index in damaged { try bench.mend(index) }
            if !damaged.isEmpty { try bench.mendNeighbours() }
        }
        bench.shutDown()
        result.seconds = Date().timeIntervalSince(began)
        control.seconds = result.seconds
        return [result, control]
    }

    /// Every byte of a header flipped in one bit, and random damage: none may be believed.
    private func headers() throws -> CampaignResult {
        var result = CampaignResult(name: "flash corruption headers")
        let began = Date()
        var source = RandomSource(seed: seed)
        let geometry = try FlashGeometry(totalBytes: 64 << 20, extentBytes: 64 << 10)
        let drive = FlashUUID(seed, 3)
        let objects = CampaignObjects(extentBytes: 64 << 10)
        let memory = try BlockMemory(byteCount: CampaignObjects.payloadExtentsMax << 16)
        let object = unsafe objects.make(5, ExtentList([7, 3, 9].prefix(objects.extentCount(5))), memory.regions[0])
        let page = try BlockMemory(byteCount: 4096)
        let bytes = unsafe page.regions[0]
        unsafe BlockHeader.encode(object, drive: drive, into: bytes)
        let whole = unsafe [UInt8](bytes)
        for trial in 0..<(quick ? 40_000 : 2_000_000) {
            unsafe bytes.copyBytes(from: whole)
            if trial < 4096 * 8 {
                unsafe bytes[trial / 8] ^= 1 << UInt8(trial % 8)
            } else {
                let start = source.below(4096)
                for index in start..<min(4096, start + 1 + source.below(600)) {
                    unsafe bytes[index] = UInt8(truncatingIfNeeded: source.next())
                }
            }
            result.trials += 1
            let content = unsafe BlockHeader.decode(
                UnsafeRawBufferPointer(bytes), extent: 7, drive: drive, geometry: geometry)
            switch content {
            case .object(let read): if read != object { result.wrongBytes += 1 }
            case .tombstone: result.lostAcknowledged += 1
            case .damaged, .blank: result.detected += 1
            }
        }
        result.seconds = Date().timeIntervalSince(began)
        return result
    }
}

/// A drive full of objects whose bytes are known, one extent each, and the means to damage and mend them behind its back.
private final class DamageBench {
    private let device: FlashDevice
    private let drive: FaultyDrive
    private let memory: BlockMemory
    private let file: DeviceFile
    private let events = EventQueue()
    private let extentBytes: Int
    private let truth: BlockMemory
    private let scratch: BlockMemory
    private var objects: [FlashObject] = []
    private var alsoDamaged: Set<Int> = []

    init(_ path: String, extentBytes: Int, objectCount: Int, _ seed: UInt64) throws {
        self.extentBytes = extentBytes
        try FlashDevice.format(
            path: path, byteCount: (objectCount + 2) * (extentBytes + 4096) + (3 << 20), extentBytes: extentBytes,
            identity: DriveIdentity(drive: FlashUUID(seed, 2), store: FlashUUID(1, 1)))
        device = try FlashDevice(path: path)
        memory = try BlockMemory(byteCount: 16 * extentBytes)
        truth = try BlockMemory(byteCount: objectCount * extentBytes)
        scratch = try BlockMemory(byteCount: extentBytes)
        file = try DeviceFile(path: path, access: .unlocked)
        let events = events
        let (device, memory) = (device, memory)
        drive = try FaultyDrive(
            seed: seed, perMille: [.bitFlip: 5, .torn: 5, .truncated: 5, .misdirected: 5, .stale: 5, .failed: 5],
            extentCount: objectCount, memory: memory, sink: { events.post($0) }
        ) { sink throws(FlashError) in
            try FlashDrive(device, memory: memory, configuration: .campaign(), sink: sink)
        }
        for index in 0..<objectCount { try write(index) }
    }

    private func write(_ index: Int) throws {
        let generation = UInt64(index) + 1
        let room = unsafe truth[slice(index)]
        let objects = CampaignObjects(extentBytes: extentBytes)
        unsafe objects.fill(room, generation)
        let name = objects.name(generation)
        let object = FlashObject(
            name: name, metadata: ObjectMetadata(), namespace: 1, payloadBytes: extentBytes,
            checksum: unsafe BlockChecksum.of(name, UnsafeRawBufferPointer(room)), generation: generation,
            extents: ExtentList([UInt32(index)]))
        unsafe memory[slice(0)].copyMemory(from: UnsafeRawBufferPointer(room))
        while true {
            _ = drive.post(.write(tag: 0, object, from: slice(0), isVolatile: false))
            if case .written(_, .done) = events.next() { break }
        }
        self.objects.append(object)
    }

    private func slice(_ index: Int) -> MemorySlice { MemorySlice(offset: index * extentBytes, count: extentBytes) }

    func read(_ index: Int, into slot: Int) {
        _ = drive.post(.read(tag: UInt64(slot), objects[index].extents, into: slice(slot)))
    }

    func answer() -> (slot: Int, isDone: Bool)? {
        guard case .read(let tag, let outcome) = events.next() else { return nil }
        return (Int(tag), outcome == .done)
    }

    func passesCheck(_ index: Int, _ slot: Int) -> Bool {
        unsafe BlockChecksum.of(objects[index].name, UnsafeRawBufferPointer(memory[slice(slot)]))
            == objects[index].checksum
    }

    func isRight(_ index: Int, _ slot: Int) -> Bool {
        unsafe memcmp(memory[slice(slot)].baseAddress!, truth[slice(index)].baseAddress!, extentBytes) == 0
    }

    func shutDown() { drive.shutDown() }

    // MARK: Damage

    /// Changes an object's bytes on flash.
    func damage(_ index: Int, _ damage: FlashCorruptionCampaign.Damage, _ source: inout RandomSource) throws {
        let bytes = unsafe scratch.regions[0]
        unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(truth[slice(index)]))
        let other = (index + 1 + source.below(objects.count - 1)) % objects.count
        let stranger = unsafe UnsafeRawBufferPointer(truth[slice(other)])
        let sector = source.below(extentBytes) & ~511
        switch damage {
        case .flipFirst: unsafe bytes[0] ^= 1
        case .flipLast: unsafe bytes[extentBytes - 1] ^= 0x80
        case .flipAnywhere: unsafe bytes[source.below(extentBytes)] ^= 1 << UInt8(source.below(8))
        case .truncated: for place in sector..<extentBytes { unsafe bytes[place] = 0 }
        case .torn: for place in sector..<extentBytes { unsafe bytes[place] = stranger[place] }
        // What the extent held before: the same name's bytes of another time.
        case .stale: unsafe CampaignObjects(extentBytes: extentBytes).fill(bytes, UInt64(index) + 1_000_000)
        // A write that was acknowledged and never done: the extent is as it was made.
        case .lostWrite: for place in 0..<extentBytes { unsafe bytes[place] = 0 }
        case .misdirected: unsafe bytes.copyMemory(from: stranger)
        case .swapped:
            unsafe try put(other, UnsafeRawBufferPointer(truth[slice(index)]))
            alsoDamaged.insert(other)
            unsafe bytes.copyMemory(from: stranger)
        }
        unsafe try put(index, UnsafeRawBufferPointer(bytes))
    }

    func mend(_ index: Int) throws { unsafe try put(index, UnsafeRawBufferPointer(truth[slice(index)])) }

    func mendNeighbours() throws {
        for index in alsoDamaged { try mend(index) }
        alsoDamaged = []
    }

    private func put(_ index: Int, _ bytes: UnsafeRawBufferPointer) throws {
        unsafe try file.write(bytes, at: device.geometry.offset(ofExtent: UInt32(index)))
    }
}
