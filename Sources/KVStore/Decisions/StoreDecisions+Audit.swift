// Checks that the store's books agree with each other; simulations and tests call it after every step.

import KVModel

extension StoreDecisions {
    /// How many slots past its home the name of an object stands at most.
    package var distanceMax: Int {
        (0..<UInt32(objects.extentCount)).filter { [.present, .writing].contains(objects[$0].state) }
            .map { objects.distance(of: $0) }.max() ?? 0
    }

    /// The first broken rule in words, or nil.
    public func audit() -> String? {
        var used = Array(repeating: 0, count: namespaces.count)
        var present = used
        var pinned = used
        var leaving = 0
        var indexed = 0
        var scoped: [UInt32: UInt32] = [:]
        var shared = 0
        for drive in drives.indices {
            var taken = 0
            for extent in 0..<UInt32(drives[drive].extents.count) {
                let number = drives[drive].base + extent
                let record = objects[number]
                let isFree = drives[drive].extents.isFree(extent)
                if (record.state == .free) != isFree {
                    return "extent \(number) is \(record.state), its drive says \(isFree)"
                }
                if record.state == .free { continue }
                taken += 1
                if record.state == .continuation { continue }
                scoped[record.scope, default: 0] += 1
                let namespace = Int(scopes[record.scope].namespace)
                let count = extentCount(Int(record.payloadBytes))
                used[namespace] += count * settings.extentBytes
                if record.flags.contains(.isShared) { shared += count }
                if record.flags.contains(.isAwaited) { leaving += count }
                switch record.state {
                case .present, .writing:
                    indexed += 1
                    if objects.find(record.key, scope: record.scope) != number {
                        return "object \(number) is not found"
                    }
                    if record.state == .present { present[namespace] += 1 }
                case .leaving, .quarantined:
                    if objects.find(record.key, scope: record.scope) == number { return "a leaving object is found" }
                    if record.flags.contains(.isPinned) { return "object \(number) leaves and is pinned" }
                case .free, .continuation: break
                }
                if record.flags.contains(.isPinned) {
                    pinned[namespace] += count * settings.extentBytes
                    if pins[number] == nil { return "object \(number) is pinned by nobody" }
                }
            }
            if taken != drives[drive].extents.count - drives[drive].extents.freeCount { return "extents leak" }
        }
        if indexed != objects.count { return "the index has \(objects.count) names for \(indexed) objects" }
        if leaving != leavingExtents { return "\(leaving) extents leave, \(leavingExtents) are awaited" }
        if shared != sharedExtents { return "\(shared) extents are shared, \(sharedExtents) are counted" }
        if let broken = scopes.audit(scoped) { return broken }
        for namespace in namespaces {
            let index = Int(namespace.number)
            if used[index] != namespace.usedBytes {
                return "namespace \(namespace.name) counts \(namespace.usedBytes) bytes"
            }
            if present[index] != namespace.presentCount { return "namespace \(namespace.name) miscounts its objects" }
            if pinned[index] != namespace.pinnedBytes { return "namespace \(namespace.name) miscounts its pins" }
            let quota = namespace.policy.quotaBytes
            if quota > 0, namespace.usedBytes > quota { return "namespace \(namespace.name) is over quota" }
            if namespace.pinnedBytes > namespace.policy.pinQuotaBytes { return "pins over their quota" }
        }
        let lent = operations.filter { $0.kind != .none && $0.buffer != ObjectRecord.none }.count
        if lent == 0, buffers.lentFrames != 0 { return "buffers leak" }
        let held = pins.values.reduce(0) { $0 + $1.count } + danglingPins.values.reduce(0) { $0 + $1.count }
        if pinRoom.count != held {
            return "pins are miscounted"
        }
        return nil
    }
}
