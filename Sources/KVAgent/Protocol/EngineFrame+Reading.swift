// Frames as they are read. Nothing is believed: every length is checked against what is there before anything is reserved
// for it, and what the fields say is checked as far as a frame alone can show it.

import KVModel
import KVSystem
import KVTiering
import KVTransport

/// A whole frame of either direction. Deadlines are instants of the reader's clock here and durations on the wire.
public enum EngineFrame: Sendable, Equatable {
    // What engines say.
    case hello(EngineGreeting)
    case addRegion(Int32, byteCount: Int)
    case dropRegion(Int32)
    case lookUp(EngineLookUp)
    case load(EngineLoad)
    case save(EngineSave)
    case finished(EngineRequestEnd)
    case cancel(EngineTicket)
    case prefetch([ObjectName])
    case touch([ObjectName])
    case pin(EngineTicket, [ObjectName], lifetime: Duration)
    case unpin(EngineTicket)
    case openArena(isWritable: Bool)
    case take(EngineTake)
    case reserve(EngineReserve)
    case commit(EngineCommit)
    case release(EngineTicket, EngineLoan)
    case subscribe
    case askStatistics(EngineTicket)
    case ping(EngineTicket, [UInt8])
    case goodbye
    // What the agent says.
    case welcome(EngineWelcome)
    case regionAdded(Int32)
    case regionDropped(Int32)
    case found(EngineTicket, EngineFound)
    case loaded(EngineTicket, EngineLoaded)
    case saved(EngineTicket, EngineSaved)
    case cancelled(EngineTicket)
    case pinned(EngineTicket, PinAnswer.Outcome, blocks: UInt32)
    case arenaOpened(EngineArenaShape)
    case taken(EngineTicket, EngineTaken)
    case reserved(EngineTicket, EngineReserved)
    case committed(EngineTicket, EngineSaved)
    case released(EngineTicket, wasInForce: Bool)
    case changed(added: [ObjectName], removed: [ObjectName], hasGap: Bool)
    case statistics(EngineTicket, [EngineStatistic])
    case pong(EngineTicket, [UInt8])
    case farewell(String)
    case refused(EngineTicket, EngineRefusal)
}

extension EngineFrame {
    /// Reads the body that stands behind a header.
    ///
    /// - Parameter now: The moment from which its deadlines count.
    package init(
        _ header: EngineFrameHeader, body: UnsafeRawBufferPointer, at now: Instant
    ) throws(FrameError) {
        precondition(body.count == header.bodyBytes, "a body of another length than its header says")
        var reader = unsafe WireReader(body, behind: EngineProtocol.headerBytes)
        self =
            header.kind.isFromEngine
            ? try Self.request(header, &reader, now) : try Self.reply(header, &reader)
        try reader.end()
    }

    private static func request(
        _ header: EngineFrameHeader, _ reader: inout WireReader, _ now: Instant
    ) throws(FrameError) -> EngineFrame {
        let ticket = header.ticket
        switch header.kind {
        case .hello: return .hello(try reader.greeting())
        case .addRegion:
            let region = try reader.region()
            let byteCount = try reader.integer(UInt64.self, "length")
            guard byteCount > 0, let byteCount = Int(exactly: byteCount) else {
                throw reader.error(.value("length", byteCount))
            }
            return .addRegion(region, byteCount: byteCount)
        case .dropRegion: return .dropRegion(try reader.region())
        case .lookUp: return .lookUp(try reader.lookUp(ticket))
        case .load: return .load(try reader.load(ticket, now))
        case .save: return .save(try reader.save(ticket))
        case .finished: return .finished(try reader.requestEnd(ticket))
        case .cancel: return .cancel(ticket)
        case .prefetch: return .prefetch(try reader.chain(countMin: 1))
        case .touch: return .touch(try reader.chain(countMin: 1))
        case .pin:
            let lifetime = try reader.duration("lifetime")
            guard lifetime > .zero else { throw reader.error(.value("lifetime", 0)) }
            return .pin(ticket, try reader.chain(countMin: 1), lifetime: lifetime)
        case .unpin: return .unpin(ticket)
        case .openArena: return .openArena(isWritable: try reader.access())
        case .take: return .take(try reader.take(ticket, now))
        case .reserve: return .reserve(try reader.reserve(ticket))
        case .commit: return .commit(try reader.commit(ticket))
        case .release: return .release(ticket, try reader.loan())
        case .subscribe: return .subscribe
        case .askStatistics: return .askStatistics(ticket)
        case .ping:
            guard header.bodyBytes <= EngineProtocol.pingBytesMax else {
                throw reader.error(.tooLong("ping", UInt64(header.bodyBytes)))
            }
            return .ping(ticket, reader.rest())
        default: return .goodbye
        }
    }

