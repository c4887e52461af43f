// The restart of a store of several drives: their headers are read at the same time.

import KVModel
import KVSystem
import Synchronization

extension FlashDevice {
    /// Events told of at once, at most: what one read of the scan may meet.
    private static let scanBatchMax = 256

    /// Scans several drives at the same time, each on a thread of its own, so that a restart takes as long as the slowest of
    /// them and not as long as all in turn.
    ///
    /// - Parameter take: Told of what the scan of a drive meets, in the order of `scan`, some hundred events at once. It is
    ///   called on the threads of the scans: for several drives at once, for one drive never.
    /// - Returns: What was counted, in the order of `devices`.
    public static func scanAll(
        _ devices: [FlashDevice], _ take: @escaping @Sendable (_ drive: Int, _ events: [ScanEvent]) -> Void
    ) throws(FlashError) -> [ScanSummary] {
        let scans = devices.enumerated().map { DriveScan(device: $1, number: $0, take: take) }
        var threads: [EngineThread] = []
        var unstarted: SystemError?
        for scan in scans {
            do throws(SystemError) {
                threads.append(try EngineThread("scan-\(scan.number)") { scan.run() })
            } catch {
                unstarted = error
                break
            }
        }
        for thread in threads { thread.join() }
        if let unstarted { throw .system(unstarted) }
        var summaries: [ScanSummary] = []
        for scan in scans { summaries.append(try scan.result()) }
        return summaries
    }

    /// One drive's scan, its thread's until that has ended.
    private final class DriveScan: Sendable {
        let device: FlashDevice
        let number: Int
        private let take: @Sendable (Int, [ScanEvent]) -> Void
        private let ended = Mutex<Result<ScanSummary, FlashError>?>(nil)

        init(device: FlashDevice, number: Int, take: @escaping @Sendable (Int, [ScanEvent]) -> Void) {
            self.device = device
            self.number = number
            self.take = take
        }

        func run() {
            var batch: [ScanEvent] = []
            batch.reserveCapacity(FlashDevice.scanBatchMax)
            var result: Result<ScanSummary, FlashError>
            do throws(FlashError) {
                let summary = try device.scan { event in
                    batch.append(event)
                    guard batch.count == FlashDevice.scanBatchMax else { return }
                    take(number, batch)
                    batch.removeAll(keepingCapacity: true)
                }
                if !batch.isEmpty { take(number, batch) }
                result = .success(summary)
            } catch { result = .failure(error) }
            ended.withLock { $0 = result }
        }

        func result() throws(FlashError) -> ScanSummary {
            guard let result = ended.withLock({ $0 }) else { preconditionFailure("a scan without an end") }
            return try result.get()
        }
    }
}
