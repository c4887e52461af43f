// The header that opens every frame, and what can be wrong with one. Byte by byte in the comments of its fields.

import KVModel
import KVSystem

/// What a frame is about. The raw values are the wire's.
public enum Operation: UInt8, Sendable, CaseIterable {
    // Who is there: before these four nothing else is understood.
    case hello = 0x01
    case challenge = 0x02
    case proof = 0x03
    case welcome = 0x04
    case refused = 0x05
    // Requests, and their replies.
    case openNamespace = 0x10
    case lookUp = 0x11
    case get = 0x12
    case put = 0x13
    case pin = 0x14
    case unpin = 0x15
    case delete = 0x16
    case list = 0x17
    case describe = 0x18
    case stat = 0x19
    case subscribe = 0x1A
    case reportCorrupt = 0x1B
    case administer = 0x1C
    case cancel = 0x1D
    // What the store says on its own.
    case added = 0x40
    case removed = 0x41
    case overflow = 0x42
    case goodbye = 0x50
    // How a carrier sets up its second path (queue pairs) over the first.
    case attach = 0x60
    case attached = 0x61
    case detach = 0x62

    /// Whether a client may ask this of a store.
    package var isRequest: Bool { rawValue >= 0x10 && rawValue <= 0x1D }
}

/// The numbers that both ends know without asking.
public enum WireLimit {
    /// Bytes of every header.
    public static let headerBytes = 32
    /// The version of the protocol that this code speaks.
    public static let version: UInt8 = 1
    /// The first four bytes of every header: "HFW1".
    public static let magic: UInt32 = 0x3157_4648
    /// The longest body.
    public static let bodyBytesMax = 1 << 20
    /// The longest body before authentication.
    public static let handshakeBodyBytesMax = 512
    /// The most names in one request.
    public static let batchCountMax = 16_384
    /// The longest name of a tenant, namespace, owner or verb, in bytes of UTF-8.
    public static let textBytesMax = 256
}

/// The 32 bytes before each body.
public struct FrameHeader: Sendable, Equatable {
    /// What it is about.
    public var operation: Operation
    /// Whether it answers a request.
    public var isReply = false
    /// Whether the payload travels by the slot that the request named and not behind this body.
    public var payloadIsInSlot = false
    /// Which of the bodies of a reply follows; 0 in everything else.
    public var bodyKind: UInt8 = 0
    /// The client's number for the request; 0 where there is none.
    public var requestNumber: UInt32 = 0
    /// How a request ended; `ok` in everything that is not a reply or a refusal.
    public var status = Status.ok
    /// The session's handle of a namespace; 0 where there is none.
    public var namespace: NamespaceHandle = 0
    /// Bytes of the body, which follows.
    public var bodyBytes: UInt32 = 0
    /// CRC32C of the body; 0 of no body.
    public var bodyChecksum: UInt32 = 0
    /// Bytes of the payload, which follows the body unless `payloadIsInSlot`.
    public var payloadBytes: UInt32 = 0

    /// A header for one operation; body and checksums are filled in when it is written.
    public init(_ operation: Operation, requestNumber: UInt32 = 0, namespace: NamespaceHandle = 0) {
        self.operation = operation
        self.requestNumber = requestNumber
        self.namespace = namespace
    }

    /// Bytes of payload that follow the body in a stream.
    package var inlinePayloadBytes: Int { payloadIsInSlot ? 0 : Int(payloadBytes) }

    private static let replyFlag: UInt8 = 1
    private static let slotFlag: UInt8 = 2

