// What one engine may say when, and what it is told: the rules of the engine's protocol without sockets. A frame or a reply
// goes in, what is to be done comes out.

import KVIdentity
import KVModel
import KVSystem
import KVTiering

/// How much of everything an engine may have.
public struct EngineLimits: Sendable, Equatable {
    /// Jobs open at once.
    public var jobsMax = 256
    /// Requests open at once.
    public var requestsMax = 4_096
    /// Regions at once.
    public var regionsMax = EngineProtocol.regionCountMax
    /// Bytes that may wait for an engine that does not read.
    public var outputBytesMax = 8 << 20
    /// How long a new connection may be silent.
    public var helloLimit = Duration(seconds: 5)

    /// The defaults.
    public init() {}
}

/// One engine's side of the door.
public struct EngineSession {
    /// What a frame asks for.
    public enum Act: Sendable {
        /// Nothing more.
        case nothing
        /// The decisions must hear of it.
        case forward(EngineMessage)
        /// The engine is answered at once.
        case reply(EngineFrame)
        /// A descriptor that came with the frame is to be mapped; then `forward` the region.
        case map(region: Int32, byteCount: Int)
        /// The engine asks for numbers.
        case statistics(EngineTicket)
        /// The engine wants to map the arena.
        case openArena(isWritable: Bool)
        /// The engine goes when its jobs have ended.
        case leave
    }

    /// Where the conversation stands.
    public enum Phase: Sendable, Equatable {
        /// The hello has not come.
        case greeting
        /// The decisions have not answered it. Nothing is read.
        case attaching
        /// Everything may be said.
        case open
        /// A goodbye was said by one side; jobs go on to their ends.
        case leaving
    }

    struct Job {
        enum Kind { case load, save, take, reserve, commit }

        var request: EngineTicket
        var first: Int32
        var blockCount: Int
        var since: Instant
        var kind: Kind
    }

    struct Request {
        /// Whether the decisions know it: they do not when they were too busy to hear of it.
        var isKnown: Bool
        var since: Instant
    }

    struct Region {
        var byteCount: Int
        var isDropping = false
    }

    /// The engine's number.
    public let number: EngineNumber
    /// Its process, by the kernel's word.
    public let process: Int32
    /// Where the conversation stands.
    public internal(set) var phase = Phase.greeting
    /// What it said first.
    public private(set) var greeting: EngineGreeting?
    /// Whether new work is answered with nothing, because the agent is about to stop.
    public var isDraining = false
    /// What it did.
    public internal(set) var counters = EngineCounters()

    let limits: EngineLimits
    let agent: UInt64
    let program: String
    var jobs: [EngineTicket: Job] = [:]
    var requests: [EngineTicket: Request] = [:]
    var regions: [Int32: Region] = [:]
    /// How many CANCELLED are owed for a ticket.
    var cancelling: [EngineTicket: Int] = [:]
    /// Whether it maps the arena, and whether it may write there.
    public internal(set) var arena: EngineArenaAccess = .none

    /// The session of a new connection.
    public init(number: EngineNumber, process: Int32, limits: EngineLimits, agent: UInt64, program: String) {
        self.number = number
        self.process = process
        self.limits = limits
        self.agent = agent
        self.program = program
    }

    /// Jobs that have not ended.
    public var openJobs: Int { jobs.count }
    /// Requests that have not ended.
    public var openRequests: Int { requests.count }
    /// Bytes of its regions.
    public var regionBytes: Int { regions.values.reduce(0) { $0 + $1.byteCount } }
    /// Whether it said goodbye, or was told, and nothing of it is open.
    public var isDone: Bool { phase == .leaving && jobs.isEmpty && cancelling.isEmpty }

    // MARK: What the engine says

    /// Takes a frame of the engine.
    public mutating func take(_ frame: EngineFrame, at now: Instant) throws(EngineRefusal) -> Act {
        counters.frames += 1
        switch (phase, frame) {
        case (.greeting, .hello(let greeting)): return try greet(greeting)
        case (.greeting, _): throw EngineRefusal(.frame, "the first frame is not HELLO")
        case (.attaching, _): throw EngineRefusal(.frame, "a frame before WELCOME was taken")
        case (.leaving, .cancel), (.leaving, .finished): return try takeOpen(frame, now)
        case (.leaving, _) where !isDraining: throw EngineRefusal(.frame, "new work behind GOODBYE")
        default: return try takeOpen(frame, now)
        }
    }

