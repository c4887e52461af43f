// What travels between an engine and the agent: the header of every frame, what a frame can be about, and the limits that both
// ends know. The page EngineProtocol of this target's documentation describes every byte.

import KVModel
import KVSystem
import KVTiering
import KVTransport

/// The numbers that both ends know without asking.
public enum EngineProtocol {
    /// The version that this code speaks.
    public static let version: UInt16 = 1
    /// Bytes of every header.
    public static let headerBytes = 16
    /// The longest body.
    public static let bodyBytesMax = 4 << 20
    /// The longest body before the welcome.
    public static let helloBytesMax = 64 << 10
    /// The most keys in a chain.
    public static let keyCountMax = 16_384
    /// The most slices of one block.
    public static let segmentsMax = 1_024
    /// The most slices in one frame.
    public static let sliceCountMax = 131_072
    /// The longest value of a field of the namespace.
    public static let valueBytesMax = 16_384
    /// The most fields of a namespace.
    public static let fieldCountMax = 256
    /// The longest body of a ping.
    public static let pingBytesMax = 64
    /// The most regions of an engine at once.
    public static let regionCountMax = 64
    /// The longest region: all of an engine's together can be counted.
    public static let regionBytesMax = 1 << 56
    /// The most tokens of a block: those of the longest chain can be counted in 32 bits.
    public static let blockTokensMax: Int32 = 65_536
    /// The kind of who is no engine and only looks: it asks for numbers and pings, and what its hello says of blocks is compared
    /// with nobody's.
    public static let visitorKind = "visitor"
}

/// What a frame is about. The raw values are the wire's.
public enum EngineFrameKind: UInt8, Sendable, CaseIterable {
    // What engines say.
    case hello = 0x01
    case addRegion = 0x02
    case dropRegion = 0x03
    case openArena = 0x04
    case lookUp = 0x10
    case load = 0x11
    case save = 0x12
    case finished = 0x13
    case cancel = 0x14
    case prefetch = 0x15
    case touch = 0x16
    case pin = 0x17
    case unpin = 0x18
    case take = 0x19
    case reserve = 0x1A
    case commit = 0x1B
    case release = 0x1C
    case subscribe = 0x20
    case askStatistics = 0x21
    case ping = 0x22
    case goodbye = 0x2F
    // What the agent says: the request's number with bit 7 set, and three of its own.
    case welcome = 0x81
    case regionAdded = 0x82
    case regionDropped = 0x83
    case arenaOpened = 0x84
    case found = 0x90
    case loaded = 0x91
    case saved = 0x92
    case cancelled = 0x94
    case pinned = 0x97
    case taken = 0x99
    case reserved = 0x9A
    case committed = 0x9B
    case released = 0x9C
    case changed = 0xA0
    case statistics = 0xA1
    case pong = 0xA2
    case farewell = 0xAF
    case refused = 0xFF

    /// Whether engines say it.
    public var isFromEngine: Bool { rawValue < 0x80 }
}

/// The 16 bytes before each body.
public struct EngineFrameHeader: Sendable, Equatable {
    /// What it is about.
    public var kind: EngineFrameKind
    /// Only in `changed`: something was lost before it.
    public var hasGap = false
    /// The request or job concerned; 0 = none.
    public var ticket: EngineTicket = 0
    /// Bytes of the body, which follows.
    public var bodyBytes = 0

    /// A header for a body that is still to be written.
    public init(_ kind: EngineFrameKind, ticket: EngineTicket = 0) {
        self.kind = kind
        self.ticket = ticket
    }

