// How fast this machine's memory is copied: by all processors at once, and by one that takes the checksum on the way.

import Foundation
import KVModel
import KVSystem

/// Rates of memory, bytes a second of payload (each is read once and written once).
struct MemoryRates {
    var copyBytesPerSecond: Double
    var checkedCopyBytesPerSecond: Double

    /// Copies `byteCount` bytes altogether a few times; the best of five, since others can only slow it down.
    static func measured(byteCount: Int) throws(OperatorError) -> MemoryRates {
        do {
            let source = try BlockMemory(byteCount: byteCount)
            let target = try BlockMemory(byteCount: byteCount)
            let threads = ProcessInfo.processInfo.activeProcessorCount
            let part = byteCount / threads
            var copy = 0.0
            var checked = 0.0
            for _ in 0..<5 {
                let start = MonotonicClock.now
                let workers = try (0..<threads).map { number throws(SystemError) in
                    try EngineThread("copy \(number)") {
                        let slice = MemorySlice(offset: number * part, count: part)
                        unsafe target[slice].copyMemory(from: UnsafeRawBufferPointer(source[slice]))
                    }
                }
                for worker in workers { worker.join() }
                copy = max(copy, Double(part * threads) / seconds(since: start))
                let slice = MemorySlice(offset: 0, count: part)
                let again = MonotonicClock.now
                var checksum = BlockChecksum()
                unsafe checksum.copy(UnsafeRawBufferPointer(source[slice]), to: target[slice])
                checked = max(checked, Double(part) / seconds(since: again))
            }
            return MemoryRates(copyBytesPerSecond: copy, checkedCopyBytesPerSecond: checked)
        } catch {
            throw OperatorError("\(error)", remedy: "free memory, or measure with --quick")
        }
    }

    private static func seconds(since start: Instant) -> Double {
        Double((MonotonicClock.now - start).nanoseconds) / 1e9
    }
}