    private static func reply(
        _ header: EngineFrameHeader, _ reader: inout WireReader
    ) throws(FrameError) -> EngineFrame {
        let ticket = header.ticket
        switch header.kind {
        case .welcome: return .welcome(try reader.welcome())
        case .regionAdded: return .regionAdded(try reader.region())
        case .regionDropped: return .regionDropped(try reader.region())
        case .found: return .found(ticket, try reader.found())
        case .loaded:
            let first = try reader.count("first")
            let end = try reader.count("end")
            guard first <= end else { throw reader.error(.value("end", UInt64(end))) }
            return .loaded(
                ticket,
                EngineLoaded(
                    first: first, end: end, bytes: try reader.number("bytes"), time: try reader.duration("time")))
        case .saved: return .saved(ticket, try reader.saved())
        case .arenaOpened: return .arenaOpened(try reader.arenaShape())
        case .taken: return .taken(ticket, try reader.taken())
        case .reserved: return .reserved(ticket, try reader.reserved())
        case .committed: return .committed(ticket, try reader.saved())
        case .released:
            let isOver = try reader.integer(UInt8.self, "outcome")
            guard isOver < 2 else { throw reader.error(.value("outcome", UInt64(isOver))) }
            try reader.zeros(7)
            return .released(ticket, wasInForce: isOver == 0)
        case .cancelled: return .cancelled(ticket)
        case .pinned:
            let number = try reader.integer(UInt8.self, "outcome")
            guard let outcome = PinAnswer.Outcome(rawValue: number) else {
                throw reader.error(.value("outcome", UInt64(number)))
            }
            try reader.zeros(3)
            return .pinned(ticket, outcome, blocks: try reader.number("blocks"))
        case .changed:
            let counts = (try reader.integer(UInt32.self, "added"), try reader.integer(UInt32.self, "removed"))
            let added = try reader.names(counts.0, "added")
            return .changed(
                added: added, removed: try reader.names(counts.1, "removed"), hasGap: header.hasGap)
        case .statistics:
            return .statistics(
                ticket,
                try reader.list("statistics", bytesEach: 10) { reader throws(FrameError) in
                    EngineStatistic(try reader.text("name"), try reader.number("value"))
                })
        case .pong: return .pong(ticket, reader.rest())
        case .farewell: return .farewell(try reader.text("reason", bytesMax: EngineProtocol.valueBytesMax))
        default:
            let number = try reader.integer(UInt16.self, "code")
            guard let code = EngineRefusalCode(rawValue: number) else {
                throw reader.error(.value("code", UInt64(number)))
            }
            return .refused(
                ticket, EngineRefusal(code, try reader.text("reason", bytesMax: EngineProtocol.valueBytesMax)))
        }
    }
}

extension WireReader {
    /// A whole number of the kind that is wanted.
    mutating func number<Word: FixedWidthInteger>(_ field: String) throws(FrameError) -> Word {
        try integer(Word.self, field)
    }

    mutating func zeros(_ count: Int) throws(FrameError) {
        for _ in 0..<count where try integer(UInt8.self, "zero") != 0 { throw error(.reserved("a field")) }
    }

    /// A number of blocks or a position, which the decisions keep in 32 signed bits.
    mutating func count(_ field: String) throws(FrameError) -> Int32 {
        let word = try integer(UInt32.self, field)
        guard let count = Int32(exactly: word) else { throw error(.value(field, UInt64(word))) }
        return count
    }

    mutating func duration(_ field: String) throws(FrameError) -> Duration {
        let word = try integer(UInt64.self, field)
        // 146 years and more are one and the same.
        return Duration(nanoseconds: Int64(clamping: min(word, 1 << 62)))
    }

    fileprivate mutating func region() throws(FrameError) -> Int32 {
        let region = try count("region")
        try zeros(4)
        return region
    }

    /// Keys of one group and shard.
    mutating func chain(countMin: Int) throws(FrameError) -> [ObjectName] {
        let keyCount = Int(try integer(UInt32.self, "keys"))
        let group = try integer(UInt16.self, "group")
        let shard = try integer(UInt16.self, "shard")
        let shardCount = try integer(UInt16.self, "shards")
        guard keyCount >= countMin else { throw error(.value("keys", UInt64(keyCount))) }
        guard keyCount <= EngineProtocol.keyCountMax else { throw error(.tooLong("keys", UInt64(keyCount))) }
        guard shard < shardCount else { throw error(.value("shard", UInt64(shard))) }
        try zeros(2)
        return try names(keyCount, group: group, shard: shard, shardCount: shardCount, "keys")
    }

