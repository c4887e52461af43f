// A store client that keeps a number of requests under way, for benchmarks of whatever serves at a port. It submits the
// next request from the client's own thread, as an agent may: no thread is switched for a request but the product's.

import Foundation
import KVModel
import KVSystem
import KVTransport
import Synchronization

/// What one run took, ours or a reference's.
struct LoadRun: Sendable {
    /// Seconds on the wall and of this process's processors for the whole run.
    var wall = 0.0
    var processor = 0.0
    /// From handing a request over to its end, sorted.
    var latencies: [Duration] = []
    /// The answer that came last.
    var last: Response?

    /// The latency that so much of the requests stay below, in microseconds.
    func percentile(_ part: Double) -> Double {
        Double(latencies[min(latencies.count - 1, Int(Double(latencies.count) * part))].nanoseconds) / 1000
    }

    /// Times a run; the closure gives the latencies.
    static func timed(_ body: () throws -> [Duration]) rethrows -> LoadRun {
        var run = LoadRun()
        var latencies: [Duration] = []
        run.processor = try seconds { run.wall = try wallSeconds { latencies = try body() } }
        run.latencies = latencies.sorted()
        return run
    }
}

/// One client, its slots, and what it asks.
final class ClientLoad: Sendable {
    /// What is asked at a place of a run's order, with the slot of this number.
    typealias Asked = @Sendable (_ position: Int, _ slot: Int) -> (Request, MemorySlice?)

    private struct Progress {
        var ask: Asked?
        var sent = 0
        var ended = 0
        var count = 0
        var began: [Instant] = []
        var latencies: [Duration] = []
        var failure: String?
        var last: Response?
    }

    private let progress = Mutex(Progress())
    private let finished: WakeSignal
    private let client = Mutex<StoreClient?>(nil)
    /// What `open` was answered.
    let namespace: Mutex<NamespaceHandle> = Mutex(0)

    /// Connects, and opens a namespace.
    init(port: UInt16, tenant: String, secret: [UInt8], memory: BlockMemory, namespace name: String = "bench") throws {
        finished = try WakeSignal()
        let routes = [StoreRoute.tcp(host: "127.0.0.1", port: port)]
        let made = try StoreClient(
            StoreClientConfiguration(routes: routes, tenant: tenant, secret: secret), memory: memory
        ) { [unowned self] event in take(event) }
        client.withLock { $0 = made }
        let opened = try run(depth: 1, count: 1) { _, _ in (.openNamespace(name: name), nil) }
        guard case .namespace(let handle)? = opened.last?.body else {
            throw BenchmarkFailure(what: "the namespace cannot be opened")
        }
        namespace.withLock { $0 = handle }
    }

    var handle: NamespaceHandle { namespace.withLock { $0 } }

    func shutDown() { client.withLock { $0.take() }?.shutDown() }

    /// Asks `count` times with `depth` of them under way; each must end well.
    func run(depth: Int, count: Int, _ ask: @escaping Asked) throws -> LoadRun {
        let depth = min(depth, count)
        var run = try LoadRun.timed {
            progress.withLock { progress in
                progress = Progress(ask: ask, count: count)
                progress.began = Array(repeating: .zero, count: depth)
                progress.latencies.reserveCapacity(count)
                for slot in 0..<depth { send(slot, &progress) }
            }
            while true {
                finished.prepareToSleep()
                if progress.withLock({ $0.ended == $0.count || $0.failure != nil }) { break }
                finished.wait(atMost: Duration(seconds: 60))
                finished.awake()
            }
            finished.awake()
            if let failure = progress.withLock({ $0.failure }) { throw BenchmarkFailure(what: failure) }
            return progress.withLock { $0.latencies }
        }
        run.last = progress.withLock { $0.last }
        return run
    }

    private func send(_ slot: Int, _ progress: inout Progress) {
        let now = MonotonicClock.now
        progress.began[slot] = now
        let (request, slice) = progress.ask!(progress.sent, slot)
        progress.sent += 1
        let accepted = client.withLock {
            $0?.submit(request, tag: UInt64(slot), slot: slice, deadline: now + Duration(seconds: 60)) ?? .full
        }
        if accepted == .full { progress.failure = "the client is full" }
    }

    private func take(_ event: StoreEvent) {
        guard case .completed(let tag, let response, _) = event else { return }
        let isOver = progress.withLock { progress in
            progress.last = response
            if response.status != .ok { progress.failure = "a request ended as \(response.status)" }
            progress.latencies.append(MonotonicClock.now - progress.began[Int(tag)])
            progress.ended += 1
            if progress.sent < progress.count { send(Int(tag), &progress) }
            return progress.ended == progress.count || progress.failure != nil
        }
        if isOver { finished.wake() }
    }
}
