// Sessions inside one process: frames are handed over as messages and payloads are copied once, from slot to slot, with
// the checksum taken on the way. It is the smallest carrier whose store moves payloads itself, as verbs does.

import KVModel
import KVSystem
import Synchronization

enum LoopbackInput: Sendable {
    case connect(LoopbackPipe)
    case message(UInt32, LoopbackMessage)
    case closed(UInt32)
    case command(SessionCommand)
}

/// A server for clients of the same process.
public final class LoopbackServer: SessionServer {
    /// `loopback`.
    public let address = "loopback"
    let shared: Shared
    private let thread: Mutex<EngineThread?>

    /// What the server's thread shares with clients and store.
    final class Shared: Sendable {
        let host: any SessionHost
        let limits: ServerLimits
        let transport: UInt16
        let signal: WakeSignal
        let inputs: Mailbox<LoopbackInput>
        let nextNumber = SharedCount()
        let isStopping = Atomic<Bool>(false)
        let published = Mutex(TransportCounters())

        init(_ host: any SessionHost, _ limits: ServerLimits, _ transport: UInt16) throws(SystemError) {
            self.host = host
            self.limits = limits
            self.transport = transport
            signal = try WakeSignal()
            // Per session the commands about its requests, the requests themselves, its begin and end; and what is
            // told to subscribers, which may be refused.
            let messages = limits.sessionsMax * (limits.credits + 4) + 1024
            inputs = Mailbox(capacity: limits.commandCountMax + messages, waking: signal)
        }

        func message(_ number: UInt32, _ message: LoopbackMessage) -> Acceptance {
            inputs.post(.message(number, message))
        }
        func closed(_ number: UInt32) { _ = inputs.post(.closed(number)) }
    }

    /// Serves until `shutDown`.
    public init(limits: ServerLimits, transport: UInt16, host: any SessionHost) throws(SystemError) {
        let shared = try Shared(host, limits, transport)
        self.shared = shared
        let poller = try Poller()
        let started = try EngineThread("kv-loopback") { LoopbackLoop(shared, poller).run() }
        thread = Mutex(started)
    }

    /// Takes a command of the store.
    public func post(_ command: SessionCommand) -> Acceptance { shared.inputs.post(.command(command)) }

    /// What it counted so far.
    public var counters: TransportCounters { shared.published.withLock { $0 } }

    /// Ends all sessions and joins its thread.
    public func shutDown() {
        shared.isStopping.store(true, ordering: .sequentiallyConsistent)
        shared.signal.wake()
        // When the store owes answers, the thread takes them and ends by itself after the last.
        let running = thread.withLock { thread -> EngineThread? in
            defer { thread = nil }
            return thread
        }
        running?.join(atMost: shared.limits.stallLimit)
    }
}

/// The server's end of one connection.
private final class LoopbackConnection: ServerCarrier {
    let pipe: LoopbackPipe
    private(set) var peer: ServerPeer!
    private let memory: BlockMemory
    private let setting: ServerSetting
    private(set) var isClosed = false
    /// Frames that the store had no room for, or that came meanwhile.
    private var waiting: [LoopbackMessage] = []
    private var sentCount = 0

    init(_ pipe: LoopbackPipe, id: SessionID, setting: ServerSetting) {
        self.pipe = pipe
        self.setting = setting
        memory = setting.host.memory
        peer = ServerPeer(id, kind: .loopback, address: "loopback", setting: setting, carrier: self)
    }

    /// Messages take no room by their bytes but by their count: half of what fits counts as much as a session may have
    /// waiting, so that answers find room even when the other half is notifications.
    var queuedBytes: Int {
        let waiting = sentCount - pipe.takenCount.load(ordering: .relaxed)
        return 2 * setting.limits.outputBytesMax / pipe.capacity * waiting
    }
    var isOneSided: Bool { true }
    var waits: Bool { peer.isRefusedByHost || (!waiting.isEmpty && !isClosed) }

    func take(_ message: LoopbackMessage) {
        guard waiting.count <= setting.limits.credits else {
            peer.count(FrameError(.credits, at: 8))
            return end()
        }
        waiting.append(message)
        takeWaiting()
    }

    func takeWaiting() {
        peer.retry()
        while !isClosed, peer.takesFrames, !waiting.isEmpty {
            let message = waiting.removeFirst()
            setting.counters.framesReceived += 1
            setting.counters.bytesReceived += UInt64(WireLimit.headerBytes + message.body.count)
            do throws(FrameError) {
                let limits = peer.incomingLimits
                guard Int(message.header.payloadBytes) <= limits.payloadBytes else {
                    throw FrameError(.tooLong("payload", UInt64(message.header.payloadBytes)), at: 24)
                }
                let result = unsafe message.body.withUnsafeBytes { bytes -> Result<Void, FrameError> in
                    Result { () throws(FrameError) in unsafe try peer.take(message.header, bytes) }
                }
                try result.get()
            } catch {
                peer.count(error)
                end()
            }
        }
    }