    fileprivate mutating func places() throws(FrameError) -> EnginePlaces {
        let blockCount = Int(try integer(UInt32.self, "blocks"))
        let segments = Int(try integer(UInt16.self, "segments"))
        try zeros(2)
        guard (1...EngineProtocol.keyCountMax).contains(blockCount) else {
            throw error(.value("blocks", UInt64(blockCount)))
        }
        guard (1...EngineProtocol.segmentsMax).contains(segments) else {
            throw error(.value("segments", UInt64(segments)))
        }
        let sliceCount = blockCount * segments
        guard sliceCount <= EngineProtocol.sliceCountMax else { throw error(.tooLong("slices", UInt64(sliceCount))) }
        guard sliceCount * 16 <= remainingBytes else { throw error(.truncated("slices")) }
        var slices: [MemorySlice] = []
        slices.reserveCapacity(sliceCount)
        for _ in 0..<sliceCount {
            let region = try count("region")
            let length = Int(try integer(UInt32.self, "length"))
            let offset = try integer(UInt64.self, "offset")
            guard length > 0 else { throw error(.value("length", 0)) }
            guard let start = Int(exactly: offset), start <= Int.max - length else {
                throw error(.value("offset", offset))
            }
            slices.append(MemorySlice(region: region, offset: start, count: length))
        }
        return EnginePlaces(segmentsPerBlock: segments, slices: slices)
    }

    fileprivate mutating func greeting() throws(FrameError) -> EngineGreeting {
        let oldest = try integer(UInt16.self, "oldest version")
        let newest = try integer(UInt16.self, "newest version")
        guard oldest >= 1, oldest <= newest else { throw error(.value("versions", UInt64(oldest))) }
        let owner = try integer(UInt8.self, "ownership")
        guard Ownership.allCases.indices.contains(Int(owner)) else { throw error(.value("ownership", UInt64(owner))) }
        try zeros(3)
        let blockTokens = try count("block tokens")
        guard 1...EngineProtocol.blockTokensMax ~= blockTokens else {
            throw error(.value("block tokens", UInt64(blockTokens)))
        }
        try zeros(4)
        let blockBytes = try integer(UInt64.self, "block bytes")
        guard blockBytes > 0, blockBytes < 1 << 31 else { throw error(.value("block bytes", blockBytes)) }
        let digest = try raw(32, "digest")
        let kind = try text("kind", bytesMax: 64)
        let client = try text("client")
        let storeNamespace = try text("store namespace")
        guard !kind.isEmpty else { throw error(.value("kind", 0)) }
        guard !storeNamespace.isEmpty else { throw error(.value("store namespace", 0)) }
        let fieldCount = try integer(UInt16.self, "fields")
        guard fieldCount <= EngineProtocol.fieldCountMax else { throw error(.tooLong("fields", UInt64(fieldCount))) }
        var fields: [String: String] = [:]
        for index in 0..<fieldCount {
            let name = try text("field name")
            guard !name.isEmpty else { throw error(.value("field name", UInt64(index))) }
            let value = try text("field value", bytesMax: EngineProtocol.valueBytesMax)
            guard fields.updateValue(value, forKey: name) == nil else {
                throw error(.value("field name, given twice:", UInt64(index)))
            }
        }
        return EngineGreeting(
            versions: oldest...newest, digest: digest, client: client,
            hello: EngineHello(
                kind: kind, process: 0, ownership: Ownership.allCases[Int(owner)], namespace: fields,
                storeNamespace: storeNamespace, blockTokens: blockTokens, blockBytes: Int(blockBytes)))
    }

    fileprivate mutating func welcome() throws(FrameError) -> EngineWelcome {
        var welcome = EngineWelcome()
        welcome.version = try number("version")
        try zeros(2)
        welcome.engine = try count("engine")
        welcome.agent = try number("agent")
        welcome.jobsMax = try number("jobs")
        welcome.requestsMax = try number("requests")
        welcome.keysMax = try number("keys")
        welcome.slicesMax = try number("slices")
        welcome.bodyBytesMax = try number("body bytes")
        welcome.regionsMax = try number("regions")
        try zeros(8)
        welcome.program = try text("version of the program")
        return welcome
    }

