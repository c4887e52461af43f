// Requests as bytes and back.

import KVModel

extension Request {
    /// What it is on the wire.
    package var operation: Operation {
        switch self {
        case .openNamespace: .openNamespace
        case .lookUp: .lookUp
        case .get: .get
        case .put: .put
        case .pin: .pin
        case .unpin: .unpin
        case .delete: .delete
        case .list: .list
        case .describe: .describe
        case .stat: .stat
        case .subscribe: .subscribe
        case .reportCorrupt: .reportCorrupt
        case .administer: .administer
        case .cancel: .cancel
        }
    }

    /// The namespace it is about; 0 for none.
    package var namespace: NamespaceHandle {
        switch self {
        case .lookUp(let namespace, _), .get(let namespace, _), .put(let namespace, _, _, _, _),
            .pin(let namespace, _, _, _), .unpin(let namespace, _, _), .delete(let namespace, _),
            .list(let namespace, _, _), .describe(let namespace, _), .subscribe(let namespace),
            .reportCorrupt(let namespace, _):
            namespace
        case .openNamespace, .stat, .administer, .cancel: 0
        }
    }

    /// Its header, for a namespace as the session knows it.
    package func header(
        number: UInt32, namespace: NamespaceHandle, payloadIsInSlot: Bool = false
    ) -> FrameHeader {
        var header = FrameHeader(operation, requestNumber: number, namespace: namespace)
        if case .put(_, _, _, let payloadBytes, _) = self {
            header.payloadBytes = UInt32(payloadBytes)
            header.payloadIsInSlot = payloadIsInSlot && payloadBytes > 0
        }
        return header
    }

    /// Writes its body.
    package func writeBody(to writer: inout FrameWriter, slot: RemoteSlot) {
        switch self {
        case .openNamespace(let name): writer.text(name)
        case .lookUp(_, let names), .delete(_, let names): writer.names(names)
        case .get(_, let name):
            writer.name(name)
            writer.slot(slot)
        case .put(_, let name, let metadata, _, let checksum):
            writer.name(name)
            writer.metadata(metadata)
            writer.integer(checksum)
            writer.slot(slot)
        case .pin(_, let names, let owner, let lifetimeSeconds):
            writer.integer(lifetimeSeconds)
            writer.text(owner)
            writer.names(names)
        case .unpin(_, let names, let owner):
            writer.text(owner)
            writer.names(names)
        case .list(_, let cursor, let countMax):
            writer.integer(cursor)
            writer.integer(countMax)
        case .describe(_, let name), .reportCorrupt(_, let name): writer.name(name)
        case .stat, .subscribe: break
        case .administer(let verb, let arguments):
            writer.text(verb)
            writer.raw(arguments)
        case .cancel(let number): writer.integer(number)
        }
    }

    /// Why it cannot be written: a batch, a name or a payload longer than the protocol allows; `nil` when it can.
    package var excess: String? {
        func tooLong(_ names: [ObjectName], _ texts: String...) -> String? {
            if names.count > WireLimit.batchCountMax { return "\(names.count) names in one request" }
            for text in texts where text.utf8.count > WireLimit.textBytesMax {
                return "a name of \(text.utf8.count) bytes"
            }
            return nil
        }
        switch self {
        case .openNamespace(let name): return tooLong([], name)
        case .lookUp(_, let names), .delete(_, let names): return tooLong(names)
        case .pin(_, let names, let owner, _), .unpin(_, let names, let owner): return tooLong(names, owner)
        case .put(_, _, _, let payloadBytes, _):
            return payloadBytes < 0 || payloadBytes > Int(UInt32.max) ? "a payload of \(payloadBytes) bytes" : nil
        case .administer(let verb, let arguments):
            if arguments.count > WireLimit.bodyBytesMax / 2 { return "arguments of \(arguments.count) bytes" }
            return tooLong([], verb)
        default: return nil
        }
    }

    /// Reads a request from its header and body.
    package static func read(
        _ header: FrameHeader, _ reader: inout WireReader
    ) throws(FrameError) -> (request: Request, slot: RemoteSlot) {
        var slot = RemoteSlot.none
        let request = try readBody(header, &reader, &slot)
        try reader.end()
        try header.refuseUnused(
            request.header(
                number: header.requestNumber, namespace: request.namespace, payloadIsInSlot: header.payloadIsInSlot))
        return (request, slot)
    }

    private static func readBody(
        _ header: FrameHeader, _ reader: inout WireReader, _ slot: inout RemoteSlot
    ) throws(FrameError) -> Request {
        let namespace = header.namespace
        switch header.operation {
        case .openNamespace: return .openNamespace(name: try reader.text("namespace"))
        case .lookUp: return .lookUp(namespace, try reader.names("names"))
        case .get:
            let name = try reader.name("name")
            slot = try reader.slot()
            return .get(namespace, name)
        case .put:
            let name = try reader.name("name")
            let metadata = try reader.metadata()
            let checksum = try reader.integer(UInt64.self, "checksum")
            slot = try reader.slot()
            return .put(
                namespace, name, metadata, payloadBytes: Int(header.payloadBytes), checksum: checksum)
        case .pin:
            let seconds = try reader.integer(UInt32.self, "lifetime")
            let owner = try reader.text("owner")
            return .pin(namespace, try reader.names("names"), owner: owner, lifetimeSeconds: seconds)
        case .unpin:
            let owner = try reader.text("owner")
            return .unpin(namespace, try reader.names("names"), owner: owner)
        case .delete: return .delete(namespace, try reader.names("names"))
        case .list:
            let cursor = try reader.integer(UInt64.self, "cursor")
            return .list(namespace, cursor: cursor, countMax: try reader.integer(UInt32.self, "count"))
        case .describe: return .describe(namespace, try reader.name("name"))
        case .stat: return .stat
        case .subscribe: return .subscribe(namespace)
        case .reportCorrupt: return .reportCorrupt(namespace, try reader.name("name"))
        case .administer:
            let verb = try reader.text("verb")
            return .administer(verb: verb, arguments: reader.rest())
        case .cancel: return .cancel(requestNumber: try reader.integer(UInt32.self, "request number"))
        case .hello, .challenge, .proof, .welcome, .refused, .added, .removed, .overflow, .goodbye, .attach,
            .attached, .detach:
            throw FrameError(.outOfPlace("operation \(header.operation)"), at: 5)
        }
    }
}
