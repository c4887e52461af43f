// Takes what passed the door to a file or to an OpenTelemetry collector, on a thread of its own. Bounded: what it cannot keep up
// with is dropped and counted, and no engine ever waits for it.

import AsyncHTTPClient
import Foundation
import KVModel
import KVSystem
import Logging
import NIOCore
import Synchronization

/// Where request traces go.
package enum TraceTarget: Sendable, Equatable {
    /// A file of OTLP requests in JSON, one a line. At `bytesMax` it becomes `FILE.1`, and a new one begins.
    case file(String, bytesMax: Int)
    /// A collector's address for traces over HTTP, like `http://127.0.0.1:4318/v1/traces`.
    case collector(String)

    /// What a setting means: an address of HTTP, else a file. A collector's address without a path gets OTLP's own.
    package init(_ text: String, bytesMax: Int) throws(OperatorError) {
        guard text.contains("://") else {
            self = .file(text, bytesMax: bytesMax)
            return
        }
        guard let address = URLComponents(string: text), let host = address.host, !host.isEmpty,
            address.scheme == "http" || address.scheme == "https"
        else {
            throw OperatorError(
                "`\(text)` is no address of a collector", at: "traces",
                remedy: "name a file, or an address like http://127.0.0.1:4318")
        }
        let hasPath = !["", "/"].contains(address.path)
        self = .collector(hasPath ? text : (text.hasSuffix("/") ? text : text + "/") + "v1/traces")
    }
}

/// What became of the spans.
package struct TraceCounters: Sendable, Equatable {
    /// Spans that were written, or that the collector took.
    package var exported: UInt64 = 0
    /// Sightings and spans that nobody will see.
    package var dropped: UInt64 = 0
    /// How often their thread looked whether there is anything to do.
    package var looks: UInt64 = 0
}

/// Follows requests and exports their traces.
package final class TraceExport: Sendable {
    private static let sightingsMax = 1 << 14
    /// Spans that go out together.
    private static let batchMax = 512
    /// How long a span may wait for others.
    private static let delay = Duration(seconds: 1)
    /// How long a collector may take.
    private static let collectorLimit = TimeAmount.seconds(5)

    private let sightings: Mailbox<DoorSighting>
    private let signal: WakeSignal
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<EngineThread?>(nil)
    private let counted = Mutex(TraceCounters())
    /// Engines that left while there was no room to say so: what was open of them would stay open for ever.
    private let left = Mutex<[EngineNumber: DoorSighting]>([:])
    private let resource: TraceResource
    private let logger: Logger

    /// Opens the file, or prepares to reach the collector.
    package init(_ target: TraceTarget, resource: TraceResource, seed: UInt64, logger: Logger) throws(OperatorError) {
        self.resource = resource
        self.logger = logger
        do throws(SystemError) {
            signal = try WakeSignal()
            sightings = Mailbox(capacity: Self.sightingsMax, waking: signal)
        } catch { throw OperatorError("\(error)", at: "traces") }
        let output: any TraceOutput =
            switch target {
            case .file(let path, let bytesMax): try TraceFile(path, bytesMax: bytesMax)
            case .collector(let address): TraceCollector(address, limit: Self.collectorLimit)
            }
        do throws(SystemError) {
            let started = try EngineThread("hf-traces") { [self] in run(output, RequestTraces(seed: seed)) }
            thread.withLock { $0 = started }
        } catch { throw OperatorError("\(error)", at: "traces") }
    }

    /// What became of the spans so far.
    package var counters: TraceCounters { counted.withLock { $0 } }

    /// Takes what passed; from any thread, without waiting.
    package func see(_ sighting: DoorSighting?) {
        guard let sighting else { return }
        guard sightings.post(sighting) == .full else { return }
        if case .gone = sighting.what {
            left.withLock { $0[sighting.engine] = sighting }
            sightings.wakeOwner()
        } else {
            counted.withLock { $0.dropped += 1 }
        }
    }

    /// Exports what has been seen, and ends. Once.
    package func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        thread.withLock { $0.take() }?.join()
    }

    private func run(_ output: any TraceOutput, _ traces: RequestTraces) {
        var output = output
        var traces = traces
        var batch: [DoorSighting] = []
        var waiting: [RequestSpan] = []
        var oldest = Instant.distantFuture
        var isFailing = false
        var untold = 0
        while true {
            let isLast = isStopping.load(ordering: .sequentiallyConsistent)
            // Taken first: what came before them is then in the batch or was in an earlier one.
            let gone = left.withLock { left in
                defer { left = [:] }
                return left.values.sorted { $0.at < $1.at }
            }
            sightings.drain(into: &batch)
            // After it: who sees the number rise knows that what came before has been taken.
            counted.withLock { $0.looks += 1 }
            for sighting in batch { traces.see(sighting) }
            for sighting in gone { traces.see(sighting) }
            waiting += traces.take()
            let now = MonotonicClock.now
            if waiting.isEmpty { oldest = .distantFuture } else { oldest = min(oldest, now) }
            if waiting.count >= Self.batchMax || isLast || (!waiting.isEmpty && now - oldest >= Self.delay) {
                send(&waiting, to: &output, isFailing: &isFailing)
                oldest = .distantFuture
            }
            if traces.dropped > untold {
                let more = traces.dropped - untold
                counted.withLock { $0.dropped += UInt64(more) }
                untold = traces.dropped
            }
            if isLast { break }
            signal.prepareToSleep()
            if sightings.isEmpty, left.withLock({ $0.isEmpty }), !isStopping.load(ordering: .sequentiallyConsistent) {
                signal.wait(atMost: waiting.isEmpty ? nil : Self.delay)
                signal.awake()
            } else {
                signal.awake(wasSignalled: false)
            }
        }
        output.close()
    }

    private func send(_ spans: inout [RequestSpan], to output: inout any TraceOutput, isFailing: inout Bool) {
        while !spans.isEmpty {
            let part = Array(spans.prefix(Self.batchMax))
            spans.removeFirst(part.count)
            do throws(OperatorError) {
                try output.write(resource.encode(part))
                counted.withLock { $0.exported += UInt64(part.count) }
                if isFailing { logger.info("request traces are taken again") }
                isFailing = false
            } catch {
                // A collector that does not answer takes all of its limit: what waits behind this part is not offered to it,
                // or as many parts as there are would hold up the thread, and the agent's end.
                let lost = part.count + spans.count
                spans = []
                counted.withLock { $0.dropped += UInt64(lost) }
                // Once, not for every batch of a night.
                if !isFailing { logger.warning("request traces are lost: \(error)") }
                isFailing = true
            }
        }
    }
}

