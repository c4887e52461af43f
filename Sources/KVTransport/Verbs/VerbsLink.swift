// One connection to a store over verbs as the client sees it: a TCP control connection for the handshake, then the queue
// pair for frames. Payloads do not pass through it: the store moves them from and to the slots that requests name.

import CKernel
import KVModel
import KVSystem
import Synchronization

/// What a client keeps for one store, over all connections to it: device, completion queue, and a domain of its own with
/// the registration of the client's memory, so that the keys one store is given are void for every other. Used by the
/// thread of one client.
@safe
package final class VerbsClientPort: @unchecked Sendable {
    package let device: VerbsDevice
    let domain: VerbsDomain
    package let completions: VerbsCompletions
    let settings: VerbsSettings
    let memory: BlockMemory
    let regions: [VerbsRegion]
    /// Whose queue pairs complete here, by pair: while one is set up another may still be in use.
    private var ends: [UInt32: VerbsEnd] = [:]
    /// Under which tags connections hear that something completed; the first is the poller's.
    private var watchers: [(poller: Poller, tag: UInt64)] = []

    /// Opens the device and registers the memory, which takes about a second per 10 GB the first time.
    package init(_ place: VerbsPlace, memory: BlockMemory, settings: VerbsSettings) throws(OperatorError) {
        device = try VerbsDevice(place)
        self.memory = memory
        self.settings = settings
        do throws(SystemError) {
            domain = try VerbsDomain(device)
            // Room for two pairs: an old one may still drain while a new one is set up.
            completions = try VerbsCompletions(
                device, capacity: min(device.port.completionsMax, 2 * (settings.sendDepth + settings.receiveCount)))
            var regions: [VerbsRegion] = []
            for index in unsafe memory.regions.indices {
                regions.append(
                    unsafe try VerbsRegion(
                        domain, memory.regions[index], [.local, .peerReads, .peerWrites], keeping: memory))
            }
            self.regions = regions
        } catch {
            throw OperatorError(
                error.description, at: "verbs on \(device.port.device)",
                remedy: "raise the limit of locked memory (ulimit -l) if memory could not be registered")
        }
    }

    fileprivate func add(_ end: VerbsEnd) { ends[end.channel.pair.number] = end }

    fileprivate func remove(_ channel: VerbsChannel) { ends[channel.pair.number] = nil }

    /// Gives what has completed to the connections that it is of. Whether there was anything.
    fileprivate func takeCompletions() -> Bool {
        let count = try? completions.take { completion in
            guard let end = ends[completion.pair] else { return }
            end.channel.complete(completion)
            end.link?.wasCompleted = true
        }
        return count ?? 0 > 0
    }

    /// Completions wake the poller under the tag of a connection that lives: all of them look when one is woken.
    fileprivate func watch(with poller: Poller, tag: UInt64) {
        if watchers.isEmpty { poller.add(completions.descriptor, for: .readable, tag: tag) }
        watchers.append((poller, tag))
    }

    fileprivate func unwatch(_ poller: Poller, tag: UInt64) {
        guard let place = watchers.firstIndex(where: { $0.poller === poller && $0.tag == tag }) else { return }
        watchers.remove(at: place)
        guard place == 0 else { return }
        poller.remove(completions.descriptor)
        if let next = watchers.first { next.poller.add(completions.descriptor, for: .readable, tag: next.tag) }
    }

    /// A part of the client's memory, as the store names it.
    package func slot(_ slice: MemorySlice) -> RemoteSlot {
        RemoteSlot(
            address: UInt64(UInt(bitPattern: unsafe memory[slice].baseAddress)),
            key: regions[Int(slice.region)].remoteKey, byteCount: UInt32(slice.count))
    }
}

/// A channel, and the connection that is to look at it.
private struct VerbsEnd {
    let channel: VerbsChannel
    weak var link: VerbsLink?
}