    package func write(to bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == EngineProtocol.headerBytes, "a header of another length")
        unsafe bytes.storeBytes(of: UInt32(bodyBytes).littleEndian, toByteOffset: 0, as: UInt32.self)
        unsafe bytes.storeBytes(of: kind.rawValue, toByteOffset: 4, as: UInt8.self)
        unsafe bytes.storeBytes(of: hasGap ? 1 : 0, toByteOffset: 5, as: UInt8.self)
        unsafe bytes.storeBytes(of: EngineProtocol.version.littleEndian, toByteOffset: 6, as: UInt16.self)
        unsafe bytes.storeBytes(of: ticket.littleEndian, toByteOffset: 8, as: UInt64.self)
    }

    /// Reads it from 16 bytes.
    package init(reading bytes: UnsafeRawBufferPointer) throws(FrameError) {
        precondition(bytes.count == EngineProtocol.headerBytes, "a header of another length")
        func load<Word: FixedWidthInteger>(_ offset: Int, _: Word.Type) -> Word {
            Word(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: offset, as: Word.self))
        }
        let version = load(6, UInt16.self)
        guard version == EngineProtocol.version else {
            throw FrameError(.value("version", UInt64(version)), at: 6)
        }
        guard let kind = EngineFrameKind(rawValue: load(4, UInt8.self)) else {
            throw FrameError(.operation(load(4, UInt8.self)), at: 4)
        }
        let flags = load(5, UInt8.self)
        guard flags == 0 || (flags == 1 && kind == .changed) else { throw FrameError(.reserved("flags"), at: 5) }
        let bodyBytes = load(0, UInt32.self)
        guard bodyBytes <= EngineProtocol.bodyBytesMax else {
            throw FrameError(.tooLong("body", UInt64(bodyBytes)), at: 0)
        }
        self.kind = kind
        hasGap = flags == 1
        ticket = load(8, UInt64.self)
        self.bodyBytes = Int(bodyBytes)
        switch kind {
        case .lookUp, .load, .save, .finished, .cancel, .pin, .unpin, .take, .reserve, .commit, .release, .found,
            .loaded, .saved, .cancelled, .pinned, .taken, .reserved, .committed, .released:
            guard ticket != 0 else { throw FrameError(.value("ticket", 0), at: 8) }
        case .askStatistics, .ping, .statistics, .pong, .refused: break
        default: guard ticket == 0 else { throw FrameError(.reserved("ticket"), at: 8) }
        }
    }
}

/// Why the agent ends a connection. The raw values are the wire's.
public enum EngineRefusalCode: UInt16, Sendable, CaseIterable {
    /// No version in common.
    case version = 1
    /// The hello cannot be accepted.
    case hello = 2
    /// Another layout or namespace.
    case layout = 3
    /// This user may not.
    case user = 4
    /// A frame that is none, or that says what cannot be.
    case frame = 5
    /// A ticket opened twice, or more open than granted.
    case ticket = 6
    /// A region cannot be mapped, or was lost.
    case region = 7
    /// No room for another engine.
    case room = 8
    /// The engine does not read what it is told.
    case slow = 9

    /// The name in metrics.
    public var name: String {
        switch self {
        case .version: "version"
        case .hello: "hello"
        case .layout: "layout"
        case .user: "user"
        case .frame: "frame"
        case .ticket: "ticket"
        case .region: "region"
        case .room: "room"
        case .slow: "slow"
        }
    }
}

/// A connection ends, and why.
public struct EngineRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The kind.
    public var code: EngineRefusalCode
    /// For people: what is wrong, with both sides where there are two.
    public var reason: String

    /// A refusal of its parts.
    public init(_ code: EngineRefusalCode, _ reason: String) {
        self.code = code
        self.reason = reason
    }

    /// `layout: …`.
    public var description: String { "\(code.name): \(reason)" }
}

/// What an engine says first.
public struct EngineGreeting: Sendable, Equatable {
    /// Versions of the protocol that it speaks.
    public var versions: ClosedRange<UInt16>
    /// The namespace's digest as the engine computes it, 32 bytes.
    public var digest: [UInt8]
    /// Its client's name and version.
    public var client: String
    /// Who it is. `process` does not travel: the kernel says it.
    public var hello: EngineHello

    /// A greeting of its parts.
    public init(
        versions: ClosedRange<UInt16> = EngineProtocol.version...EngineProtocol.version, digest: [UInt8],
        client: String, hello: EngineHello
    ) {
        precondition(digest.count == 32, "a digest of other than 32 bytes")
        self.versions = versions
        self.digest = digest
        self.client = client
        self.hello = hello
    }
}

