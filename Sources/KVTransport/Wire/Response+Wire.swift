// Answers and notifications as bytes and back. An answer's body says which kind it is, because the same operation ends
// with different bodies: a listing, or the reason why there is none.

import KVModel

extension Response {
    private enum Kind: UInt8 {
        case none, namespace, presence, object, statuses, page, text
    }

    private var kind: Kind {
        switch body {
        case .none: .none
        case .namespace: .namespace
        case .presence: .presence
        case .object: .object
        case .statuses: .statuses
        case .page: .page
        case .text: .text
        }
    }

    /// Its header.
    package func header(_ operation: Operation, number: UInt32, payloadBytes: Int, isInSlot: Bool) -> FrameHeader {
        var header = FrameHeader(operation, requestNumber: number)
        header.isReply = true
        header.status = status
        header.bodyKind = kind.rawValue
        header.payloadBytes = UInt32(payloadBytes)
        header.payloadIsInSlot = isInSlot && payloadBytes > 0
        return header
    }

    /// Writes its body.
    package func writeBody(to writer: inout FrameWriter) {
        switch body {
        case .none: break
        case .namespace(let handle): writer.integer(handle)
        case .presence(let words):
            writer.integer(UInt32(words.count))
            for word in words { writer.integer(word) }
        case .object(let payloadBytes, let checksum, let metadata):
            writer.integer(UInt64(payloadBytes))
            writer.integer(checksum)
            writer.metadata(metadata)
        case .statuses(let statuses):
            writer.integer(UInt32(statuses.count))
            for status in statuses { writer.integer(status.rawValue) }
        case .page(let objects, let next):
            writer.integer(next)
            writer.integer(UInt32(objects.count))
            for object in objects {
                writer.name(object.name)
                writer.integer(object.payloadBytes)
                writer.integer(object.flags)
            }
        case .text(let text):
            precondition(text.count <= WireLimit.bodyBytesMax, "a text longer than a body")
            writer.raw(text)
        }
    }

    /// Reads an answer from its header and body.
    package static func read(_ header: FrameHeader, _ reader: inout WireReader) throws(FrameError) -> Response {
        guard header.isReply, header.operation.isRequest else { throw FrameError(.outOfPlace("no reply"), at: 6) }
        guard header.namespace == 0 else { throw FrameError(.reserved("namespace"), at: 14) }
        guard let kind = Kind(rawValue: header.bodyKind) else {
            throw FrameError(.value("body kind", UInt64(header.bodyKind)), at: 7)
        }
        let body = try readBody(kind, &reader)
        try reader.end()
        guard header.payloadBytes > 0 || !header.payloadIsInSlot else {
            throw FrameError(.reserved("the slot's flag"), at: 6)
        }
        if header.payloadBytes > 0 {
            guard header.operation == .get, header.status == .ok else {
                throw FrameError(.reserved("payload length"), at: 24)
            }
            guard case .object(Int(header.payloadBytes), _, _) = body else {
                throw FrameError(.value("payload length", UInt64(header.payloadBytes)), at: 24)
            }
        }
        return Response(header.status, body)
    }

    private static func readBody(_ kind: Kind, _ reader: inout WireReader) throws(FrameError) -> ResponseBody {
        switch kind {
        case .none: return .none
        case .namespace: return .namespace(try reader.integer(UInt16.self, "namespace"))
        case .presence:
            return .presence(
                try reader.list("presence", bytesEach: 8) { reader throws(FrameError) in
                    try reader.integer(UInt64.self, "presence")
                })
        case .object:
            let payloadBytes = try reader.integer(UInt64.self, "payload length")
            guard payloadBytes <= UInt32.max else { throw reader.error(.tooLong("payload", payloadBytes)) }
            let checksum = try reader.integer(UInt64.self, "checksum")
            return .object(payloadBytes: Int(payloadBytes), checksum: checksum, try reader.metadata())
        case .statuses:
            return .statuses(
                try reader.list("statuses", bytesEach: 2) { reader throws(FrameError) in
                    let raw = try reader.integer(UInt16.self, "status")
                    guard let status = Status(rawValue: raw), status != .disconnected else {
                        throw reader.error(.value("status", UInt64(raw)))
                    }
                    return status
                })
        case .page:
            let next = try reader.integer(UInt64.self, "cursor")
            let objects = try reader.list("page", bytesEach: 48) { reader throws(FrameError) in
                ListedObject(
                    name: try reader.name("name"), payloadBytes: try reader.integer(UInt32.self, "payload length"),
                    flags: try reader.integer(UInt32.self, "flags"))
            }
            return .page(objects, next: next)
        case .text: return .text(reader.rest())
        }
    }

    /// Whether it can be the answer to this request: with `ok` the body that belongs to it, one word, status or line
    /// for each thing asked for; otherwise that or a reason or nothing. Who looks at an answer need not count again.
    package func answers(_ request: Request) -> Bool {
        switch (body, request) {
        case (.text, _) where status != .ok: true
        case (.none, .put), (.none, .subscribe), (.none, .reportCorrupt), (.none, .cancel): true
        case (.none, _): status != .ok
        case (.namespace, .openNamespace): true
        case (.presence(let words), .lookUp(_, let names)): words.count == (names.count + 63) / 64
        case (.object, .get): true
        case (.statuses(let statuses), .pin(_, let names, _, _)), (.statuses(let statuses), .unpin(_, let names, _)),
            (.statuses(let statuses), .delete(_, let names)):
            statuses.count == names.count
        case (.page(let objects, _), .list(_, _, let countMax)): objects.count <= Int(countMax)
        case (.text, .stat), (.text, .describe), (.text, .administer): true
        default: false
        }
    }

    /// The same answer, or, when its text is longer than a body, why it cannot be given: JSON is never cut.
    package var fitting: Response {
        guard case .text(let text) = body, text.count > WireLimit.bodyBytesMax else { return self }
        let most = WireLimit.bodyBytesMax
        return .because(.failed, "the answer has \(text.count) bytes, a body at most \(most): ask for less at once")
    }

    /// An answer that says why.
    package static func because(_ status: Status, _ why: String) -> Response {
        Response(status, .text(Array(why.utf8)))
    }
}

extension Notification {
    /// The namespace it is about.
    package var namespace: NamespaceHandle {
        switch self {
        case .added(let namespace, _), .removed(let namespace, _), .overflow(let namespace): namespace
        }
    }

    /// Its header.
    package var header: FrameHeader {
        let operation: Operation =
            switch self {
            case .added: .added
            case .removed: .removed
            case .overflow: .overflow
            }
        return FrameHeader(operation, namespace: namespace)
    }

    /// Writes its body.
    package func writeBody(to writer: inout FrameWriter) {
        switch self {
        case .added(_, let names), .removed(_, let names): writer.names(names)
        case .overflow: break
        }
    }

    /// Reads a notification from its header and body.
    package static func read(_ header: FrameHeader, _ reader: inout WireReader) throws(FrameError) -> Notification {
        let notification: Notification
        switch header.operation {
        case .added: notification = .added(header.namespace, try reader.names("names"))
        case .removed: notification = .removed(header.namespace, try reader.names("names"))
        case .overflow: notification = .overflow(header.namespace)
        default: throw FrameError(.outOfPlace("operation \(header.operation)"), at: 5)
        }
        try reader.end()
        try header.refuseUnused(notification.header)
        return notification
    }
}
