// What an agent looks at beside its own work, for its record: the GPUs by NVIDIA's library, the engine by its own `/metrics`. On a
// thread of its own, each look bounded in time and size; what cannot be had is left out, with the reason.

import Foundation
import KVMemory
import KVModel
import KVSystem
import Synchronization

/// What was seen so far, added up: means of any span are differences of these.
package struct WatchTotals: Sendable, Equatable {
    /// Looks at the GPUs; and of each look the GPUs' mean: thousandths of the time with a kernel running and with memory in use;
    /// milliwatts of all together.
    package var gpuLooks: UInt64 = 0
    /// See `gpuLooks`.
    package var gpuBusy: UInt64 = 0
    /// See `gpuLooks`.
    package var gpuMemoryBusy: UInt64 = 0
    /// See `gpuLooks`.
    package var gpuMilliwatts: UInt64 = 0
    /// Pages of the engine that were read; and of each the requests running and waiting, and thousandths of its cache in use.
    package var enginePages: UInt64 = 0
    /// See `enginePages`.
    package var engineRunning: UInt64 = 0
    /// See `enginePages`.
    package var engineWaiting: UInt64 = 0
    /// See `enginePages`.
    package var engineCacheUse: UInt64 = 0
    /// Pages that could not be read.
    package var engineFailures: UInt64 = 0

    /// Nothing was seen.
    package init() {}

    var counts: [(name: String, value: UInt64)] {
        [
            ("gpu_looks", gpuLooks), ("gpu_busy", gpuBusy), ("gpu_memory_busy", gpuMemoryBusy),
            ("gpu_milliwatts", gpuMilliwatts), ("engine_pages", enginePages), ("engine_running", engineRunning),
            ("engine_waiting", engineWaiting), ("engine_cache_use", engineCacheUse),
            ("engine_failures", engineFailures),
        ]
    }
}

/// What an engine's histogram of times to first token came to since the agent's first look. The engine may start anew meanwhile.
package struct EngineTimesFollower: Sendable {
    /// Ends of the buckets, seconds, ascending; the last is infinite.
    package private(set) var bounds: [Double] = []
    /// By bucket, since the first look.
    package private(set) var counts = [UInt64](repeating: 0, count: EngineMetricsPage.boundsMax)
    /// Seconds, all together.
    package private(set) var sum = 0.0
    /// The same in whole microseconds, as rows hold it: the engine's page says what it likes.
    package var sumMicroseconds: UInt64 { UInt64(min(max(0, sum * 1e6), 9e18)) }
    private var last: EngineMetricsPage?

    /// No page was seen.
    package init() {}

    /// Takes a page. `false`: its buckets have other ends than before, and all begins anew.
    package mutating func take(_ page: EngineMetricsPage) -> Bool {
        guard !page.firstToken.isEmpty else { return true }
        let ends = page.firstToken.map(\.bound)
        defer { last = page }
        guard ends == bounds else {
            let wasEmpty = bounds.isEmpty
            self = EngineTimesFollower()
            bounds = ends
            return wasEmpty
        }
        guard let last else { return true }
        // An engine that counts less than before has started anew: everything on its page is new.
        let isNew = (page.firstToken.last?.count ?? 0) < (last.firstToken.last?.count ?? 0)
        var (below, belowBefore): (UInt64, UInt64) = (0, 0)
        for (index, bucket) in page.firstToken.enumerated() {
            let before = isNew ? 0 : last.firstToken[index].count
            let now = bucket.count - min(bucket.count, below)
            let then = before - min(before, belowBefore)
            let (sum, overflows) = counts[index].addingReportingOverflow(now - min(now, then))
            counts[index] = overflows ? .max : sum
            (below, belowBefore) = (bucket.count, before)
        }
        sum += max(0, page.firstTokenSum - (isNew ? 0 : last.firstTokenSum))
        return true
    }
}

