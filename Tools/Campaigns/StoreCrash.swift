// Kill -9 of a real store while clients put and delete: the next one must have every block whose put was acknowledged, right
// to the last byte, and exact accounts.

import Foundation
import KVModel
import KVSystem
import KVTransport
import Synchronization

/// What clients were told, and what may therefore be.
private struct StoreLedger {
    /// Acknowledged, and nobody asked for their end: they must be there.
    var owed: [UInt64] = []
    /// Put or deleted without an answer: there and right, or not there.
    var inDoubt: Set<UInt64> = []
    var next: UInt64 = 1
    var acknowledged = 0
}

/// Stores that are killed one after the other on the same file.
struct StoreCrashCampaign {
    let quick: Bool
    let seed: UInt64
    private static let workers = 8
    /// Blocks that are kept, three or so extents each: half of the store, so that it never has a reason to evict.
    private static let owedMax = 200

    func run() async throws -> CampaignResult {
        var result = CampaignResult(name: "store crash")
        let began = Date()
        let folder = try ScratchFolder()
        var source = RandomSource(seed: seed)
        let book = LedgerBook()
        for _ in 0..<(quick ? 12 : 300) {
            let store = try StoreUnderTest(folder, size: "96MiB", memory: "16MiB")
            await inspect(store, book, &result)
            await torture(store, book, acknowledgements: 1 + source.below(80))
            store.kill()
            result.trials += 1
            result.detected += 1
        }
        await inspect(try StoreUnderTest(folder, size: "96MiB", memory: "16MiB"), book, &result)
        result.seconds = Date().timeIntervalSince(began)
        // Puts that nobody acknowledged would prove nothing.
        guard book.ledger.acknowledged >= result.trials else { throw OperatorError("the stores acknowledged no puts") }
        return result
    }

    /// Holds what is there against what must be.
    private func inspect(_ store: StoreUnderTest, _ book: LedgerBook, _ result: inout CampaignResult) async {
        let (owed, doubtful) = (book.ledger.owed, book.ledger.inDoubt)
        guard let blocks = try? store.connect(slotCount: 1), let handle = await blocks.open() else {
            result.hangs += 1
            return
        }
        var there = 0
        for number in owed {
            switch await blocks.get(handle, number, slot: 0) {
            case .right: there += 1
            case .wrong: result.wrongBytes += 1
            case .late, .cut: result.hangs += 1
            case .absent, .other: result.lostAcknowledged += 1
            }
        }
        for number in doubtful {
            switch await blocks.get(handle, number, slot: 0) {
            case .right:
                there += 1
                book.found(number)
            case .wrong: result.wrongBytes += 1
            case .late, .cut: result.hangs += 1
            case .absent, .other: break
            }
        }
        book.clearDoubts()
        // Nothing is there that nobody put, and no extent is held by nothing.
        if let listed = await blocks.listed(handle), let status = await blocks.status() {
            if listed.objects != there { result.leaks += 1 }
            let held = status.drives.reduce(0) { $0 + $1.extents - $1.freeExtents }
            if held != listed.extents { result.leaks += 1 }
        } else {
            result.hangs += 1
        }
        blocks.client.shutDown()
    }

    /// Clients put and delete until so many puts were acknowledged; then the store is killed under them.
    private func torture(_ store: StoreUnderTest, _ book: LedgerBook, acknowledgements: Int) async {
        guard let blocks = try? store.connect(slotCount: Self.workers), let handle = await blocks.open() else { return }
        book.restart(acknowledgements)
        let identifier = store.identifier
        await withTaskGroup(of: Void.self) { group in
            for slot in 0..<Self.workers {
                group.addTask {
                    while let step = book.begin(owedMax: Self.owedMax) {
                        let number: UInt64
                        let status: Status
                        switch step {
                        case .put(let new): (number, status) = (new, await blocks.put(handle, new, slot: slot))
                        case .delete(let old): (number, status) = (old, await blocks.delete(handle, old))
                        }
                        if book.end(step, number, status) { Glibc.kill(identifier, SIGKILL) }
                    }
                }
            }
        }
        blocks.client.shutDown()
    }
}

/// The ledger while several clients write in it.
private final class LedgerBook: Sendable {
    enum Step: Sendable { case put(UInt64), delete(UInt64) }

    private struct State {
        var ledger = StoreLedger()
        var isOver = false
        /// The acknowledgement at which the store is killed.
        var end = 0
    }

    private let state = Mutex(State())

    var ledger: StoreLedger { state.withLock { $0.ledger } }

    /// A store lives again, until so many puts more were acknowledged.
    func restart(_ acknowledgements: Int) {
        state.withLock {
            $0.isOver = false
            $0.end = $0.ledger.acknowledged + acknowledgements
        }
    }

    /// What was in doubt is there: it must be from now on.
    func found(_ number: UInt64) { state.withLock { $0.ledger.owed.append(number) } }

    func clearDoubts() { state.withLock { $0.ledger.inDoubt = [] } }

    /// What to do next; nil: the store is gone. From here on the outcome is in doubt.
    func begin(owedMax: Int) -> Step? {
        state.withLock { state in
            guard !state.isOver else { return nil }
            if state.ledger.owed.count > owedMax {
                let old = state.ledger.owed.removeFirst()
                state.ledger.inDoubt.insert(old)
                return .delete(old)
            }
            let new = state.ledger.next
            state.ledger.next += 1
            state.ledger.inDoubt.insert(new)
            return .put(new)
        }
    }

    /// What came of it; true: now the store is to be killed.
    func end(_ step: Step, _ number: UInt64, _ status: Status) -> Bool {
        state.withLock { state in
            switch (step, status) {
            case (.put, .ok):
                state.ledger.inDoubt.remove(number)
                state.ledger.owed.append(number)
                state.ledger.acknowledged += 1
                guard state.ledger.acknowledged == state.end else { return false }
                state.isOver = true
                return true
            case (.put, .busy), (.delete, .busy): return false
            case (.put, .disconnected), (.delete, .disconnected):
                state.isOver = true
                return false
            case (.delete, .ok), (.delete, .absent):
                state.ledger.inDoubt.remove(number)
                return false
            default: return false
            }
        }
    }
}
