// A store under puts, gets, deletes, evictions and sessions that come and go, for minutes or an hour: its memory stays flat,
// and in the end nothing is left of what was lent.

import Foundation
import KVModel
import KVSystem
import KVTransport
import Synchronization

/// One store, several clients, one clock.
struct StoreSoakCampaign {
    let seconds: Double
    let seed: UInt64
    private static let workers = 6

    /// What the run did.
    private struct Tally {
        var operations = 0
        var wrong = 0
        var late = 0
        var stored = 0
        var right = 0
        var deleted = 0
        var next: UInt64 = 1
    }

    func run() async throws -> CampaignResult {
        var result = CampaignResult(name: "store soak")
        let folder = try ScratchFolder()
        let store = try StoreUnderTest(folder, size: "192MiB", memory: "32MiB")
        let first = try store.connect(slotCount: 1)
        guard let handle = await first.open() else { throw OperatorError("the store opens no namespace") }
        var descriptors = OpenDescriptors(of: store.identifier)
        let began = MonotonicClock.now
        let end = began + Duration(seconds: seconds)
        let tally = SharedTally()
        var course = MemoryCourse(of: store.identifier)
        await withTaskGroup(of: Void.self) { group in
            for worker in 0..<Self.workers {
                let workerSeed = seed &+ UInt64(worker)
                group.addTask { await Self.work(store, tally, seed: workerSeed, until: end) }
            }
            while MonotonicClock.now < end {
                try? await Task.sleep(nanoseconds: UInt64(seconds / 60 * 1e9))
                course.sample()
            }
        }
        let sums = tally.sums
        (result.trials, result.wrongBytes, result.hangs) = (sums.operations, sums.wrong, sums.late)
        let left = await settle(first, handle, &result)
        let evicted = sums.stored - sums.deleted - left
        note("\(sums.stored) blocks stored, \(sums.right) got and right, \(sums.deleted) deleted, \(evicted) evicted")
        // A run in which the store had nothing to do would prove nothing.
        guard sums.right > 0, evicted > 0 else { throw OperatorError("the store was never full: take longer") }
        first.client.shutDown()
        if !descriptors.awaitFirst(within: Duration(seconds: 30)) || !course.isFlat { result.leaks += 1 }
        note("\(course.words); \(descriptors.words)")
        result.seconds = (MonotonicClock.now - began).seconds
        return result
    }

    /// When nobody asks any more, nothing is lent and every extent belongs to an object that is listed.
    ///
    /// - Returns: How many objects are listed then.
    private func settle(
        _ blocks: StoreBlocks, _ handle: NamespaceHandle, _ result: inout CampaignResult
    ) async -> Int {
        let deadline = MonotonicClock.now + Duration(seconds: 60)
        while MonotonicClock.now < deadline {
            if let status = await blocks.status(), let listed = await blocks.listed(handle) {
                let held = status.drives.reduce(0) { $0 + $1.extents - $1.freeExtents }
                let isSettled =
                    status.memoryLentBytes == 0 && status.requestsWaiting == 0 && status.requestsInFlight <= 1
                    && status.sessions == 1 && held == listed.extents
                    && status.drives.allSatisfy { $0.commandsUnanswered == 0 }
                if isSettled { return listed.objects }
                note(
                    "settling: lent \(status.memoryLentBytes), waiting \(status.requestsWaiting), sessions "
                        + "\(status.sessions), extents held \(held), of objects \(listed.extents)")
            }
            try? await Task.sleep(nanoseconds: 1_000_000_000)
        }
        result.leaks += 1
        return 0
    }

    private static func work(_ store: StoreUnderTest, _ tally: SharedTally, seed: UInt64, until end: Instant) async {
        var source = RandomSource(seed: seed)
        while MonotonicClock.now < end {
            guard let blocks = try? store.connect(slotCount: 1), let handle = await blocks.open() else {
                tally.note(late: 1)
                return
            }
            // A session lasts some hundreds of operations.
            for _ in 0..<(100 + source.below(400)) where MonotonicClock.now < end {
                switch source.below(10) {
                case 0...4:
                    let status = await blocks.put(handle, tally.newNumber(), slot: 0)
                    tally.note(late: status == .deadlinePassed ? 1 : 0, stored: status == .ok ? 1 : 0)
                case 5:
                    let status = await blocks.delete(handle, tally.someNumber(&source))
                    tally.note(late: status == .deadlinePassed ? 1 : 0, deleted: status == .ok ? 1 : 0)
                default:
                    let got = await blocks.get(handle, tally.someNumber(&source), slot: 0)
                    tally.note(
                        wrong: got == .wrong ? 1 : 0, late: got == .late ? 1 : 0, right: got == .right ? 1 : 0)
                }
            }
            blocks.client.shutDown()
        }
    }

    /// Counts of all workers.
    private final class SharedTally: Sendable {
        private let tally = Mutex(Tally())

        var sums: Tally { tally.withLock { $0 } }

        func note(wrong: Int = 0, late: Int = 0, stored: Int = 0, right: Int = 0, deleted: Int = 0) {
            tally.withLock {
                $0.operations += 1
                $0.wrong += wrong
                $0.late += late
                $0.stored += stored
                $0.right += right
                $0.deleted += deleted
            }
        }

        func newNumber() -> UInt64 {
            tally.withLock { tally in
                tally.next += 1
                return tally.next - 1
            }
        }

        /// One that was put not long ago, so that some are there and some were evicted.
        func someNumber(_ source: inout RandomSource) -> UInt64 {
            let next = tally.withLock { $0.next }
            return next - 1 - min(next - 1, UInt64(source.below(2500)))
        }
    }
}

/// Tells a person how it goes, on standard error.
func note(_ text: String) { FileHandle.standardError.write(Data("\(text)\n".utf8)) }