/// Looks again and again, and remembers a row each minute.
package final class AgentWatch: Sendable {
    /// What was seen.
    package struct Seen: Sendable {
        package var totals = WatchTotals()
        package var engineTimes = EngineTimesFollower()
        /// Why there is nothing to see, if so.
        package var gpuReason = "nobody looks"
        package var engineReason = "no `engineMetrics` is set"
        package var gpuNames: [String] = []

        /// Nothing was seen.
        package init() {}
    }

    private static let gpuInterval = Duration(seconds: 1)
    private static let engineInterval = Duration(seconds: 5)
    private static let rowInterval = Duration(seconds: 60)
    /// What a page of the engine may take, in time and bytes.
    private static let pageLimit = Duration(seconds: 2)
    private static let pageBytesMax = 4 << 20

    private let seenSoFar = Mutex(Seen())
    private let stop = OneTimeFlag()
    private let thread = Mutex<EngineThread?>(nil)
    private let engine: (host: String, port: UInt16, path: String)?

    /// - Parameter engineMetrics: The address of the engine's page; empty: none.
    init(engineMetrics: String) throws(OperatorError) {
        engine = engineMetrics.isEmpty ? nil : try Self.page(engineMetrics)
    }

    /// Host, port and path of an engine's page.
    static func page(_ text: String) throws(OperatorError) -> (host: String, port: UInt16, path: String) {
        guard let address = URLComponents(string: text), address.scheme == "http", let host = address.host,
            !host.isEmpty, let port = UInt16(exactly: address.port ?? 80)
        else {
            throw OperatorError(
                "`engineMetrics` is `\(text)`, no address of a page", at: "engineMetrics",
                remedy: "like http://127.0.0.1:8000/metrics")
        }
        return (host, port, address.path.isEmpty ? "/metrics" : address.path)
    }

    /// What was seen so far.
    var seen: Seen { seenSoFar.withLock { $0 } }

    /// Begins to look, in the background.
    ///
    /// - Parameters:
    ///   - gpu: The one GPU to look at; nil: all there are.
    ///   - history: Told when the engine's buckets change.
    ///   - minute: Called each minute.
    func start(gpu: Int?, history: AgentHistory, minute: @escaping @Sendable () -> Void) throws(OperatorError) {
        do throws(SystemError) {
            let started = try EngineThread("hf-watch") { [self] in run(gpu, history, minute) }
            thread.withLock { $0 = started }
        } catch { throw OperatorError("\(error)", at: "the agent's record") }
    }

    private func run(_ gpu: Int?, _ history: AgentHistory, _ minute: () -> Void) {
        var monitor: GPUMonitor?
        do throws(OperatorError) {
            let opened = try GPUMonitor(gpu: gpu)
            monitor = opened
            seenSoFar.withLock { ($0.gpuReason, $0.gpuNames) = ("", opened.names) }
        } catch { seenSoFar.withLock { $0.gpuReason = error.what } }
        let started = MonotonicClock.now
        var (nextGPU, nextPage, nextRow) = (started, started, started + Self.rowInterval)
        if monitor == nil { nextGPU = .distantFuture }
        if engine == nil { nextPage = .distantFuture }
        while true {
            let now = MonotonicClock.now
            if now >= nextGPU {
                take(monitor?.look())
                nextGPU = now + Self.gpuInterval
            }
            if now >= nextPage {
                readPage(history)
                nextPage = now + Self.engineInterval
            }
            if now >= nextRow {
                minute()
                nextRow = max(nextRow + Self.rowInterval, now)
            }
            let next = min(nextGPU, nextPage, nextRow)
            guard !stop.wait(within: max(.zero, next - MonotonicClock.now)) else { return }
        }
    }

    /// Adds a look at the GPUs.
    func take(_ use: GPUMonitor.Use?) {
        guard let use else { return }
        seenSoFar.withLock { seen in
            seen.totals.gpuLooks += 1
            seen.totals.gpuBusy += UInt64(use.busy * 1000)
            seen.totals.gpuMemoryBusy += UInt64(use.memoryBusy * 1000)
            seen.totals.gpuMilliwatts += UInt64(use.watts * 1000)
        }
    }

    private func readPage(_ history: AgentHistory) {
        guard let engine else { return }
        do throws(SystemError) {
            let answer = try plainGet(
                host: engine.host, port: engine.port, path: engine.path, within: Self.pageLimit,
                bytesMax: Self.pageBytesMax)
            guard answer.status == 200 else {
                return failed("\(engine.host):\(engine.port)\(engine.path) answers with status \(answer.status)")
            }
            take(EngineMetricsPage(String(decoding: answer.body, as: UTF8.self)), history)
        } catch { failed("\(error)") }
    }

    private func failed(_ reason: String) {
        seenSoFar.withLock {
            $0.totals.engineFailures += 1
            $0.engineReason = reason
        }
    }

    /// Adds a page of the engine.
    func take(_ page: EngineMetricsPage, _ history: AgentHistory) {
        let isComparable = seenSoFar.withLock { seen in
            seen.totals.enginePages += 1
            seen.totals.engineRunning += UInt64(min(page.running ?? 0, 1e9) * 1000)
            seen.totals.engineWaiting += UInt64(min(page.waiting ?? 0, 1e9) * 1000)
            seen.totals.engineCacheUse += UInt64(max(0, page.cacheUse ?? 0) * 1000)
            let isUseful = page.running != nil || page.waiting != nil || !page.firstToken.isEmpty
            seen.engineReason = isUseful ? "" : "its page has none of the names of vLLM and SGLang"
            return seen.engineTimes.take(page)
        }
        if !isComparable { history.forgetEngineTimes() }
    }

    /// Ends the thread. Once.
    func shutDown() {
        stop.set()
        thread.withLock { $0.take() }?.join()
    }

    deinit { shutDown() }
}
