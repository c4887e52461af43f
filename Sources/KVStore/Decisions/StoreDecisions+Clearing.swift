// Emptying: `flush` and the deletion of a namespace. A slice of all records in one turn, and answered when nothing that
// was removed would come back after a crash.

import KVModel
import KVTransport

/// An order that empties a namespace or all, and what it waits for.
struct Clearing {
    let request: RequestID
    /// Nil: all.
    let namespace: UInt16?
    /// Whether the namespace itself goes, too.
    let deletes: Bool
    /// The next record to look at.
    var cursor = 0
    var removed = 0
    /// Objects whose tombstones it waits for.
    var awaited: Set<UInt32> = []
    /// Blocks that a restart may bring back: their tombstones failed, or their drives take no writes.
    var failed = 0

    init(request: RequestID, namespace: UInt16?, deletes: Bool) {
        self.request = request
        self.namespace = namespace
        self.deletes = deletes
    }
}

extension StoreDecisions {
    /// Tombstones one clearing waits for at once.
    private static var awaitedMax: Int { 4096 }

    mutating func flush(_ request: RequestID, _ order: OrderArguments) {
        var number: UInt16?
        if let name = order.namespace {
            guard let known = namespaceByName[name] else {
                reply(request, .absent, why: "no namespace `\(name)`")
                return
            }
            number = known
        }
        begin(Clearing(request: request, namespace: number, deletes: false))
    }

    /// One at a time: the others wait, as many as requests may be under way.
    mutating func begin(_ order: Clearing) {
        if clearing == nil { clearing = order } else { clearingsWaiting.append(order) }
    }

    /// Removes the objects of a slice of records.
    ///
    /// - Returns: Whether there is more to do at once.
    mutating func advanceClearing() -> Bool {
        guard let order = clearing else { return false }
        var cursor = order.cursor
        let end = min(cursor + Self.sliceRecords, objects.extentCount)
        while cursor < end, clearing?.awaited.count ?? 0 < Self.awaitedMax {
            clear(UInt32(cursor), of: order.namespace)
            cursor += 1
        }
        clearing?.cursor = cursor
        guard cursor == objects.extentCount else { return clearing?.awaited.count ?? 0 < Self.awaitedMax }
        return endClearing()
    }

    private mutating func clear(_ number: UInt32, of namespace: UInt16?) {
        let record = objects[number]
        guard record.state == .present || record.state == .leaving else { return }
        if let namespace, scopes[record.scope].namespace != namespace { return }
        if record.state == .present {
            guard !record.flags.contains(.isPinned) else { return }
            guard record.flags.contains(.isVolatile) || drives[drive(of: number)].isWritable else {
                clearing?.failed += 1
                return
            }
            clearing?.removed += 1
            remove(number)
        }
        // What was on its way out already must not come back either.
        let left = objects[number]
        if left.state == .leaving, left.flags.contains(.isAwaited), !left.flags.contains(.isErased) {
            clearing?.awaited.insert(number)
        }
    }

    /// A tombstone is queued: a namespace that is being deleted waits for each of its own, those of puts included that
    /// end after its records were looked at.
    mutating func awaitTombstone(of number: UInt32) {
        guard let order = clearing, order.deletes, order.namespace == scopes[objects[number].scope].namespace
        else { return }
        clearing?.awaited.insert(number)
    }

    private mutating func endClearing() -> Bool {
        guard let order = clearing, order.awaited.isEmpty else { return false }
        var failed = order.failed
        if order.deletes {
            // Puts that began before the order end first; one that its drive does not end may come back.
            let puts = operations.filter { $0.kind == .put && $0.namespace == order.namespace }
            guard puts.allSatisfy({ $0.stage == .overdue }) else { return false }
            failed += puts.count
        }
        clearing = clearingsWaiting.isEmpty ? nil : clearingsWaiting.removeFirst()
        if failed > 0 {
            if order.deletes, let number = order.namespace { namespaces[Int(number)].isDeleted = false }
            reply(
                order.request, .failed,
                why: "\(order.removed) blocks are removed, \(failed) could not be erased and may come back at a restart"
                    + (order.deletes ? "; the namespace stays" : ""))
        } else if order.deletes, let number = order.namespace {
            let work = CatalogueWork.deleted(order.request, number, removed: order.removed)
            commit(.removeNamespace(name: namespaces[Int(number)].name), work)
        } else {
            var result = OrderResult()
            result.removed = order.removed
            answer(order.request, result)
        }
        return clearing != nil
    }
}
