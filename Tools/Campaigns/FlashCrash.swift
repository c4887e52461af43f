// Kill -9 of a process that writes and erases: at every enumerated step, and at random. The parent looks what is left and
// starts the next one on the same drive. A power cut (`FlashPower.swift`) uses the same worker and the same look.

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
    /// Before its operation of this number the worker says `LANDMARK`: whoever is to cut the power waits for it.
    @Option var landmark: Int?

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
        // Announced, not yet erased: what a guest says passes a pipe, and the announcement must not be lost with the
        // power when the erasing was not.
        var condemned: FlashObject?
        var slots = Array(0..<Self.depth)
        var writing: [UInt64: (object: FlashObject, slot: Int)] = [:]
        var erasing: [UInt64: FlashObject] = [:]
        for operation in 0..<operations {
            if operation == landmark { FileHandle.standardOutput.write(Data("LANDMARK\n".utf8)) }
            while slots.isEmpty { try take(events, &allocator, &live, &writing, &erasing, &slots) }
            let wanted = objects.extentCount(generation + 1)
            if allocator.freeCount < wanted + device.geometry.extentCount / 8 || source.below(3) == 0, !live.isEmpty {
                let victim = live.remove(at: source.below(live.count))
                say("E", victim.generation)
                if let due = condemned {
                    generation += 1
                    erasing[due.generation] = due
                    _ = drive.post(.erase(tag: due.generation, firstExtent: due.extents[0], generation: generation))
                }
                condemned = victim
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

    func run() throws -> CampaignResult {
        var result = CampaignResult(name: "flash crash")
        let began = Date()
        let folder = try ScratchFolder()
        let path = folder.path + "/drive"
        try FlashDevice.format(
            path: path, byteCount: Self.driveBytes, extentBytes: Self.extentBytes,
            identity: DriveIdentity(drive: FlashUUID(seed, 1), store: FlashUUID(1, 1)))
        var source = RandomSource(seed: seed)
        var ledger = FlashLedger()
        let rounds = quick ? 4 : 60
        for round in 0..<rounds {
            for point in FaultPoint.allCases {
                // Early and late in a run, when little and when much is under way.
                let occurrence = 1 + source.below(round % 2 == 0 ? 5 : 60)
                try trial(path, &source, point, occurrence, &ledger, &result)
            }
            for _ in 0..<(quick ? 3 : 10) { try trial(path, &source, nil, 1 + source.below(200), &ledger, &result) }
        }
        result.seconds = Date().timeIntervalSince(began)
        return result
    }

    /// One worker, killed at a point's occurrence or, without a point, after it has said so many lines.
    private func trial(
        _ path: String, _ source: inout RandomSource, _ point: FaultPoint?, _ occurrence: Int,
        _ ledger: inout FlashLedger, _ result: inout CampaignResult
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
                ledger.note(rest[..<end])
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
        try ledger.inspect(path, &result)
    }
}
