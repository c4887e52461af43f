// A frame as a value: what its bytes mean, and the bytes that it is written as. The tests of frames and their fuzzer read
// everything that comes with it; whatever it takes, it must write back byte for byte.

import KVModel
import KVSystem
import KVTransport

/// What one frame says.
enum WireValue {
    case hello(Hello)
    case challenge(nonce: [UInt8])
    case welcome(Grants, proof: [UInt8])
    case request(Request, number: UInt32, namespace: NamespaceHandle, RemoteSlot, payloadIsInSlot: Bool)
    case response(KVTransport.Operation, Response, number: UInt32, payloadBytes: Int, isInSlot: Bool)
    case notification(Notification)
    case parameters(KVTransport.Operation, VerbsParameters)
    /// Of a fixed length or none at all: a proof, a reason in words.
    case opaque(FrameHeader, [UInt8])

    /// Reads a whole frame.
    init(_ bytes: [UInt8]) throws(FrameError) {
        guard bytes.count >= WireLimit.headerBytes else { throw FrameError(.truncated("header"), at: bytes.count) }
        let read = unsafe bytes.withUnsafeBytes { all -> Result<WireValue, FrameError> in
            Result { () throws(FrameError) in
                let header = unsafe try FrameHeader(
                    reading: UnsafeRawBufferPointer(rebasing: all[0..<WireLimit.headerBytes]))
                let body = unsafe UnsafeRawBufferPointer(rebasing: all[WireLimit.headerBytes...])
                guard body.count == Int(header.bodyBytes) else {
                    throw FrameError(.truncated("body"), at: bytes.count)
                }
                unsafe try header.verify(body)
                return unsafe try Self.read(header, body)
            }
        }
        self = try read.get()
    }

    private static func read(
        _ header: FrameHeader, _ body: UnsafeRawBufferPointer
    ) throws(FrameError) -> WireValue {
        var reader = unsafe WireReader(body)
        if header.isReply {
            let response = try Response.read(header, &reader)
            return .response(
                header.operation, response, number: header.requestNumber, payloadBytes: Int(header.payloadBytes),
                isInSlot: header.payloadIsInSlot)
        }
        if header.operation.isRequest {
            let (request, slot) = try Request.read(header, &reader)
            return .request(
                request, number: header.requestNumber, namespace: header.namespace, slot,
                payloadIsInSlot: header.payloadIsInSlot)
        }
        switch header.operation {
        case .added, .removed, .overflow: return .notification(try Notification.read(header, &reader))
        case .hello:
            try header.refuseUnused(FrameHeader(.hello))
            return .hello(try Hello.read(&reader))
        case .attach, .attached:
            guard header.status == .ok else { return unsafe .opaque(header, Array(body)) }
            try header.refuseUnused(FrameHeader(header.operation))
            return .parameters(header.operation, try VerbsParameters(&reader))
        default: return unsafe .opaque(header, Array(body))
        }
    }

    /// Its bytes.
    var bytes: [UInt8] {
        var writer = FrameWriter()
        switch self {
        case .hello(let hello): writer.frame(FrameHeader(.hello)) { $0.raw(hello.body) }
        case .challenge(let nonce):
            writer.frame(FrameHeader(.challenge)) {
                $0.integer(UInt16(WireLimit.version))
                $0.integer(UInt16(0))
                $0.raw(nonce)
            }
        case .welcome(let grants, let proof):
            writer.frame(FrameHeader(.welcome)) {
                grants.write(to: &$0)
                $0.raw(proof)
            }
        case .request(let request, let number, let namespace, let slot, let payloadIsInSlot):
            let header = request.header(number: number, namespace: namespace, payloadIsInSlot: payloadIsInSlot)
            writer.frame(header) { request.writeBody(to: &$0, slot: slot) }
        case .response(let operation, let response, let number, let payloadBytes, let isInSlot):
            let header = response.header(operation, number: number, payloadBytes: payloadBytes, isInSlot: isInSlot)
            writer.frame(header) { response.writeBody(to: &$0) }
        case .notification(let notification): writer.frame(notification.header) { notification.writeBody(to: &$0) }
        case .parameters(let operation, let parameters):
            writer.frame(FrameHeader(operation)) { parameters.write(to: &$0) }
        case .opaque(let header, let body): writer.frame(header) { $0.raw(body) }
        }
        return writer.bytes
    }
}

/// Makes the lengths and checksums of a header right for what lies there, so that what is behind them is tried.
func seal(_ frame: inout [UInt8]) {
    guard frame.count >= WireLimit.headerBytes else { return }
    func put(_ value: UInt32, at offset: Int) {
        for index in 0..<4 { frame[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
    }
    put(UInt32(frame.count - WireLimit.headerBytes), at: 16)
    put(unsafe frame.withUnsafeBytes { unsafe headerChecksum(UnsafeRawBufferPointer(rebasing: $0[32...])) }, at: 20)
    put(unsafe frame.withUnsafeBytes { unsafe headerChecksum(UnsafeRawBufferPointer(rebasing: $0[0..<28])) }, at: 28)
}