    /// Writes it to 32 bytes.
    package func write(to bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == WireLimit.headerBytes, "a header of another length")
        func store<Word: FixedWidthInteger>(_ value: Word, at offset: Int) {
            unsafe bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Word.self)
        }
        store(WireLimit.magic, at: 0)
        store(WireLimit.version, at: 4)
        store(operation.rawValue, at: 5)
        store((isReply ? Self.replyFlag : 0) | (payloadIsInSlot ? Self.slotFlag : 0), at: 6)
        store(bodyKind, at: 7)
        store(requestNumber, at: 8)
        store(status.rawValue, at: 12)
        store(namespace, at: 14)
        store(bodyBytes, at: 16)
        store(bodyChecksum, at: 20)
        store(payloadBytes, at: 24)
        store(unsafe headerChecksum(UnsafeRawBufferPointer(rebasing: bytes[0..<28])), at: 28)
    }

    /// Reads it from 32 bytes. The checksum is verified before any field is believed, except magic and version: a
    /// peer of another version may keep its checksum elsewhere.
    package init(reading bytes: UnsafeRawBufferPointer) throws(FrameError) {
        precondition(bytes.count == WireLimit.headerBytes, "a header of another length")
        func load<Word: FixedWidthInteger>(_ offset: Int, _: Word.Type) -> Word {
            Word(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: offset, as: Word.self))
        }
        guard load(0, UInt32.self) == WireLimit.magic else { throw FrameError(.magic, at: 0) }
        guard load(4, UInt8.self) == WireLimit.version else {
            throw FrameError(.version(load(4, UInt8.self)), at: 4)
        }
        let checksum = unsafe headerChecksum(UnsafeRawBufferPointer(rebasing: bytes[0..<28]))
        guard load(28, UInt32.self) == checksum else { throw FrameError(.headerChecksum, at: 28) }
        guard let operation = Operation(rawValue: load(5, UInt8.self)) else {
            throw FrameError(.operation(load(5, UInt8.self)), at: 5)
        }
        let flags = load(6, UInt8.self)
        guard flags & ~(Self.replyFlag | Self.slotFlag) == 0 else { throw FrameError(.reserved("flags"), at: 6) }
        guard let status = Status(rawValue: load(12, UInt16.self)), status != .disconnected else {
            throw FrameError(.value("status", UInt64(load(12, UInt16.self))), at: 12)
        }
        self.operation = operation
        isReply = flags & Self.replyFlag != 0
        payloadIsInSlot = flags & Self.slotFlag != 0
        requestNumber = load(8, UInt32.self)
        self.status = status
        namespace = load(14, UInt16.self)
        bodyBytes = load(16, UInt32.self)
        bodyKind = load(7, UInt8.self)
        bodyChecksum = load(20, UInt32.self)
        payloadBytes = load(24, UInt32.self)
        guard bodyBytes <= WireLimit.bodyBytesMax else {
            throw FrameError(.tooLong("body", UInt64(bodyBytes)), at: 16)
        }
    }

    /// Refuses a header that says something in a field that frames of its kind leave zero: those are kept for later
    /// versions. `used` has what this kind may say, and nothing else.
    package func refuseUnused(_ used: FrameHeader) throws(FrameError) {
        guard isReply == used.isReply else { throw FrameError(.outOfPlace(isReply ? "a reply" : "a request"), at: 6) }
        guard payloadIsInSlot == used.payloadIsInSlot else { throw FrameError(.reserved("the slot's flag"), at: 6) }
        guard bodyKind == used.bodyKind else { throw FrameError(.reserved("body kind"), at: 7) }
        guard requestNumber == used.requestNumber else { throw FrameError(.reserved("request number"), at: 8) }
        guard status == used.status else { throw FrameError(.reserved("status"), at: 12) }
        guard namespace == used.namespace else { throw FrameError(.reserved("namespace"), at: 14) }
        guard payloadBytes == used.payloadBytes else { throw FrameError(.reserved("payload length"), at: 24) }
    }

    /// Verifies a body that came with this header.
    package func verify(_ body: UnsafeRawBufferPointer) throws(FrameError) {
        precondition(body.count == Int(bodyBytes), "a body of another length than its header says")
        guard unsafe headerChecksum(body) == bodyChecksum else {
            throw FrameError(.bodyChecksum, at: WireLimit.headerBytes)
        }
    }
}

/// Why bytes are no frame of this protocol, and where in the frame. Whoever sent them is disconnected: in a stream
/// nothing after a bad header can be trusted.
public struct FrameError: Error, Equatable, CustomStringConvertible {
    /// What is wrong.
    public enum Kind: Sendable, Equatable {
        /// The first bytes are not "HFW1".
        case magic
        /// A version that this code does not speak.
        case version(UInt8)
        /// The header's checksum is wrong.
        case headerChecksum
        /// The body's checksum is wrong.
        case bodyChecksum
        /// No operation has this number.
        case operation(UInt8)
        /// Something that must be zero is not.
        case reserved(String)
        /// A field holds what it must not.
        case value(String, UInt64)
        /// Something is longer than its limit.
        case tooLong(String, UInt64)
        /// The body ends inside this field.
        case truncated(String)
        /// The body goes on after its last field.
        case trailing(bytes: Int)
        /// This field is no UTF-8.
        case text(String)
        /// It makes no sense in this direction or at this time.
        case outOfPlace(String)
        /// More requests in flight than the store granted.
        case credits
    }

    /// What is wrong.
    public var kind: Kind
    /// Bytes from the start of the frame to the field that is wrong.
    public var offset: Int

    /// An error of its parts.
    public init(_ kind: Kind, at offset: Int) {
        self.kind = kind
        self.offset = offset
    }

    /// `byte 16: body is too long (1048577)`.
    public var description: String {
        let what =
            switch kind {
            case .magic: "this is no Holdfast frame"
            case .version(let version): "version \(version) is not spoken here"
            case .headerChecksum: "the header's checksum is wrong"
            case .bodyChecksum: "the body's checksum is wrong"
            case .operation(let number): "no operation has the number \(number)"
            case .reserved(let field): "\(field) must be zero"
            case .value(let field, let value): "\(field) must not be \(value)"
            case .tooLong(let field, let value): "\(field) is too long (\(value))"
            case .truncated(let field): "the body ends inside \(field)"
            case .trailing(let bytes): "\(bytes) bytes follow the last field"
            case .text(let field): "\(field) is not UTF-8"
            case .outOfPlace(let what): "\(what) is out of place"
            case .credits: "more requests in flight than granted"
            }
        return "byte \(offset): \(what)"
    }
}