    func transmit(_ header: FrameHeader, body: (inout FrameWriter) -> Void) {
        guard !isClosed else { return }
        var writer = FrameWriter()
        body(&writer)
        setting.counters.framesSent += 1
        setting.counters.bytesSent += UInt64(WireLimit.headerBytes + writer.bytes.count)
        sentCount += 1
        if pipe.answers.post(LoopbackMessage(header: header, body: writer.bytes)) == .full {
            // It asks and does not listen.
            setting.counters.deadlinesPassed += 1
            end()
        }
    }

    func push(
        _ header: FrameHeader, body: (inout FrameWriter) -> Void, from slice: MemorySlice, to slot: RemoteSlot,
        number: UInt32
    ) {
        let stands = pipe.whileOpen {
            let target = MemorySlice(
                region: Int32(slot.key), offset: Int(slot.address), count: slice.count)
            let from = unsafe memory[slice]
            if from.count > 0 { unsafe pipe.memory[target].copyMemory(from: UnsafeRawBufferPointer(from)) }
        }
        guard stands else { return end() }
        setting.counters.bytesSent += UInt64(slice.count)
        transmit(header, body: body)
        if !isClosed { peer.pushed(number) }
    }

    func pull(into slice: MemorySlice, from slot: RemoteSlot, checksum: BlockChecksum, number: UInt32) {
        var checksum = checksum
        let stands = pipe.whileOpen {
            let source = MemorySlice(region: Int32(slot.key), offset: Int(slot.address), count: slice.count)
            unsafe checksum.copy(UnsafeRawBufferPointer(pipe.memory[source]), to: memory[slice])
        }
        guard stands else { return end() }
        setting.counters.bytesReceived += UInt64(slice.count)
        peer.pulled(number, checksum: checksum.value)
    }

    func skip(number: UInt32) {}
    func finish() { end() }

    func end() {
        guard !isClosed else { return }
        isClosed = true
        pipe.close()
        pipe.answers.wakeOwner()
        peer.connectionEnded()
    }
}

/// The server's thread.
private final class LoopbackLoop {
    private let shared: LoopbackServer.Shared
    private let poller: Poller
    private let setting: ServerSetting
    private var connections: [UInt32: LoopbackConnection] = [:]
    private var batch: [LoopbackInput] = []
    private var isEnding = false

    init(_ shared: LoopbackServer.Shared, _ poller: Poller) {
        self.shared = shared
        self.poller = poller
        setting = ServerSetting(
            host: shared.host, limits: shared.limits, failedTries: FailedTries(limits: shared.limits))
    }

    func run() {
        poller.add(shared.signal.descriptor, for: .readable, tag: 0)
        var polled = PollBatch()
        while true {
            setting.now = MonotonicClock.now
            shared.inputs.drain(into: &batch)
            for input in batch { take(input) }
            batch.removeAll(keepingCapacity: true)
            var next = Instant.distantFuture
            for connection in Array(connections.values) {
                if connection.waits { connection.takeWaiting() }
                next = min(next, connection.peer.tick())
                if connection.waits { next = min(next, setting.now + Duration(milliseconds: 1)) }
                forgetIfOver(connection)
            }
            shared.published.withLock { $0 = setting.counters }
            if shared.isStopping.load(ordering: .sequentiallyConsistent), stop() { return }
            shared.signal.prepareToSleep()
            if !shared.inputs.isEmpty
                || (!isEnding && shared.isStopping.load(ordering: .sequentiallyConsistent))
            {
                next = setting.now
            }
            poller.wait(until: next, from: setting.now, into: &polled)
            shared.signal.awake()
        }
    }

    private func take(_ input: LoopbackInput) {
        switch input {
        case .connect(let pipe):
            guard !isEnding, connections.count < setting.limits.sessionsMax else {
                setting.counters.connectionsRefused += 1
                pipe.close()
                return pipe.answers.wakeOwner()
            }
            setting.counters.connectionsAccepted += 1
            setting.counters.connectionsOpen += 1
            connections[pipe.number] = LoopbackConnection(
                pipe, id: SessionID(transport: shared.transport, number: pipe.number), setting: setting)
        case .message(let number, let message):
            guard let connection = connections[number] else { return }
            connection.take(message)
            forgetIfOver(connection)
        case .closed(let number):
            guard let connection = connections[number] else { return }
            connection.end()
            forgetIfOver(connection)
        case .command(let command):
            guard let connection = connections[command.session.number] else { return }
            connection.peer.perform(command)
            connection.takeWaiting()
            forgetIfOver(connection)
        }
    }

    private func forgetIfOver(_ connection: LoopbackConnection) {
        guard connection.peer.isOver, connections.removeValue(forKey: connection.pipe.number) != nil else { return }
        setting.counters.connectionsOpen -= 1
    }

    /// Ends all connections; true when the store has answered everything.
    private func stop() -> Bool {
        if !isEnding {
            isEnding = true
            for connection in Array(connections.values) {
                connection.end()
                forgetIfOver(connection)
            }
        }
        shared.published.withLock { $0 = setting.counters }
        return connections.isEmpty
    }
}
