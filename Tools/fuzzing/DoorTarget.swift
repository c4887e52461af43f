// What the fuzzer calls: bytes as an engine may send them, read as frames and played against the rules of the engine's
// protocol. The first byte decides what the agent's decisions do: answer, have no room, or hold back.

import KVAgent
import KVIdentity
import KVModel
import KVSystem
import KVTiering
import KVTransport

private let fields: [String: String] = {
    var fields: [String: String] = [:]
    for name in NamespaceIdentity.required { fields[name] = "1" }
    return fields
}()

/// What the other side of the door does with what it hears.
private struct Decisions {
    var choice: UInt8
    var count: UInt8 = 0

    /// Answers a message at once, or not at all.
    mutating func answer(_ message: EngineMessage) -> EngineReply? {
        count &+= 1
        guard (choice >> (count & 3)) & 1 == 0 else { return nil }
        switch message {
        case .attach(let engine, _): return .attached(engine)
        case .lookUp(let engine, let lookUp):
            var answer = Answer(request: 0)
            answer.hitBlocks = Int32(lookUp.names.count)
            return .found(engine, lookUp.ticket, answer)
        case .load(let engine, let load):
            return .loaded(engine, job: load.job, first: load.first, end: load.first + Int32(load.places.blockCount))
        case .save(let engine, let save): return .saved(engine, job: save.job, kept: [.max, .max])
        case .take(let engine, let take):
            let blocks = [LeasedBlock](repeating: LeasedBlock(slot: 1, checksum: 2), count: Int(take.count))
            let loan = EngineLoan(number: 1, generation: 2)
            return .taken(engine, job: take.job, EngineTaken(first: take.first, loan: loan, blocks: blocks))
        case .reserve(let engine, let reserve):
            let slots = [UInt32](repeating: 3, count: Int(reserve.count))
            let loan = EngineLoan(number: 1, generation: 2)
            return .reserved(engine, job: reserve.job, EngineReserved(loan: loan, slots: slots))
        case .commit(let engine, let commit): return .saved(engine, job: commit.job, kept: [.max, .max])
        case .release(let engine, let ticket, _): return .released(engine, ticket, wasInForce: true)
        case .cancel(let engine, let ticket): return .cancelled(engine, ticket)
        case .dropRegion(let engine, let region): return .regionDropped(engine, region: region)
        default: return nil
        }
    }
}

/// Every slice that was let through lies in a region, and each block has its bytes.
private func check(_ places: EnginePlaces, _ regions: [Int32: Int], blockBytes: Int) {
    for block in 0..<places.blockCount {
        var bytes = 0
        for slice in places.slices[(block * places.segmentsPerBlock)..<((block + 1) * places.segmentsPerBlock)] {
            guard let byteCount = regions[slice.region] else { preconditionFailure("a slice of no region") }
            precondition(slice.offset >= 0 && slice.count > 0 && slice.offset + slice.count <= byteCount, "outside")
            bytes += slice.count
        }
        precondition(bytes == blockBytes, "a block of other bytes")
    }
}

/// libFuzzer's entry. A crash, a trap, a sanitizer's finding or a broken promise is a failure.
@_cdecl("LLVMFuzzerTestOneInput")
public func playFrames(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = UnsafeRawBufferPointer(start: start, count: count)
    guard let choice = input.first else { return 0 }
    var decisions = Decisions(choice: choice)
    var session = EngineSession(number: 1, process: 1, limits: EngineLimits(), agent: 1, program: "fuzz")
    var regions: [Int32: Int] = [:]
    var blockBytes = 0
    if choice & 0x80 != 0 {
        // Half of the inputs begin behind a hello that is right, which a fuzzer would hardly find.
        let hello = EngineHello(
            kind: "fuzz", process: 0, ownership: choice & 0x20 != 0 ? .host : .engine, namespace: fields,
            storeNamespace: "d", blockTokens: 1, blockBytes: 64)
        guard let digest = try? NamespaceIdentity(fields: fields).digest else { return 0 }
        _ = try? session.take(.hello(EngineGreeting(digest: digest, client: "", hello: hello)), at: .zero)
        try? session.take(.attached(1), at: .zero) { _ in }
        precondition(session.phase == .open, "a hello was refused that is right")
    }
    var (asked, answered, jobs) = (0, 0, 0)
    var offset = 1
    while offset + EngineProtocol.headerBytes <= count {
        let bodyStart = offset + EngineProtocol.headerBytes
        guard let header = try? EngineFrameHeader(reading: UnsafeRawBufferPointer(rebasing: input[offset..<bodyStart])),
            header.bodyBytes <= count - bodyStart
        else { return 0 }
        let body = UnsafeRawBufferPointer(rebasing: input[bodyStart..<(bodyStart + header.bodyBytes)])
        offset = bodyStart + header.bodyBytes
        guard let frame = try? EngineFrame(header, body: body, at: .zero) else { return 0 }
        // What was read is written as it was, but for numbers that mean the same.
        let written = frame.bytes()
        written.withUnsafeBytes { bytes in
            guard let again = try? EngineFrameHeader(reading: UnsafeRawBufferPointer(rebasing: bytes[..<16])),
                let same = try? EngineFrame(again, body: UnsafeRawBufferPointer(rebasing: bytes[16...]), at: .zero)
            else { preconditionFailure("what was written cannot be read") }
            precondition(same == frame, "what was written means something else")
        }
        guard session.phase != .attaching else { return 0 }
        if case .cancel = frame { asked += 1 }
        guard let act = try? session.take(frame, at: .zero) else { return 0 }
        if let greeting = session.greeting { blockBytes = greeting.hello.blockBytes }
        var message: EngineMessage?
        switch act {
        case .reply(.cancelled): answered += 1
        case .map(let region, let byteCount): regions[region] = byteCount
        case .forward(let forwarded): message = forwarded
        default: break
        }
        guard let message else { continue }
        switch message {
        case .load(_, let load):
            jobs += 1
            check(load.places, regions, blockBytes: blockBytes)
        case .save(_, let save):
            jobs += 1
            check(save.places, regions, blockBytes: blockBytes)
        case .take, .reserve, .commit:
            jobs += 1
            precondition(session.arena != .none, "a loan without an arena")
            if case .take = message {} else { precondition(session.arena == .writing, "writing without leave") }
            if case .commit(_, let commit) = message {
                precondition(Int(commit.first) + commit.slots.count == commit.names.count, "a slot for each block")
            }
        case .dropRegion(_, let region): regions[region] = nil
        default: break
        }
        if choice & 0x40 != 0, case .reply(.cancelled) = session.noRoom(for: message, at: .zero) {
            preconditionFailure("a cancellation was answered by nobody")
        } else if let reply = decisions.answer(message) {
            try? session.take(reply, at: .zero) { if case .cancelled = $0 { answered += 1 } }
        }
        precondition(session.openJobs <= 256 && session.openRequests <= 4_096, "more open than granted")
    }
    // Jobs that end with their request are acknowledged, too, though nobody asked.
    precondition(answered <= asked + jobs, "more acknowledgements than were asked for")
    return 0
}