/// One connection. Belongs to the client's thread.
@safe
package final class VerbsLink: ClientLink, VerbsChannelUser {
    private enum Phase {
        case connecting, handshake, welcomed, attaching, ready, closed
    }

    /// How long it looks for completions before its thread may sleep.
    private static let pollingTime = Duration(nanoseconds: 50_000)
    /// How long the end of a connection waits for what was posted to come back. Adapters flush in microseconds.
    private static let drainLimit = Duration(seconds: 1)
    private static let connectionReset: Int32 = 104

    private let port: VerbsClientPort
    private let stream: FrameStream
    private var phase = Phase.connecting
    private var sawWritable = false
    private var watched: (poller: Poller, tag: UInt64)?
    /// Whether something of it completed since it looked last, whoever found it.
    fileprivate var wasCompleted = false
    private var channel: VerbsChannel?
    private var lastWork = Instant.zero
    /// The frame that `next` hands out; its body is at the start of `body`, kept from frame to frame.
    private var header: FrameHeader?
    /// The control connection has ended; told once nothing is left on the queue pair. A store says farewell there first.
    private var controlEnd: StreamEnd?
    /// Whether `next` did, so that the caller still looks at the body and the following `next` makes room.
    private var isHandedOut = false
    private var body: UnsafeMutableRawBufferPointer

    /// Starts to connect the control connection.
    package init(_ port: VerbsClientPort, host: String, tcpPort: UInt16) throws(SystemError) {
        let descriptor = try checked(unsafe hf_tcp_connect(host, tcpPort), "connect to \(host):\(tcpPort)")
        // A peer that is gone is seen by this connection even while no request is under way.
        hf_tcp_configure(descriptor, 10_000, 0)
        self.port = port
        unsafe body = .allocate(byteCount: port.settings.receiveBytes, alignment: 16)
        stream = FrameStream(descriptor, memory: port.memory)
        stream.isWritable = false
        stream.isReadable = false
    }

    deinit {
        close()
        unsafe body.deallocate()
    }

    // MARK: Set-up

    package func register(with poller: Poller, tag: UInt64) {
        watched = (poller, tag)
        poller.add(stream.descriptor, for: [.readable, .writable, .edgeTriggered], tag: tag)
        port.watch(with: poller, tag: tag)
    }

    /// Which of the two descriptors it was is not said; looking at both costs little.
    package func polled(_ events: PollEvents) {
        stream.polled(events)
        if events.mayWrite { sawWritable = true }
        port.completions.clear()
        lastWork = MonotonicClock.now
    }

    package func connected() throws(SystemError) -> Bool {
        guard case .connecting = phase else { return true }
        guard sawWritable else { return false }
        _ = try checked(hf_socket_error(stream.descriptor), "connect the control connection")
        stream.isReadable = true
        phase = .handshake
        return true
    }

    /// The store has proved who it is: only now there is a queue pair, and the store is told of it.
    package func welcomed() throws(SystemError) {
        var random: UInt32 = 0
        _ = unsafe hf_random(&random, 4)
        let channel = try VerbsChannel(
            domain: port.domain, completions: port.completions, settings: port.settings, payload: port.regions,
            peerAccess: [.peerReads, .peerWrites], packetNumber: random, user: self)
        self.channel = channel
        port.add(VerbsEnd(channel: channel, link: self))
        stream.queue(FrameHeader(.attach)) { channel.parameters.write(to: &$0) }
        phase = .attaching
    }

    /// Whether requests may go.
    package var isReady: Bool { phase == .ready }

    private func attached(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) -> Bool {
        guard header.operation == .attached else {
            throw FrameError(.outOfPlace("operation \(header.operation)"), at: 5)
        }
        guard header.status == .ok, let channel else { return false }
        var reader = unsafe WireReader(body)
        let store = try VerbsParameters(&reader)
        guard (try? channel.connect(to: store)) != nil else { return false }
        phase = .ready
        return true
    }

    // MARK: Going

    package var isOneSided: Bool { true }

    package func remoteSlot(_ slice: MemorySlice) -> RemoteSlot { port.slot(slice) }

    /// The control connection carries the handshake, the queue pair everything after it. The payload stays where it
    /// is: the store comes for it.
    package func queue(_ header: FrameHeader, payload: MemorySlice?, body: (inout FrameWriter) -> Void) {
        if let channel { channel.send(header, body: body) } else { stream.queue(header, body: body) }
    }

    package var hasOutput: Bool { stream.hasOutput || channel?.queuedBytes ?? 0 > 0 }

    package func flush(_ sent: (UInt32) -> Void) -> Int32? {
        if stream.hasOutput, stream.isWritable, let error = stream.flush(sent) { return error }
        channel?.flush()
        return channel?.failure == nil ? nil : Self.connectionReset
    }

    // MARK: Coming

    /// Whether there is something to do. When there is not, the completion queue is armed: this is the last look
    /// before the thread sleeps.
    package var wantsTurn: Bool {
        if phase == .closed { return false }
        if stream.isReadable || (stream.isWritable && stream.hasOutput) || header != nil { return true }
        guard let channel, phase == .ready else { return false }
        if channel.failure != nil || controlEnd != nil || wasCompleted { return true }
        if MonotonicClock.now < lastWork + Self.pollingTime { return true }
        do throws(SystemError) { try port.completions.arm() } catch {
            // Nobody would say that something has completed. The client goes on by another way.
            channel.fail("\(error)")
            return true
        }
        // What completed before the queue was armed makes no event, so it is looked at once more.
        return takeCompletions()
    }

    package func next(payloadBytesMax: Int) throws(FrameError) -> StreamArrival {
        wasCompleted = false
        if isHandedOut {
            isHandedOut = false
            header = nil
        }
        if controlEnd == nil, let arrival = try nextOfControl() {
            guard case .ended(let end) = arrival, phase == .ready else { return arrival }
            controlEnd = end
        }
        guard let channel, phase == .ready else { return .nothing }
        channel.resume()
        while header == nil, channel.failure == nil, takeCompletions() {}
        if let header {
            isHandedOut = true
            return unsafe .frame(
                header, body: UnsafeRawBufferPointer(rebasing: body[0..<Int(header.bodyBytes)]))
        }
        if let controlEnd { return .ended(controlEnd) }
        return channel.failure == nil ? .nothing : .ended(.failed(Self.connectionReset))
    }

    /// What came over the control connection: frames of the handshake, the answer to `attach`, its end.
    private func nextOfControl() throws(FrameError) -> StreamArrival? {
        while stream.isReadable || phase == .handshake {
            switch try stream.next(bodyBytesMax: WireLimit.handshakeBodyBytesMax, payloadBytesMax: 0) {
            case .frame(let header, let body):
                switch (phase, header.operation) {
                case (.attaching, _):
                    guard unsafe try attached(header, body) else { return .ended(.closed) }
                case (.ready, _) where header.operation != .goodbye:
                    throw FrameError(.outOfPlace("operation \(header.operation) beside the queue pair"), at: 5)
                default:
                    if header.operation == .welcome { phase = .welcomed }
                    return unsafe .frame(header, body: body)
                }
            case .ended(let end): return .ended(end)
            case .nothing, .payload, .turnIsOver: return nil
            }
        }
        return nil
    }

    private func takeCompletions() -> Bool {
        guard port.takeCompletions() else { return false }
        lastWork = MonotonicClock.now
        return true
    }

    /// One frame at a time, as `next` hands them out.
    package var takesFrames: Bool { header == nil }

    package func take(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        self.header = header
        if unsafe body.count > self.body.count {
            unsafe self.body.deallocate()
            unsafe self.body = .allocate(byteCount: body.count, alignment: 16)
        }
        unsafe self.body.copyMemory(from: body)
    }

    /// Only a store pushes and pulls.
    package func pushed(_ number: UInt32) {}
    package func pulled(_ number: UInt32) {}

    /// In a stream only.
    package func receivePayload(into slice: MemorySlice, checksum: BlockChecksum) {}
    package func skipPayload() {}

    // MARK: Ends

    /// The queue pair leaves RTS, its completions are drained, and it is destroyed: afterwards nothing lands in a slot.
    package func close() {
        guard phase != .closed else { return }
        phase = .closed
        hf_shut_down(stream.descriptor)
        // The completion queue outlives this connection.
        if let watched { port.unwatch(watched.poller, tag: watched.tag) }
        guard let channel else { return }
        channel.fail("closed")
        let limit = MonotonicClock.now + Self.drainLimit
        while !channel.isDrained, MonotonicClock.now < limit { _ = takeCompletions() }
        port.remove(channel)
        self.channel = nil
    }
}