    fileprivate mutating func lookUp(_ ticket: EngineTicket) throws(FrameError) -> EngineLookUp {
        let promptTokens = try count("prompt tokens")
        let engineBlocks = try count("engine blocks")
        let session = try integer(UInt64.self, "session")
        let turn = try integer(Int32.self, "turn")
        guard turn >= -1 else { throw error(.value("turn", UInt64(UInt32(bitPattern: turn)))) }
        try zeros(4)
        return EngineLookUp(
            ticket: ticket, names: try chain(countMin: 1), promptTokens: promptTokens, engineBlocks: engineBlocks,
            session: session, turn: turn)
    }

    fileprivate mutating func load(_ job: EngineTicket, _ now: Instant) throws(FrameError) -> EngineLoad {
        let request = try integer(UInt64.self, "request")
        let first = try count("first")
        try zeros(2)
        let asker = try integer(UInt16.self, "asker")
        let computeWait = try duration("compute wait")
        let deadline = try duration("deadline")
        let names = try chain(countMin: request == 0 ? 1 : 0)
        let places = try places()
        guard names.isEmpty || Int(first) + places.blockCount <= names.count else {
            throw error(.value("first", UInt64(first)))
        }
        guard Int(first) + places.blockCount <= Int(Int32.max) else { throw error(.value("first", UInt64(first))) }
        return EngineLoad(
            job: job, request: request, asker: asker, names: names, first: first, places: places,
            computeWait: computeWait, deadline: deadline == .zero ? .distantFuture : now + deadline)
    }

    fileprivate mutating func save(_ job: EngineTicket) throws(FrameError) -> EngineSave {
        let request = try integer(UInt64.self, "request")
        let first = try count("first")
        let evictionClass = try integer(UInt8.self, "eviction class")
        try zeros(1)
        let asker = try integer(UInt16.self, "asker")
        let names = try chain(countMin: 1)
        let places = try places()
        guard Int(first) + places.blockCount == names.count else { throw error(.value("first", UInt64(first))) }
        return EngineSave(
            job: job, request: request, asker: asker, names: names, first: first, places: places,
            evictionClass: evictionClass)
    }

    fileprivate mutating func requestEnd(_ ticket: EngineTicket) throws(FrameError) -> EngineRequestEnd {
        let number = try integer(UInt8.self, "reason")
        guard let reason = StopReason(rawValue: number) else { throw error(.value("reason", UInt64(number))) }
        try zeros(3)
        let cachedTokens = try integer(Int32.self, "cached tokens")
        guard cachedTokens >= -1 else {
            throw error(.value("cached tokens", UInt64(UInt32(bitPattern: cachedTokens))))
        }
        let end = EngineRequestEnd(
            ticket: ticket, reason: reason, cachedTokens: cachedTokens,
            timeToFirstToken: try duration("time to first token"), resumesAfter: try duration("resumes after"),
            answerTokens: try count("answer tokens"))
        try zeros(4)
        return end
    }

    fileprivate mutating func found() throws(FrameError) -> EngineFound {
        var found = EngineFound()
        found.hitBlocks = try number("hit blocks")
        found.hbmBlocks = try number("HBM blocks")
        found.dramBlocks = try number("DRAM blocks")
        found.nvmeBlocks = try number("NVMe blocks")
        found.flashBlocks = try number("flash blocks")
        try zeros(4)
        return found
    }

    fileprivate mutating func saved() throws(FrameError) -> EngineSaved {
        let offered = Int(try integer(UInt32.self, "offered"))
        guard offered <= EngineProtocol.keyCountMax else { throw error(.tooLong("offered", UInt64(offered))) }
        try zeros(4)
        let bytes = try integer(UInt64.self, "bytes")
        let time = try duration("time")
        var kept: [UInt64] = []
        for _ in 0..<((offered + 63) / 64) { kept.append(try number("kept")) }
        if offered % 64 != 0, let last = kept.last, last >> UInt64(offered % 64) != 0 {
            throw error(.reserved("bits behind the last block"))
        }
        return EngineSaved(count: offered, bytes: bytes, time: time, kept: kept)
    }

    fileprivate mutating func names(_ count: UInt32, _ field: String) throws(FrameError) -> [ObjectName] {
        guard Int(count) * 40 <= remainingBytes else { throw error(.truncated(field)) }
        var names: [ObjectName] = []
        names.reserveCapacity(Int(count))
        for _ in 0..<count { names.append(try name(field)) }
        return names
    }
}
