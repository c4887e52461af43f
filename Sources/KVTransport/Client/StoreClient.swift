// A client of a store: pipelined, every request with a deadline, no thread ever blocked. One thread of its own moves
// the bytes; answers are told on that thread to a sink, which leaves them in the owner's mailbox.

import CKernel
import KVModel
import KVSystem
import Synchronization

/// A client of one store.
public final class StoreClient: Sendable {
    private let shared: ClientShared
    private let thread: EngineThread
    private let wasShutDown = Atomic<Bool>(false)

    /// Starts its thread, which connects at once and again whenever the connection ends.
    ///
    /// - Parameters:
    ///   - memory: Where slots lie.
    ///   - sink: Hears of everything, on the client's thread; must not block. Of what is submitted once that has ended it hears
    ///     on the thread that submits.
    public init(
        _ configuration: StoreClientConfiguration, memory: BlockMemory,
        sink: @escaping @Sendable (StoreEvent) -> Void
    ) throws(SystemError) {
        precondition(!configuration.routes.isEmpty, "a client without a way to its store")
        precondition(configuration.inFlightMax > 0, "a client that may ask nothing")
        let poller = try Poller()
        let shared = try ClientShared(configuration, memory, sink)
        self.shared = shared
        thread = try EngineThread("kv-client") { ClientLoop(shared, poller: poller).run() }
    }

    /// Asks the store something. `accepted` promises exactly one `completed`, at the latest at the deadline.
    ///
    /// - Parameters:
    ///   - tag: Names the request in `completed` and `cancel`; unique among those under way.
    ///   - slot: Where a get's payload goes and a put's comes from. It belongs to the client until it is said to be
    ///     free; a put's bytes must not change until then.
    ///   - deadline: On the machine's monotonic clock.
    /// - Precondition: The request is within the protocol's limits.
    public func submit(
        _ request: Request, tag: UInt64, slot: MemorySlice? = nil, deadline: Instant
    ) -> Acceptance {
        hand(Errand(request: request, owner: .tag(tag), slot: slot, deadline: deadline))
    }

    /// Asks the store to forget a request. It still completes: as `cancelled`, or with its result if that was faster.
    public func cancel(tag: UInt64) { _ = shared.orders.post(.cancel(tag: tag)) }

    /// Asks the store something and waits, also until the slot is free. What cannot be said in the protocol, like a name
    /// that is too long, is answered `invalid` without being sent.
    public func call(_ request: Request, slot: MemorySlice? = nil, within limit: Duration) async -> Response {
        if let excess = request.excess { return .because(.invalid, "\(excess): more than the protocol carries") }
        let deadline = MonotonicClock.now + limit
        return await withCheckedContinuation { continuation in
            let errand = Errand(
                request: request, owner: .task { continuation.resume(returning: $0) }, slot: slot, deadline: deadline)
            if hand(errand) == .full { continuation.resume(returning: Response(.busy)) }
        }
    }

    private func hand(_ errand: Errand) -> Acceptance {
        precondition(errand.request.excess == nil, "\(errand.request.excess ?? "") where the protocol has an end")
        if case .put(_, _, _, let payloadBytes, _) = errand.request {
            precondition(payloadBytes <= errand.slot?.count ?? 0, "a put of more bytes than its slot has")
        }
        guard shared.inFlight.increment(max: shared.configuration.inFlightMax) else { return .full }
        if shared.orders.post(.perform(errand)) == .full {
            shared.inFlight.decrement()
            return .full
        }
        // Left first, looked at then: either the thread finds it at its end or it is found here.
        if shared.hasEnded.load(ordering: .sequentiallyConsistent) { shared.failLeft() }
        return .accepted
    }

    /// The longest payload that the store takes, as its last welcome said. Nil: it has not welcomed this client yet.
    public var payloadBytesMax: Int? {
        let bytes = shared.payloadBytesMax.load(ordering: .acquiring)
        return bytes > 0 ? bytes : nil
    }

    /// Requests under way, slots not yet returned included.
    public var inFlightCount: Int { shared.inFlight.value }

    /// Ends the connection, fails what is under way, joins the thread. Once.
    public func shutDown() {
        guard !wasShutDown.exchange(true, ordering: .sequentiallyConsistent) else { return }
        while shared.orders.post(.stop) == .full {}
        thread.join()
    }

    deinit { shutDown() }
}

extension StoreRoute {
    /// Over TCP. A host's name is looked up here, and again beside each connection.
    public static func tcp(host: String, port: UInt16, socketBufferBytes: Int = 0) -> StoreRoute {
        let address = "tcp \(host):\(port)"
        let store = StoreHost(host)
        return StoreRoute(carrier: .tcp, address: address) { memory, _ throws(SystemError) in
            let place = try store.address()
            let descriptor = unsafe try checked(hf_tcp_connect(place, port), "connect to \(address)")
            hf_tcp_configure(descriptor, 10_000, UInt32(clamping: socketBufferBytes))
            return StreamLink(descriptor, memory: memory, isConnected: false)
        }
    }
}