/// Takes one request of OTLP at a time.
private protocol TraceOutput: Sendable {
    mutating func write(_ request: Data) throws(OperatorError)
    mutating func close()
}

/// A file of bounded size, and the one before it.
private struct TraceFile: TraceOutput {
    private let path: String
    private let bytesMax: Int
    /// None where the one before was set aside and no other could be made yet.
    private var file: FileHandle?
    private var written = 0

    init(_ path: String, bytesMax: Int) throws(OperatorError) {
        self.path = path
        self.bytesMax = bytesMax
        _ = try opened()
    }

    private mutating func opened() throws(OperatorError) -> FileHandle {
        if let file { return file }
        do {
            let url = URL(fileURLWithPath: path)
            if !FileManager.default.fileExists(atPath: path) { try Data().write(to: url) }
            let made = try FileHandle(forWritingTo: url)
            written = Int(try made.seekToEnd())
            file = made
            return made
        } catch { throw OperatorError("cannot be written: \(error.localizedDescription)", at: path) }
    }

    private mutating func setAside() throws(OperatorError) {
        do {
            // Somebody may have taken it away.
            if FileManager.default.fileExists(atPath: path) {
                try? FileManager.default.removeItem(atPath: path + ".1")
                try FileManager.default.moveItem(atPath: path, toPath: path + ".1")
            }
        } catch { throw OperatorError("cannot be set aside: \(error.localizedDescription)", at: path) }
        close()
        file = nil
    }

    mutating func write(_ request: Data) throws(OperatorError) {
        if file != nil, written >= bytesMax { try setAside() }
        let file = try opened()
        do { try file.write(contentsOf: request + [UInt8(ascii: "\n")]) } catch {
            throw OperatorError("cannot be written: \(error.localizedDescription)", at: path)
        }
        written += request.count + 1
    }

    func close() { try? file?.close() }
}

/// A collector that is reached over HTTP.
private struct TraceCollector: TraceOutput {
    private let address: String
    private let client: HTTPClient
    private let limit: TimeAmount

    init(_ address: String, limit: TimeAmount) {
        self.address = address
        self.limit = limit
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = limit
        // Who is not there is asked again with the next spans, not for as long as the limit lasts.
        configuration.connectionPool.retryConnectionEstablishment = false
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    func write(_ request: Data) throws(OperatorError) {
        let status: UInt
        do {
            var post = try HTTPClient.Request(url: address, method: .POST)
            post.headers.add(name: "Content-Type", value: "application/json")
            post.body = .data(request)
            status = try client.execute(request: post, deadline: .now() + limit).wait().status.code
        } catch { throw OperatorError("the collector cannot be reached: \(error)", at: address) }
        guard (200..<300).contains(status) else {
            throw OperatorError("the collector answers with status \(status)", at: address)
        }
    }

    func close() { try? client.syncShutdown() }
}