    private mutating func greet(_ greeting: EngineGreeting) throws(EngineRefusal) -> Act {
        guard greeting.versions.contains(EngineProtocol.version) else {
            throw EngineRefusal(
                .version,
                "the engine speaks versions \(greeting.versions.lowerBound) to \(greeting.versions.upperBound), "
                    + "the agent \(EngineProtocol.version)")
        }
        let namespace: NamespaceIdentity
        do { namespace = try NamespaceIdentity(fields: greeting.hello.namespace) } catch {
            throw EngineRefusal(.hello, error.description)
        }
        let stated = namespace.fields["block_tokens"] ?? ""
        guard stated == "\(greeting.hello.blockTokens)" else {
            throw EngineRefusal(
                .hello, "block_tokens is `\(stated)` in the namespace and \(greeting.hello.blockTokens) in the hello")
        }
        guard namespace.digest == greeting.digest else {
            throw EngineRefusal(
                .layout,
                "the namespace's digest is \(hexadecimal(greeting.digest)) by the engine and "
                    + "\(hexadecimal(namespace.digest)) by the agent: the two would name blocks differently")
        }
        self.greeting = greeting
        phase = .attaching
        var hello = greeting.hello
        hello.process = process
        return .forward(.attach(number, hello))
    }

    private mutating func takeOpen(_ frame: EngineFrame, _ now: Instant) throws(EngineRefusal) -> Act {
        if greeting?.hello.isVisitor == true {
            switch frame {
            case .askStatistics, .ping, .goodbye: break
            default: throw EngineRefusal(.frame, "\(frame.header.kind) is not a visitor's to say")
            }
        }
        switch frame {
        case .addRegion(let region, let byteCount): return try add(region, byteCount)
        case .dropRegion(let region):
            guard regions[region]?.isDropping == false else {
                throw EngineRefusal(.frame, "region \(region) is not open")
            }
            regions[region]?.isDropping = true
            return .forward(.dropRegion(number, region: region))
        case .lookUp(let lookUp): return try take(lookUp, now)
        case .load(let load): return try take(load, now)
        case .save(let save): return try take(save, now)
        case .finished(let end):
            count(end)
            let isKnown = requests.removeValue(forKey: end.ticket)?.isKnown ?? false
            return isKnown ? .forward(.finished(number, end)) : .nothing
        case .cancel(let ticket): return cancel(ticket)
        case .prefetch(let names): return isDraining ? .nothing : .forward(.prefetch(number, names))
        case .touch(let names): return isDraining ? .nothing : .forward(.touch(number, names))
        case .pin(let ticket, let names, let lifetime):
            if isDraining { return .reply(.pinned(ticket, .invalid, blocks: 0)) }
            return .forward(.pin(number, ticket, names, lifetime: lifetime))
        case .unpin(let ticket): return .forward(.unpin(number, ticket))
        case .openArena(let isWritable): return try openArena(isWritable)
        case .take(let take): return try self.take(take, now)
        case .reserve(let reserve): return try self.reserve(reserve, now)
        case .commit(let commit): return try self.commit(commit, now)
        case .release(let ticket, let loan): return try release(ticket, loan)
        case .subscribe: return .forward(.subscribe(number))
        case .askStatistics(let ticket): return .statistics(ticket)
        case .ping(let ticket, let bytes): return .reply(.pong(ticket, bytes))
        case .goodbye:
            phase = .leaving
            isDraining = false
            return .leave
        default: throw EngineRefusal(.frame, "\(frame.header.kind) is not an engine's to say")
        }
    }

    private mutating func count(_ end: EngineRequestEnd) {
        counters.finished += 1
        counters.cachedTokens += UInt64(max(0, end.cachedTokens))
        counters.answerTokens += UInt64(max(0, end.answerTokens))
        if end.timeToFirstToken > .zero { counters.firstTokenTime.add(end.timeToFirstToken) }
    }

    private mutating func add(_ region: Int32, _ byteCount: Int) throws(EngineRefusal) -> Act {
        guard regions[region] == nil else { throw EngineRefusal(.frame, "region \(region) is open already") }
        guard regions.count < limits.regionsMax else {
            throw EngineRefusal(.frame, "more than \(limits.regionsMax) regions")
        }
        guard byteCount <= EngineProtocol.regionBytesMax else {
            throw EngineRefusal(
                .frame, "region \(region) of \(byteCount) bytes: at most \(EngineProtocol.regionBytesMax)")
        }
        regions[region] = Region(byteCount: byteCount)
        return .map(region: region, byteCount: byteCount)
    }

