// What the two ends of a queue pair tell each other over the authenticated control connection, before either can send:
// the body of `attach` and `attached`, byte by byte in RDMA.md.

import KVModel

/// One end of a queue pair, as the other must know it.
package struct VerbsParameters: Sendable, Equatable {
    /// Bytes of the body.
    package static let byteCount = 48

    /// Number of the queue pair.
    package var pair: UInt32
    /// The first packet it will send, 24 bits.
    package var packetNumber: UInt32
    /// The port's global identifier, 16 bytes.
    package var address: [UInt8]
    /// InfiniBand's short address, else 0.
    package var localIdentifier: UInt32
    /// Bytes of a packet that its port takes.
    package var mtuBytes: UInt32
    /// The longest message that its port takes.
    package var messageBytesMax: UInt32
    /// Outstanding READs it would like to ask for.
    package var readsAsInitiator: UInt16
    /// Outstanding READs it serves.
    package var readsAsResponder: UInt16
    /// Receives it has posted: the credits it grants.
    package var receiveCount: UInt16
    /// Bytes of each.
    package var receiveBytes: UInt32

    package func write(to writer: inout FrameWriter) {
        writer.integer(pair)
        writer.integer(packetNumber)
        writer.raw(address)
        writer.integer(localIdentifier)
        writer.integer(mtuBytes)
        writer.integer(messageBytesMax)
        writer.integer(readsAsInitiator)
        writer.integer(readsAsResponder)
        writer.integer(receiveCount)
        writer.integer(UInt16(0))
        writer.integer(receiveBytes)
    }

    package init(_ reader: inout WireReader) throws(FrameError) {
        pair = try Self.field(&reader, "queue pair", 1...0xFF_FFFF)
        packetNumber = try Self.field(&reader, "packet number", 0...0xFF_FFFF)
        address = try reader.raw(16, "address")
        localIdentifier = try Self.field(&reader, "local identifier", 0...0xFFFF)
        mtuBytes = try Self.field(&reader, "packet bytes", 256...4096)
        messageBytesMax = try Self.field(&reader, "message bytes", 4096...UInt32.max)
        readsAsInitiator = try Self.field(&reader, "reads asked", 0...255)
        readsAsResponder = try Self.field(&reader, "reads served", 0...255)
        receiveCount = try Self.field(&reader, "receives", 4...4096)
        let reserved = try reader.integer(UInt16.self, "reserved")
        guard reserved == 0 else { throw reader.error(.reserved("reserved")) }
        receiveBytes = try Self.field(&reader, "receive bytes", 256...(1 << 20))
        try reader.end()
    }

    package init(
        pair: UInt32, packetNumber: UInt32, address: [UInt8], localIdentifier: UInt32, mtuBytes: UInt32,
        messageBytesMax: UInt32, readsAsInitiator: UInt16, readsAsResponder: UInt16, receiveCount: UInt16,
        receiveBytes: UInt32
    ) {
        self.pair = pair
        self.packetNumber = packetNumber
        self.address = address
        self.localIdentifier = localIdentifier
        self.mtuBytes = mtuBytes
        self.messageBytesMax = messageBytesMax
        self.readsAsInitiator = readsAsInitiator
        self.readsAsResponder = readsAsResponder
        self.receiveCount = receiveCount
        self.receiveBytes = receiveBytes
    }

    /// A field that must lie in a range; the error stands at its end.
    private static func field<Word: FixedWidthInteger & UnsignedInteger>(
        _ reader: inout WireReader, _ name: String, _ range: ClosedRange<Word>
    ) throws(FrameError) -> Word {
        let value = try reader.integer(Word.self, name)
        guard range.contains(value) else { throw reader.error(.value(name, UInt64(value))) }
        return value
    }
}

/// How queue pairs are set up at one end.
public struct VerbsSettings: Sendable, Equatable {
    /// Receives posted, which is what the peer may have on the way to us: 4 to 4096.
    public var receiveCount: Int
    /// Bytes of each; longer frames travel in pieces: 256 bytes to 1 MiB.
    public var receiveBytes: Int
    /// Work requests that one queue pair holds: 8 to what the device can.
    public var sendDepth: Int
    /// Outstanding READs of one queue pair, within what the devices can: 1 to 255.
    public var readsMax: Int
    /// The longest message, within what the ports can.
    public var messageBytesMax: Int
    /// An unacknowledged packet is sent again after 4.096 µs × 2^timeout: 1 to 31.
    public var timeout: Int
    /// So often, then the queue pair fails: 0 to 7.
    public var retryCount: Int
    /// Routers a packet may pass.
    public var hopLimit: Int
    /// The traffic class of the packets (DSCP × 4): what the fabric's lossless queue is chosen by.
    public var trafficClass: Int

    /// For adapters of today: 16 MiB messages, 16 READs, a packet repeated after 67 ms, seven times.
    public static let standard = VerbsSettings(
        receiveCount: 64, receiveBytes: 4096, sendDepth: 128, readsMax: 16, messageBytesMax: 16 << 20, timeout: 14,
        retryCount: 7, hopLimit: 64, trafficClass: 0)

    /// Settings of their parts.
    public init(
        receiveCount: Int, receiveBytes: Int, sendDepth: Int, readsMax: Int, messageBytesMax: Int, timeout: Int,
        retryCount: Int, hopLimit: Int, trafficClass: Int
    ) {
        self.receiveCount = receiveCount
        self.receiveBytes = receiveBytes
        self.sendDepth = sendDepth
        self.readsMax = readsMax
        self.messageBytesMax = messageBytesMax
        self.timeout = timeout
        self.retryCount = retryCount
        self.hopLimit = hopLimit
        self.trafficClass = trafficClass
    }
}
