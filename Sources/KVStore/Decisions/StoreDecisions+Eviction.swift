// What leaves when room is needed: the least worth of all objects, found by sweeps over the records, ahead of the need.

import KVModel
import KVTiering

/// A walk over all records that keeps those of least worth: exact for the moment of the walk, a slice at a time.
///
/// There are no lists and no heap over all objects: a use costs one store into a record that is in the cache anyway,
/// and an object has no links to keep. A sweep picks a 64th of all extents, so one eviction pays for 64 records read
/// in order, a fraction of a microsecond.
struct EvictionSweep {
    /// Whose quota is short; nil: the whole store.
    var namespace: UInt16?
    /// What it found so far.
    var least: LeastWorth
    /// The next record to look at.
    var cursor = 0
}

extension StoreDecisions {
    /// Records looked at in one turn: about 100 µs.
    static var sliceRecords: Int { 16_384 }
    /// Records looked through at once for blocks past their retention, some 20 µs, and how long the whole store takes: a
    /// block outlives its retention by no more.
    private static var expirySlice: Int { 4096 }
    private static var expirySweepSeconds: Double { 60 }
    /// A sweep that found too little is not repeated sooner.
    private static var sweepPause: Duration { Duration(milliseconds: 200) }

    /// Extents kept free for puts to come.
    var freeTarget: Int {
        StoreRanking.freeTarget(of: objects.extentCount, largest: extentCount(settings.payloadBytesMax))
    }

    /// Frees extents while fewer than wanted are free or on their way.
    ///
    /// - Returns: Whether a sweep goes on.
    mutating func evictAhead() -> Bool {
        if sweep != nil { advanceSweep() }
        let wanted = max(freeTarget, waitingExtents)
        if freeExtents + leavingExtents < wanted {
            while freeExtents + leavingExtents < wanted, let number = victims.popLast() {
                evict(number, sweptAt: victimsBefore)
            }
            if freeExtents + leavingExtents < wanted, sweep == nil, sweepAgain <= now { startSweep(of: nil) }
        }
        for namespace in namespaces.indices where isShort(namespace) {
            while isShort(namespace), let number = namespaces[namespace].victims.popLast() {
                evict(number, sweptAt: namespaces[namespace].victimsBefore)
            }
            if isShort(namespace), sweep == nil, namespaces[namespace].sweepAgain <= now {
                startSweep(of: UInt16(namespace))
            }
        }
        return sweep != nil
    }

    /// What those that wait for room need beyond what is kept free.
    private var waitingExtents: Int {
        waiting.prefix(16).reduce(0) { sum, index in
            operations[Int(index)].kind == .put ? sum + extentCount(operations[Int(index)].payloadBytes) : sum
        }
    }

    /// Whether a namespace uses so much of its quota that it must free extents ahead of its next put.
    private func isShort(_ namespace: Int) -> Bool {
        let quota = namespaces[namespace].policy.quotaBytes
        guard quota > 0 else { return false }
        let ahead = max(quota / 64, min(quota / 8, 2 * settings.payloadBytesMax))
        return namespaces[namespace].usedBytes - namespaces[namespace].leavingBytes + ahead > quota
    }

    /// Whether waiting can help: something is leaving, or could, or is a put whose block can go when it is there.
    func canFree(in namespace: UInt16?) -> Bool {
        if leavingExtents > 0 || sweep != nil { return true }
        guard let namespace else {
            return sweepAgain <= now || !writers.isEmpty
                || namespaces.contains { $0.presentExtentBytes > $0.pinnedBytes }
        }
        let state = namespaces[Int(namespace)]
        return state.leavingBytes > 0 || state.presentExtentBytes > state.pinnedBytes
            || writers.values.contains { operations[Int($0)].namespace == namespace }
    }

