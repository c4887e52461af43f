// What engines that subscribed hear of this node: blocks that came, and blocks that are in no tier any more.

import KVModel
import KVTiering

extension LiveWorld {
    // MARK: What subscribers hear of this node

    /// A block comes out of an engine into a slot; what lay there goes.
    mutating func noteComing(_ name: ObjectName, into slot: UInt32) {
        guard desk.hasSubscribers else { return }
        noteLeaving(slot, for: name)
        arrived.append(name)
    }

    /// Other bytes come into a slot: its block may have been the last of its kind.
    mutating func noteLeaving(_ slot: UInt32, for name: ObjectName) {
        let old = slots[slot].name
        if desk.hasSubscribers, old != .none, old != name { left.append(old) }
    }

    /// Tells subscribers which blocks this node has now, and which of those whose place was taken are in no tier any more.
    mutating func tellChanges(isKept: (BlockKey) -> Bool) {
        guard !arrived.isEmpty || !left.isEmpty else { return }
        let removed = left.filter { !isKept($0.blockKey) }
        if !arrived.isEmpty || !removed.isEmpty { desk.tellSubscribers(added: arrived, removed: removed) }
        arrived.removeAll(keepingCapacity: true)
        left.removeAll(keepingCapacity: true)
    }
}

extension EngineDesk {
    /// Whether an engine wants to hear which blocks come and go.
    var hasSubscribers: Bool { engines.values.contains { $0.isSubscribed && !$0.isGone } }

    /// Tells engines that want to hear it.
    mutating func tellSubscribers(added: [ObjectName], removed: [ObjectName]) {
        for engine in engines.values where engine.isSubscribed && !engine.isGone {
            replies.append(.changed(engine.number, added: added, removed: removed))
        }
    }
}
