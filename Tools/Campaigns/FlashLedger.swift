// What a killed worker said it would do and what it said was done, held against what a restart finds on its drive.

import Foundation
import KVFlash
import KVModel
import KVSystem

/// The generations a worker spoke of, over several lives of the same drive.
struct FlashLedger {
    /// What is known of a generation.
    private struct Known {
        var isAcknowledged = false
        var eraseIsAsked = false
        var isErased = false
    }

    private var known: [UInt64: Known] = [:]
    /// The newest generation that was announced.
    private var generationMax: UInt64 = 0

    /// Takes one line of a worker's output; what is none of its four sentences is passed over.
    mutating func note(_ line: some StringProtocol) {
        let words = line.split(separator: " ")
        guard words.count == 2, let generation = UInt64(words[1]) else { return }
        switch words[0] {
        case "W":
            known[generation] = Known()
            generationMax = max(generationMax, generation)
        case "w": known[generation]?.isAcknowledged = true
        case "E": known[generation]?.eraseIsAsked = true
        case "e": known[generation]?.isErased = true
        default: return
        }
    }

    /// The restart: what must be there is there, with its own bytes, and the extents add up.
    mutating func inspect(_ path: String, _ result: inout CampaignResult) throws {
        let device = try FlashDevice(path: path)
        let extentBytes = device.geometry.extentBytes
        let objects = CampaignObjects(extentBytes: extentBytes)
        var allocator = ExtentAllocator(count: device.geometry.extentCount)
        var found: [FlashObject] = []
        var usedExtents = 0
        let summary = try device.scan { event in
            guard case .object(let object) = event else { return }
            if !allocator.claim(object.extents) { result.leaks += 1 }
            usedExtents += object.extents.count
            found.append(object)
        }
        if summary.voidCount > 0 || allocator.freeCount + usedExtents != allocator.count { result.leaks += 1 }
        let room = CampaignObjects.payloadExtentsMax * extentBytes
        let memory = try BlockMemory(byteCount: 2 * room)
        let events = EventQueue()
        let drive = try FlashDrive(device, memory: memory, configuration: .campaign()) { events.post($0) }
        for object in found {
            let slice = MemorySlice(offset: 0, count: object.payloadBytes)
            _ = drive.post(.read(tag: 0, object.extents, into: slice))
            guard case .read(_, .done) = events.next() else {
                result.hangs += 1
                continue
            }
            let wanted = unsafe objects.make(
                object.generation, object.extents, memory[MemorySlice(offset: room, count: room)])
            let read = unsafe BlockChecksum.of(object.name, UnsafeRawBufferPointer(memory[slice]))
            if wanted != object || read != wanted.checksum { result.wrongBytes += 1 }
            if !mayBeThere(object.generation) { result.wrongBytes += 1 }
        }
        drive.shutDown()
        let there = Set(found.map(\.generation))
        for (generation, state) in known where state.isAcknowledged && !state.eraseIsAsked {
            if !there.contains(generation) { result.lostAcknowledged += 1 }
        }
        // From here on what is there counts as acknowledged, and the rest never was.
        known = Dictionary(uniqueKeysWithValues: there.map { ($0, Known(isAcknowledged: true)) })
        generationMax = max(generationMax, summary.generationMax)
    }

    /// Whether a restart may find this generation: it was announced, or its announcement was lost with the power (then
    /// it is newer than all that were heard), and no erasing of it was acknowledged.
    private func mayBeThere(_ generation: UInt64) -> Bool {
        guard let state = known[generation] else { return generation > generationMax }
        return !state.isErased
    }
}