/// What the agent answers to a hello.
public struct EngineWelcome: Sendable, Equatable {
    /// The version spoken from here on.
    public var version = EngineProtocol.version
    /// The agent's number for the connection.
    public var engine: EngineNumber = 0
    /// The agent's process: another number, another process.
    public var agent: UInt64 = 0
    /// Jobs that may be open at once.
    public var jobsMax: UInt32 = 256
    /// Requests that may be open at once.
    public var requestsMax: UInt32 = 4_096
    /// Keys in a chain.
    public var keysMax = UInt32(EngineProtocol.keyCountMax)
    /// Slices in a frame.
    public var slicesMax = UInt32(EngineProtocol.sliceCountMax)
    /// The longest body.
    public var bodyBytesMax = UInt32(EngineProtocol.bodyBytesMax)
    /// Regions at once.
    public var regionsMax = UInt32(EngineProtocol.regionCountMax)
    /// The agent's program.
    public var program = ""

    /// A welcome of defaults.
    public init() {}
}

/// What a look-up found, as it travels.
public struct EngineFound: Sendable, Equatable {
    /// Leading blocks that could be served, the engine's own included.
    public var hitBlocks: UInt32 = 0
    /// Of those: in the engine or in HBM slots.
    public var hbmBlocks: UInt32 = 0
    /// Of those: in node memory.
    public var dramBlocks: UInt32 = 0
    /// Of those: on local flash.
    public var nvmeBlocks: UInt32 = 0
    /// Of those: in the shared store.
    public var flashBlocks: UInt32 = 0

    /// Nothing.
    public init() {}

    /// What the decisions answered.
    init(_ answer: Answer) {
        func count(_ blocks: Int32) -> UInt32 { UInt32(clamping: blocks) }
        hitBlocks = count(answer.hitBlocks)
        hbmBlocks = count(answer.hbmBlocks)
        dramBlocks = count(answer.dramBlocks)
        nvmeBlocks = count(answer.nvmeBlocks)
        flashBlocks = count(answer.flashBlocks)
    }
}

/// How a load ended, as it travels.
public struct EngineLoaded: Sendable, Equatable {
    /// Blocks `first ..< end` of the chain are in their places and were verified.
    public var first: Int32
    /// One past the last of them.
    public var end: Int32
    /// Bytes written for them.
    public var bytes: UInt64
    /// From the job's arrival to its end.
    public var time: Duration

    /// An end of its parts.
    public init(first: Int32, end: Int32, bytes: UInt64, time: Duration) {
        self.first = first
        self.end = end
        self.bytes = bytes
        self.time = time
    }
}

/// How a save ended, as it travels.
public struct EngineSaved: Sendable, Equatable {
    /// Blocks that were offered.
    public var count: Int
    /// Bytes of those that were kept.
    public var bytes: UInt64
    /// From the job's arrival to its end.
    public var time: Duration
    /// Bit i % 64 of word i / 64 is set when offered block i is kept; `(count + 63) / 64` words.
    public var kept: [UInt64]

    /// An end of its parts. Words that are missing count as zero.
    public init(count: Int, bytes: UInt64, time: Duration, kept: [UInt64]) {
        self.count = count
        self.bytes = bytes
        self.time = time
        let words = (count + 63) / 64
        self.kept = Array((kept + [UInt64](repeating: 0, count: max(0, words - kept.count))).prefix(words))
    }

    /// How many are kept.
    public var keptCount: Int { kept.reduce(0) { $0 + $1.nonzeroBitCount } }
}

/// A number with its name.
public struct EngineStatistic: Sendable, Equatable {
    /// As metrics spell it.
    public var name: String
    /// Its value.
    public var value: UInt64

    /// A number with its name.
    public init(_ name: String, _ value: UInt64) {
        self.name = name
        self.value = value
    }
}
