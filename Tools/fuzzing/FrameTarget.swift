// What the fuzzer calls: bytes from a peer that may be wicked. The first byte chooses who reads them: a frame by itself, a
// store before and after it knows its client, or a client. This file and its two neighbours are built as part of the
// transport, so that they drive its own connections over real sockets and see when something is left behind.

import CKernel
import Foundation
import KVModel
import KVSystem

/// libFuzzer's entry. A crash, a trap, a sanitizer's finding or a broken promise is a failure.
@_cdecl("LLVMFuzzerTestOneInput")
public func readAsPeer(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var script = Script(UnsafeBufferPointer(start: start, count: count))
    switch script.byte() % 5 {
    case 0: readFrame(script.rest())
    case 1:
        var bytes = script.rest()
        seal(&bytes)
        readFrame(bytes)
    case 2: ServerScript(isKnown: false).run(&script)
    case 3: ServerScript(isKnown: true).run(&script)
    default: ClientScript().run(&script)
    }
    return 0
}

/// Whatever is taken says the same bytes again.
private func readFrame(_ bytes: [UInt8]) {
    guard let value = try? WireValue(bytes) else { return }
    precondition(value.bytes == bytes, "a frame was read as something else than it says")
}

/// The input as a list of choices. Behind its end all choices are 0.
struct Script {
    private var bytes: [UInt8]
    private var place = 0

    init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = Array(bytes) }

    var isOver: Bool { place >= bytes.count }

    mutating func byte() -> UInt8 {
        guard place < bytes.count else { return 0 }
        defer { place += 1 }
        return bytes[place]
    }

    mutating func take(_ count: Int) -> [UInt8] {
        defer { place = min(bytes.count, place + count) }
        return Array(bytes[min(place, bytes.count)..<min(bytes.count, place + count)])
    }

    mutating func rest() -> [UInt8] { take(bytes.count - place) }

    /// A frame whose lengths and checksums are right and whose fields are anything, and bytes of payload behind it.
    mutating func frame(isReply: Bool) -> [UInt8] {
        var header = FrameHeader(Operation.allCases[Int(byte()) % Operation.allCases.count])
        let choices = byte()
        header.isReply = isReply != (choices & 1 != 0)
        header.payloadIsInSlot = choices & 14 == 14
        header.requestNumber = UInt32(byte() % 16)
        header.namespace = NamespaceHandle(choices >> 6)
        header.status = choices & 16 != 0 ? Status(rawValue: UInt16(byte() % 13)) ?? .ok : .ok
        if isReply { header.bodyKind = byte() % 8 }
        if choices & 32 != 0 { header.payloadBytes = UInt32(byte()) << UInt32(choices & 8) }
        let body = take(Int(byte()))
        let payload = header.payloadIsInSlot ? [] : take(min(Int(header.payloadBytes), 2048))
        var writer = FrameWriter()
        writer.frame(header) { $0.raw(body) }
        return writer.bytes + payload
    }
}

/// Two connected sockets, one of them the transport's.
struct SocketPair {
    let ours: Int32
    /// Closed by the connection that it is given to.
    let theirs: Int32

    init() {
        var ends: [Int32] = [0, 0]
        let made = socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends)
        precondition(made == 0, "no sockets are left")
        ours = ends[0]
        theirs = ends[1]
    }

    /// Sends what the kernel takes.
    func send(_ bytes: [UInt8]) { _ = bytes.withUnsafeBytes { hf_send(ours, $0.baseAddress, $0.count, 0) } }

    /// What is there.
    func receive() -> [UInt8] {
        var all: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = part.withUnsafeMutableBytes { Int(hf_receive(ours, $0.baseAddress!, $0.count)) }
            guard count > 0 else { return all }
            all += part[0..<count]
        }
    }

    func close() { hf_close(ours) }
}

/// Takes apart what a connection sends: whole frames of this protocol and nothing else.
struct SentFrames {
    private var bytes: [UInt8] = []
    private(set) var values: [(header: FrameHeader, body: [UInt8])] = []

    mutating func add(_ more: [UInt8]) {
        bytes += more
        while bytes.count >= WireLimit.headerBytes {
            guard let header = bytes.withUnsafeBytes({ try? FrameHeader(reading: .init(rebasing: $0[0..<32])) }) else {
                preconditionFailure("it sent what is no frame")
            }
            let frameBytes = WireLimit.headerBytes + Int(header.bodyBytes)
            guard bytes.count >= frameBytes + header.inlinePayloadBytes else { return }
            precondition((try? WireValue(Array(bytes[0..<frameBytes]))) != nil, "it sent a frame that says nothing")
            values.append((header, Array(bytes[32..<frameBytes])))
            bytes.removeFirst(frameBytes + header.inlinePayloadBytes)
        }
    }
}
