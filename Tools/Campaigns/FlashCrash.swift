// Kill -9 of a process that writes and erases: at every enumerated step, and at random. The parent looks what is left and
// starts the next one on the same drive.

import ArgumentParser
import Foundation
import KVFlash
import KVModel
import KVSystem

/// The process that is killed. It reopens the drive, goes on writing and erasing, and says on its standard output what
/// it is about to ask (`W`, `E`) and what was acknowledged (`w`, `e`), each with a generation.
struct FlashWorker: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flash-worker", abstract: "Writes until it is killed.", shouldDisplay: false)

    @Option var path: String
    @Option var seed: UInt64
    @Option var operations: Int
    @Option var point: String?
    @Option var occurrence: Int = 1

    private static let depth = 8

    func run() throws {
        let device = try FlashDevice(path: path)
        let objects = CampaignObjects(extentBytes: device.geometry.extentBytes)
        var allocator = ExtentAllocator(count: device.geometry.extentCount)
        var live: [FlashObject] = []
        let summary = try device.scan { event in
            guard case .object(let object) = event else { return }
            precondition(allocator.claim(object.extents), "two objects claim an extent")
            live.append(object)
        }
        let slotBytes = CampaignObjects.payloadExtentsMax * device.geometry.extentBytes
        let memory = try BlockMemory(byteCount: Self.depth * slotBytes)
        let events = EventQueue()
        let trigger = point.flatMap(FaultPoint.init(rawValue:)).map { FaultTrigger($0, occurrence: occurrence) }
        let drive = try FlashDrive(device, memory: memory, configuration: .campaign(trigger)) { events.post($0) }
        var source = RandomSource(seed: seed)
        var generation = summary.generationMax
        var slots = Array(0..<Self.depth)
        var writing: [UInt64: (object: FlashObject, slot: Int)] = [:]
        var erasing: [UInt64: FlashObject] = [:]
        for _ in 0..<operations {
            while slots.isEmpty { try take(events, &allocator, &live, &writing, &erasing, &slots) }
            let wanted = objects.extentCount(generation + 1)
            if allocator.freeCount < wanted + device.geometry.extentCount / 8 || source.below(3) == 0, !live.isEmpty {
                let victim = live.remove(at: source.below(live.count))
                generation += 1
                say("E", victim.generation)
                erasing[victim.generation] = victim
                _ = drive.post(
                    .erase(tag: victim.generation, firstExtent: victim.extents[0], generation: generation))
                if erasing.count > 4 { try take(events, &allocator, &live, &writing, &erasing, &slots) }
                continue
            }
            guard let extents = allocator.reserve(objects.extentCount(generation + 1)) else {
                try take(events, &allocator, &live, &writing, &erasing, &slots)
                continue
            }
            generation += 1
            let slot = slots.removeLast()
            let room = MemorySlice(offset: slot * slotBytes, count: slotBytes)
            let object = unsafe objects.make(generation, extents, memory[room])
            writing[generation] = (object, slot)
            say("W", generation)
            _ = drive.post(
                .write(tag: generation, object, from: room.prefix(object.payloadBytes), isVolatile: false))
        }
        while !writing.isEmpty || !erasing.isEmpty { try take(events, &allocator, &live, &writing, &erasing, &slots) }
        drive.shutDown()
    }

    private func take(
        _ events: EventQueue, _ allocator: inout ExtentAllocator, _ live: inout [FlashObject],
        _ writing: inout [UInt64: (object: FlashObject, slot: Int)], _ erasing: inout [UInt64: FlashObject],
        _ slots: inout [Int]
    ) throws {
        switch events.next() {
        case .written(let tag, .done):
            guard let (object, slot) = writing.removeValue(forKey: tag) else { throw ExitCode(2) }
            say("w", tag)
            live.append(object)
            slots.append(slot)
        case .erased(let tag, .done):
            guard let object = erasing.removeValue(forKey: tag) else { throw ExitCode(2) }
            say("e", tag)
            allocator.release(object.extents)
        default: throw ExitCode(2)
        }
    }

    /// One write to the pipe, which outlives this process.
    private func say(_ what: String, _ generation: UInt64) {
        FileHandle.standardOutput.write(Data("\(what) \(generation)\n".utf8))
    }
}

