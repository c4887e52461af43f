// A link that does wrong between a client and its store, whatever carries it: answers that were never asked for, answers
// of the wrong kind, or none at all.

import KVModel
import KVSystem
import KVTransport
import Synchronization

/// What is done to what comes.
enum Tampering: Sendable {
    case pass
    /// Comes with this header and body instead.
    case replace(FrameHeader, [UInt8])
    /// Comes twice.
    case twice
    /// Neither this nor anything after it ever comes.
    case silence
}

@safe
final class TamperingLink: ClientLink {
    private let inner: any ClientLink
    private let tamper: (FrameHeader, [UInt8]) -> Tampering
    private var isSilent = false
    private var again: (FrameHeader, [UInt8])?
    private var held: [UInt8] = []
    private var space = UnsafeMutableRawBufferPointer.allocate(byteCount: WireLimit.bodyBytesMax, alignment: 16)

    /// Whether it tells of what came as of signs of life.
    private let showsLife: Bool
    private var arrivals: UInt64 = 0

    init(
        _ inner: any ClientLink, showsLife: Bool = false, _ tamper: @escaping (FrameHeader, [UInt8]) -> Tampering
    ) {
        self.inner = inner
        self.showsLife = showsLife
        self.tamper = tamper
    }

    deinit { unsafe space.deallocate() }

    var isOneSided: Bool { inner.isOneSided }
    func remoteSlot(_ slice: MemorySlice) -> RemoteSlot { inner.remoteSlot(slice) }
    func register(with poller: Poller, tag: UInt64) { inner.register(with: poller, tag: tag) }
    func polled(_ events: PollEvents) { inner.polled(events) }
    func connected() throws(SystemError) -> Bool { try inner.connected() }
    func welcomed() throws(SystemError) { try inner.welcomed() }
    var isReady: Bool { inner.isReady }
    var wantsTurn: Bool { again != nil || (!isSilent && inner.wantsTurn) }
    func queue(_ header: FrameHeader, payload: MemorySlice?, body: (inout FrameWriter) -> Void) {
        inner.queue(header, payload: payload, body: body)
    }
    func flush(_ sent: (UInt32) -> Void) -> Int32? { inner.flush(sent) }
    var hasOutput: Bool { inner.hasOutput }
    func receivePayload(into slice: MemorySlice, checksum: BlockChecksum) {
        inner.receivePayload(into: slice, checksum: checksum)
    }
    func skipPayload() { inner.skipPayload() }
    func close() { inner.close() }
    func signsOfLife() -> LifeSigns? {
        showsLife ? LifeSigns(received: arrivals, taken: 0, isTaking: false) : nil
    }

    func next(payloadBytesMax: Int) throws(FrameError) -> StreamArrival {
        if let (header, body) = again {
            again = nil
            return give(header, body)
        }
        if isSilent { return .nothing }
        let arrival = try inner.next(payloadBytesMax: payloadBytesMax)
        guard case .frame(let header, let bytes) = arrival else { return arrival }
        let body = unsafe [UInt8](bytes)
        switch tamper(header, body) {
        case .pass: return give(header, body)
        case .replace(let header, let body): return give(header, body)
        case .twice:
            again = (header, body)
            return give(header, body)
        case .silence:
            isSilent = true
            return .nothing
        }
    }

    private func give(_ header: FrameHeader, _ body: [UInt8]) -> StreamArrival {
        arrivals += 1
        var header = header
        header.bodyBytes = UInt32(body.count)
        unsafe space.copyBytes(from: body)
        return unsafe .frame(header, body: UnsafeRawBufferPointer(rebasing: space[0..<body.count]))
    }
}