extension StoreRoute {
    /// A way over RDMA verbs: `host` and `port` are those of the store's control connections, `place` is the own device.
    public static func verbs(
        host: String, port: UInt16, place: VerbsPlace = VerbsPlace(), settings: VerbsSettings = .standard
    ) -> StoreRoute {
        let noSuchDevice: Int32 = 19
        let client = Mutex<VerbsClientPort?>(nil)
        return verbs(host: host, port: port) { memory throws(SystemError) in
            // Registration is dear and made once; connections come and go.
            try client.withLock { client throws(SystemError) in
                if let client { return client }
                do throws(OperatorError) {
                    let made = try VerbsClientPort(place, memory: memory, settings: settings)
                    client = made
                    return made
                } catch {
                    throw SystemError(number: noSuchDevice, doing: "use verbs (\(error))")
                }
            }
        }
    }

    private static func verbs(
        host: String, port: UInt16,
        client: @escaping @Sendable (BlockMemory) throws(SystemError) -> VerbsClientPort
    ) -> StoreRoute {
        let store = StoreHost(host)
        return StoreRoute(carrier: .verbs, address: "verbs \(host):\(port)") { memory, _ throws(SystemError) in
            try VerbsLink(try client(memory), host: try store.address(), tcpPort: port)
        }
    }
}