    /// Removes a victim. The sweep is a moment old: what was used, pinned or replaced since stays.
    private mutating func evict(_ number: UInt32, sweptAt: UInt32) {
        guard isEvictable(number), objects[number].touched <= sweptAt else { return }
        let record = objects[number]
        ranking.evicted(after: second &- record.touched)
        totals.evicted += 1
        if isExpired(record) { totals.expired += 1 }
        remove(number)
    }

    private mutating func startSweep(of namespace: UInt16?) {
        let quota = namespace.map { namespaces[Int($0)].policy.quotaBytes / settings.extentBytes }
        let total = min(quota ?? objects.extentCount, objects.extentCount)
        sweep = EvictionSweep(namespace: namespace, least: LeastWorth(countMax: StoreRanking.victims(of: total)))
        if let namespace {
            namespaces[Int(namespace)].victimsBefore = second
        } else {
            victimsBefore = second
        }
        advanceSweep()
    }

    private mutating func advanceSweep() {
        guard var sweep else { return }
        self.sweep = nil
        let end = min(sweep.cursor + Self.sliceRecords, objects.extentCount)
        while sweep.cursor < end {
            let number = UInt32(sweep.cursor)
            sweep.cursor += 1
            guard isEvictable(number) else { continue }
            if let namespace = sweep.namespace, scopes[objects[number].scope].namespace != namespace { continue }
            sweep.least.offer(number, worth: worth(of: number))
        }
        guard sweep.cursor == objects.extentCount else {
            self.sweep = sweep
            return
        }
        let found = sweep.least.victims()
        if let namespace = sweep.namespace {
            namespaces[Int(namespace)].victims = found
            namespaces[Int(namespace)].sweepAgain = now + (found.isEmpty ? Self.sweepPause : .zero)
        } else {
            victims = found
            sweepAgain = now + (found.isEmpty ? Self.sweepPause : .zero)
        }
    }

    func isEvictable(_ number: UInt32) -> Bool {
        let record = objects[number]
        guard record.state == .present, !record.flags.contains(.isPinned) else { return false }
        return drives.count == 1 ? drives[0].isWritable : drives[drive(of: number)].isWritable
    }

    /// What keeping an object is worth, per byte: by the ranking. Shared prefixes stand above all per-user state while they take
    /// less than their share.
    func worth(of number: UInt32) -> UInt64 {
        let record = objects[number]
        if isExpired(record) { return 0 }
        let isKeptApart =
            record.flags.contains(.isShared)
            && Double(sharedExtents) <= settings.sharedShare * Double(objects.extentCount)
        let worth = ranking.worth(touched: record.touched, uses: record.uses, depth: record.depth)
        return (isKeptApart ? 1 << 63 : 0) | worth
    }

    /// Whether the retention of its namespace has passed. When a block was used before the start is a guess that serves the order
    /// of evictions: nobody knows that it was not used, so its retention begins with the start.
    func isExpired(_ record: ObjectRecord) -> Bool {
        let retention = namespaces[Int(scopes[record.scope].namespace)].policy.retentionSeconds
        return retention > 0 && Int(second &- max(record.touched, StoreRanking.second(of: startedAt))) > retention
    }

    // MARK: Retention

    var hasRetention: Bool { namespaces.contains { $0.policy.retentionSeconds > 0 && $0.presentCount > 0 } }

    /// Looks at a slice of all records for those whose retention has passed.
    mutating func expireSlice() {
        guard hasRetention, now >= expiresAt else { return }
        let end = min(expiryCursor + Self.expirySlice, objects.extentCount)
        while expiryCursor < end {
            let number = UInt32(expiryCursor)
            expiryCursor += 1
            guard isEvictable(number), isExpired(objects[number]) else { continue }
            totals.expired += 1
            remove(number)
        }
        if expiryCursor == objects.extentCount { expiryCursor = 0 }
        let slices = Double(objects.extentCount) / Double(Self.expirySlice)
        expiresAt = now + Duration(seconds: min(1, Self.expirySweepSeconds / slices))
    }
}
