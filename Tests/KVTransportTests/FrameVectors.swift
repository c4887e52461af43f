// The committed frames: made once, from the protocol's page, by a program that shares no code with this one.

import Foundation
import KVModel
import KVTransport

/// One frame with what it says.
struct FrameVector: Decodable {
    struct Name: Decodable {
        var key: String
        var group: UInt16
        var shard: UInt16
        var shards: UInt16
        var value: ObjectName {
            ObjectName(key32(key), group: group, shard: shard, shardCount: shards)
        }
    }
    struct Metadata: Decodable {
        var parent: String
        var session: UInt64
        var index: UInt32
        var `class`: UInt8
        var value: ObjectMetadata {
            ObjectMetadata(parent: key32(parent), indexInChain: index, evictionClass: `class`, session: session)
        }
    }
    struct Slot: Decodable {
        var address: UInt64
        var key: UInt32
        var bytes: UInt32
        var value: RemoteSlot { RemoteSlot(address: address, key: key, byteCount: bytes) }
    }
    struct Listed: Decodable {
        var name: Name
        var payloadBytes: UInt32
        var flags: UInt32
    }
    struct Fields: Decodable {
        var number: UInt32?
        var namespace: NamespaceHandle?
        var name: StringOrName?
        var names: [Name]?
        var slot: Slot?
        var metadata: Metadata?
        var checksum: String?
        var payloadBytes: Int?
        var isInSlot: Bool?
        var seconds: UInt32?
        var owner: String?
        var cursor: UInt64?
        var count: UInt32?
        var verb: String?
        var arguments: String?
        var target: UInt32?
        var to: String?
        var status: UInt16?
        var kind: UInt8?
        var words: [String]?
        var statuses: [UInt16]?
        var next: UInt64?
        var objects: [Listed]?
        var text: String?
        var oldest: UInt16?
        var newest: UInt16?
        var random: String?
        var tenant: String?
        var key: String?
        var credits: UInt16?
        var session: UInt32?
        var bodyBytesMax: UInt32?
        var payloadBytesMax: UInt32?
        var pair: UInt32?
        var packetNumber: UInt32?
        var address: String?
        var localIdentifier: UInt32?
        var mtuBytes: UInt32?
        var messageBytesMax: UInt32?
        var readsAsInitiator: UInt16?
        var readsAsResponder: UInt16?
        var receiveCount: UInt16?
        var receiveBytes: UInt32?
    }
    /// A namespace's name or an object's.
    enum StringOrName: Decodable {
        case text(String)
        case object(ObjectName)

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let text = try? container.decode(String.self) {
                self = .text(text)
            } else {
                self = .object(try container.decode(Name.self).value)
            }
        }
    }

    var what: String
    var fields: Fields
    var frame: String
    var payload: String?

    /// All of them.
    static func all() throws -> [FrameVector] {
        struct File: Decodable { var frames: [FrameVector] }
        return try JSONDecoder().decode(File.self, from: Data(PackageResources.frame_vectors_json)).frames
    }

    /// Bytes of hexadecimal digits.
    static func bytes(_ hex: String) -> [UInt8] {
        let digits = hex.utf8.map { UInt8(Character(UnicodeScalar($0)).hexDigitValue ?? 0) }
        return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }

    private static func key32(_ hex: String) -> FullKey {
        let bytes = bytes(hex)
        func word(_ index: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(bytes[8 * index + $1]) << UInt64(8 * $1) } }
        return FullKey(word(0), word(1), word(2), word(3))
    }

    // MARK: What the fields mean

    private var objectName: ObjectName {
        if case .object(let name) = fields.name { return name }
        return ObjectName(.none)
    }
    private var text: String {
        if case .text(let text) = fields.name { return text }
        return ""
    }
    private var names: [ObjectName] { fields.names?.map(\.value) ?? [] }
    private var checksum: UInt64 { UInt64(fields.checksum ?? "", radix: 16) ?? 0 }

    /// The value that the frame stands for.
    var value: WireValue {
        if what == "reply" { return reply }
        if let request {
            return .request(
                request, number: fields.number ?? 0, namespace: fields.namespace ?? 0, fields.slot?.value ?? .none,
                payloadIsInSlot: fields.isInSlot ?? false)
        }
        switch what {
        case "hello":
            return .hello(
                Hello(
                    versions: (fields.oldest ?? 0)...(fields.newest ?? 0), nonce: Self.bytes(fields.random ?? ""),
                    tenant: fields.tenant ?? ""))
        case "challenge": return .challenge(nonce: Self.bytes(fields.random ?? ""))
        case "welcome":
            let grants = Grants(
                credits: fields.credits ?? 0, session: fields.session ?? 0, bodyBytesMax: fields.bodyBytesMax ?? 0,
                payloadBytesMax: fields.payloadBytesMax ?? 0)
            return .welcome(grants, proof: Array(Self.bytes(frame).suffix(32)))
        case "added": return .notification(.added(fields.namespace ?? 0, names))
        case "removed": return .notification(.removed(fields.namespace ?? 0, names))
        case "overflow": return .notification(.overflow(fields.namespace ?? 0))
        case "attach", "attached": return parameters
        case "proof": return .opaque(FrameHeader(.proof), Array(Self.bytes(frame).suffix(32)))
        case "detach": return .opaque(FrameHeader(.detach), [])
        default: return words(what == "goodbye" ? .goodbye : .refused)
        }
    }

    private func words(_ operation: KVTransport.Operation) -> WireValue {
        var header = FrameHeader(operation)
        header.status = Status(rawValue: fields.status ?? 0) ?? .ok
        return .opaque(header, Array((fields.text ?? "").utf8))
    }

    private var parameters: WireValue {
        let operation = what == "attach" ? KVTransport.Operation.attach : .attached
        guard fields.pair != nil else { return words(operation) }
        return .parameters(
            operation,
            VerbsParameters(
                pair: fields.pair ?? 0, packetNumber: fields.packetNumber ?? 0,
                address: Self.bytes(fields.address ?? ""), localIdentifier: fields.localIdentifier ?? 0,
                mtuBytes: fields.mtuBytes ?? 0, messageBytesMax: fields.messageBytesMax ?? 0,
                readsAsInitiator: fields.readsAsInitiator ?? 0, readsAsResponder: fields.readsAsResponder ?? 0,
                receiveCount: fields.receiveCount ?? 0, receiveBytes: fields.receiveBytes ?? 0))
    }

    private var request: Request? {
        let namespace = fields.namespace ?? 0
        return switch what {
        case "openNamespace": .openNamespace(name: text)
        case "lookUp": .lookUp(namespace, names)
        case "get": .get(namespace, objectName)
        case "put":
            .put(
                namespace, objectName, fields.metadata?.value ?? ObjectMetadata(),
                payloadBytes: fields.payloadBytes ?? 0, checksum: checksum)
        case "pin": .pin(namespace, names, owner: fields.owner ?? "", lifetimeSeconds: fields.seconds ?? 0)
        case "unpin": .unpin(namespace, names, owner: fields.owner ?? "")
        case "delete": .delete(namespace, names)
        case "list": .list(namespace, cursor: fields.cursor ?? 0, countMax: fields.count ?? 0)
        case "describe": .describe(namespace, objectName)
        case "stat": .stat
        case "subscribe": .subscribe(namespace)
        case "reportCorrupt": .reportCorrupt(namespace, objectName)
        case "administer": .administer(verb: fields.verb ?? "", arguments: Array((fields.arguments ?? "").utf8))
        case "cancel": .cancel(requestNumber: fields.target ?? 0)
        default: nil
        }
    }

    private var reply: WireValue {
        let body: ResponseBody =
            switch fields.kind {
            case 1: .namespace(fields.namespace ?? 0)
            case 2: .presence((fields.words ?? []).compactMap { UInt64($0, radix: 16) })
            case 3:
                .object(
                    payloadBytes: fields.payloadBytes ?? 0, checksum: checksum,
                    fields.metadata?.value ?? ObjectMetadata())
            case 4: .statuses((fields.statuses ?? []).compactMap { Status(rawValue: $0) })
            case 5:
                .page(
                    (fields.objects ?? []).map {
                        ListedObject(name: $0.name.value, payloadBytes: $0.payloadBytes, flags: $0.flags)
                    }, next: fields.next ?? 0)
            case 6: .text(Array((fields.text ?? "").utf8))
            default: .none
            }
        let operation = KVTransport.Operation.allCases.first { "\($0)" == fields.to }
        return .response(
            operation ?? .hello, Response(Status(rawValue: fields.status ?? 0) ?? .ok, body),
            number: fields.number ?? 0, payloadBytes: fields.payloadBytes ?? 0, isInSlot: fields.isInSlot ?? false)
    }
}