/// Runs workers, kills them, and holds what is left against what they said.
struct FlashCrashCampaign {
    let quick: Bool
    let seed: UInt64
    private static let extentBytes = 64 << 10
    private static let driveBytes = 24 << 20

    /// What is known of a generation.
    private struct Known {
        var isAcknowledged = false
        var eraseIsAsked = false
        var isErased = false
    }

    func run() throws -> CampaignResult {
        var result = CampaignResult(name: "flash crash")
        let began = Date()
        let folder = try ScratchFolder()
        let path = folder.path + "/drive"
        try FlashDevice.format(
            path: path, byteCount: Self.driveBytes, extentBytes: Self.extentBytes,
            identity: DriveIdentity(drive: FlashUUID(seed, 1), store: FlashUUID(1, 1)))
        var source = RandomSource(seed: seed)
        var known: [UInt64: Known] = [:]
        let rounds = quick ? 4 : 60
        for round in 0..<rounds {
            for point in FaultPoint.allCases {
                // Early and late in a run, when little and when much is under way.
                let occurrence = 1 + source.below(round % 2 == 0 ? 5 : 60)
                try trial(path, &source, point, occurrence, &known, &result)
            }
            for _ in 0..<(quick ? 3 : 10) { try trial(path, &source, nil, 1 + source.below(200), &known, &result) }
        }
        result.seconds = Date().timeIntervalSince(began)
        return result
    }

    /// One worker, killed at a point's occurrence or, without a point, after it has said so many lines.
    private func trial(
        _ path: String, _ source: inout RandomSource, _ point: FaultPoint?, _ occurrence: Int,
        _ known: inout [UInt64: Known], _ result: inout CampaignResult
    ) throws {
        let worker = Process()
        worker.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        worker.arguments = ["flash-worker", "--path", path, "--seed", "\(source.next())", "--operations", "150"]
        if let point { worker.arguments! += ["--point", point.rawValue, "--occurrence", "\(occurrence)"] }
        let pipe = Pipe()
        worker.standardOutput = pipe
        try worker.run()
        let identifier = worker.processIdentifier
        let watchdog = DispatchWorkItem { kill(identifier, SIGKILL) }
        let deadline = Date() + 60
        DispatchQueue.global().asyncAfter(deadline: .now() + 60, execute: watchdog)
        var lineCount = 0
        var rest = ""
        while true {
            let data = pipe.fileHandleForReading.availableData
            if data.isEmpty { break }
            rest += String(decoding: data, as: UTF8.self)
            while let end = rest.firstIndex(of: "\n") {
                note(rest[..<end], &known)
                rest = String(rest[rest.index(after: end)...])
                lineCount += 1
                if point == nil, lineCount == occurrence { kill(identifier, SIGKILL) }
            }
        }
        worker.waitUntilExit()
        watchdog.cancel()
        if Date() >= deadline { result.hangs += 1 }
        if worker.terminationReason == .exit, worker.terminationStatus != 0 { result.hangs += 1 }
        if worker.terminationReason == .uncaughtSignal { result.detected += 1 }
        result.trials += 1
        try inspect(path, &known, &result)
    }

    private func note(_ line: Substring, _ known: inout [UInt64: Known]) {
        let words = line.split(separator: " ")
        guard words.count == 2, let generation = UInt64(words[1]) else { return }
        switch words[0] {
        case "W": known[generation] = Known()
        case "w": known[generation]?.isAcknowledged = true
        case "E": known[generation]?.eraseIsAsked = true
        default: known[generation]?.isErased = true
        }
    }

    /// The restart: what must be there is there, with its own bytes, and the extents add up.
    private func inspect(_ path: String, _ known: inout [UInt64: Known], _ result: inout CampaignResult) throws {
        let device = try FlashDevice(path: path)
        let objects = CampaignObjects(extentBytes: Self.extentBytes)
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
        let room = CampaignObjects.payloadExtentsMax * Self.extentBytes
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
            guard let state = known[object.generation], !state.isErased else {
                result.wrongBytes += 1
                continue
            }
        }
        drive.shutDown()
        let there = Set(found.map(\.generation))
        for (generation, state) in known where state.isAcknowledged && !state.eraseIsAsked {
            if !there.contains(generation) { result.lostAcknowledged += 1 }
        }
        // From here on what is there counts as acknowledged, and the rest never was.
        known = Dictionary(uniqueKeysWithValues: there.map { ($0, Known(isAcknowledged: true)) })
    }
}
