// Two ends of a queue pair in one process, driven by the test's own thread: what the verbs suites share.

import KVModel
import KVSystem
import KVTransport
import Testing

/// Verbs suites need two RDMA ports (or one twice): the lab has them, most machines do not.
let hasVerbs = !VerbsDevice.names.isEmpty
let whyNoVerbs: Comment = "no RDMA device here; Tools/test-verbs runs this in the lab"

/// The suites that use a device run one after the other: they count what is alive in the whole process.
@Suite(.serialized, .enabled(if: hasVerbs, whyNoVerbs)) enum VerbsTests {}

extension VerbsSettings {
    /// An emulated adapter is slow: packets are given 4.3 s before they are sent again.
    static var lab: VerbsSettings {
        var settings = VerbsSettings.standard
        settings.timeout = 20
        settings.sendDepth = 64
        return settings
    }
}

/// One end: device, domain, registered memory, completion queue.
final class VerbsEnd: VerbsChannelUser {
    let device: VerbsDevice
    let domain: VerbsDomain
    let completions: VerbsCompletions
    let memory: BlockMemory
    let region: VerbsRegion
    var channels: [UInt32: VerbsChannel] = [:]
    var takesFrames = true
    var frames: [(header: FrameHeader, body: [UInt8])] = []
    var pushedNumbers: [UInt32] = []
    var pulledNumbers: [UInt32] = []

    /// - Parameter access: What the peer may do with its memory.
    init(_ deviceName: String, bytes: Int = 4 << 20, access: VerbsAccess) throws {
        device = try VerbsDevice(VerbsPlace(device: deviceName))
        domain = try VerbsDomain(device)
        completions = try VerbsCompletions(device, capacity: 1024)
        memory = try BlockMemory(byteCount: bytes)
        region = unsafe try VerbsRegion(domain, memory.regions[0], access, keeping: memory)
    }

    static func client() throws -> VerbsEnd {
        try VerbsEnd(VerbsDevice.names.first!, access: [.local, .peerReads, .peerWrites])
    }

    static func store() throws -> VerbsEnd { try VerbsEnd(VerbsDevice.names.last!, access: .local) }

    func take(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        frames.append((header, unsafe [UInt8](body)))
    }

    func pushed(_ number: UInt32) { pushedNumbers.append(number) }
    func pulled(_ number: UInt32) { pulledNumbers.append(number) }

    func makeChannel(_ settings: VerbsSettings, peerAccess: VerbsAccess) throws -> VerbsChannel {
        let channel = try VerbsChannel(
            domain: domain, completions: completions, settings: settings, payload: [region], peerAccess: peerAccess,
            packetNumber: 0x123456, user: self)
        channels[channel.parameters.pair] = channel
        return channel
    }

    /// Takes what has completed, goes on with what was held back, posts what can be posted.
    func turn() throws {
        _ = try completions.take { channels[$0.pair]?.complete($0) }
        for channel in channels.values {
            channel.resume()
            channel.flush()
        }
    }

    func buffer(_ offset: Int, _ count: Int, key: UInt32? = nil) -> VerbsBuffer {
        VerbsBuffer(address: address(offset), count: count, key: key ?? region.localKey)
    }

    func slot(_ offset: Int, _ count: Int) -> RemoteSlot {
        RemoteSlot(address: address(offset), key: region.remoteKey, byteCount: UInt32(count))
    }

    func address(_ offset: Int) -> UInt64 {
        UInt64(UInt(bitPattern: unsafe memory.regions[0].baseAddress! + offset))
    }

    /// Fills a part of its memory with bytes that follow from a seed.
    func fill(_ offset: Int, _ count: Int, seed: UInt64) {
        let bytes = unsafe memory[MemorySlice(offset: offset, count: count)]
        for index in 0..<count { unsafe bytes[index] = Self.byte(seed, index) }
    }

    func holds(_ offset: Int, _ count: Int, seed: UInt64) -> Bool {
        let bytes = unsafe memory[MemorySlice(offset: offset, count: count)]
        return (0..<count).allSatisfy { unsafe bytes[$0] == Self.byte(seed, $0) }
    }

    private static func byte(_ seed: UInt64, _ index: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: (UInt64(index) &+ seed &* 0x9E37_79B9) &* 0x2545_F491_4F6C_DD1D >> 32)
    }
}

/// A client and a store with one connected channel each.
final class VerbsCouple {
    let client: VerbsEnd
    let store: VerbsEnd
    let fromClient: VerbsChannel
    let fromStore: VerbsChannel

    init(client settings: VerbsSettings = .lab, store storeSettings: VerbsSettings? = nil) throws {
        client = try .client()
        store = try .store()
        fromClient = try client.makeChannel(settings, peerAccess: [.peerReads, .peerWrites])
        fromStore = try store.makeChannel(storeSettings ?? settings, peerAccess: [])
        try fromStore.connect(to: fromClient.parameters)
        try fromClient.connect(to: fromStore.parameters)
    }

    /// Drives both ends until something holds. False: it did not within the time.
    func run(seconds: Double = 60, until isDone: () -> Bool) throws -> Bool {
        let deadline = MonotonicClock.now + Duration(seconds: seconds)
        while !isDone() {
            guard MonotonicClock.now < deadline else { return false }
            try client.turn()
            try store.turn()
        }
        return true
    }

    /// Ends both channels; whether nothing of them is posted afterwards.
    func end() throws -> Bool {
        fromClient.fail("the test is over")
        fromStore.fail("the test is over")
        let isDrained = try run { fromClient.isDrained && fromStore.isDrained }
        client.channels = [:]
        store.channels = [:]
        return isDrained
    }
}