    private mutating func take(_ lookUp: EngineLookUp, _ now: Instant) throws(EngineRefusal) -> Act {
        try open(lookUp.ticket)
        guard requests.count < limits.requestsMax else {
            throw EngineRefusal(.ticket, "more than \(limits.requestsMax) requests open")
        }
        counters.lookUps += 1
        counters.keysLookedUp += UInt64(lookUp.names.count)
        requests[lookUp.ticket] = Request(isKnown: !isDraining, since: now)
        return isDraining ? .reply(.found(lookUp.ticket, EngineFound())) : .forward(.lookUp(number, lookUp))
    }

    private mutating func take(_ load: EngineLoad, _ now: Instant) throws(EngineRefusal) -> Act {
        try open(load.job)
        let own = load.asker == 0 ? load.request : 0
        try check(load.places, request: own)
        counters.loads += 1
        guard !isDraining, requests[own]?.isKnown ?? true else {
            return .reply(nothingLoaded(load.job, first: load.first, since: now, now))
        }
        jobs[load.job] = Job(
            request: own, first: load.first, blockCount: load.places.blockCount, since: now, kind: .load)
        return .forward(.load(number, load))
    }

    private mutating func take(_ save: EngineSave, _ now: Instant) throws(EngineRefusal) -> Act {
        try open(save.job)
        try check(save.places, request: save.asker == 0 ? save.request : 0)
        counters.saves += 1
        let count = save.places.blockCount
        guard !isDraining else { return .reply(nothingSaved(save.job, count: count, since: now, now)) }
        var save = save
        // The decisions never heard of the request; the blocks are worth no less.
        if save.asker == 0, requests[save.request]?.isKnown == false { save.request = 0 }
        jobs[save.job] = Job(
            request: save.asker == 0 ? save.request : 0, first: save.first, blockCount: count, since: now, kind: .save)
        return .forward(.save(number, save))
    }

    func open(_ ticket: EngineTicket) throws(EngineRefusal) {
        guard jobs[ticket] == nil, requests[ticket] == nil, cancelling[ticket] == nil else {
            throw EngineRefusal(.ticket, "ticket \(ticket) is open already")
        }
        guard jobs.count < limits.jobsMax else {
            throw EngineRefusal(.ticket, "more than \(limits.jobsMax) jobs open")
        }
    }

    private func check(_ places: EnginePlaces, request: EngineTicket) throws(EngineRefusal) {
        try check(request: request)
        let blockBytes = greeting?.hello.blockBytes ?? 0
        var known: (number: Int32, byteCount: Int) = (-1, 0)
        var start = 0
        while start < places.slices.count {
            var bytes = 0
            for slice in places.slices[start..<(start + places.segmentsPerBlock)] {
                if slice.region != known.number {
                    guard let region = regions[slice.region], !region.isDropping else {
                        throw EngineRefusal(.frame, "region \(slice.region) is not open")
                    }
                    known = (slice.region, region.byteCount)
                }
                guard slice.offset <= known.byteCount - slice.count else {
                    throw EngineRefusal(
                        .frame,
                        "a slice of \(slice.count) bytes at \(slice.offset) lies outside region \(slice.region) of "
                            + "\(known.byteCount) bytes")
                }
                bytes += slice.count
            }
            guard bytes == blockBytes else {
                throw EngineRefusal(.frame, "a block's slices have \(bytes) bytes together, a block \(blockBytes)")
            }
            start += places.segmentsPerBlock
        }
    }

    func check(request: EngineTicket) throws(EngineRefusal) {
        guard request == 0 || (requests[request] != nil && cancelling[request] == nil) else {
            throw EngineRefusal(.ticket, "request \(request) is not open")
        }
    }

    private mutating func cancel(_ ticket: EngineTicket) -> Act {
        counters.cancels += 1
        if let owed = cancelling[ticket] {
            cancelling[ticket] = owed + 1
            return .nothing
        }
        if jobs[ticket] != nil || requests[ticket]?.isKnown == true {
            cancelling[ticket] = 1
            return .forward(.cancel(number, ticket))
        }
        requests[ticket] = nil
        return .reply(.cancelled(ticket))
    }
}

/// Bytes as hexadecimal digits.
func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    text.reserveCapacity(bytes.count * 2)
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
}
