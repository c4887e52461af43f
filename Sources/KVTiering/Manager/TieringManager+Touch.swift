// Blocks that an engine used out of its own memory. Whoever keeps a copy below hears that they are wanted, and nothing else: the
// request that used them is told by its look-up, if there was anything to look up.

import KVModel

extension TieringManager {
    /// Renews what is known of a chain's leading blocks.
    mutating func touched(_ chain: ArraySlice<BlockKey>) {
        var path: [BlockNumber] = []
        path.reserveCapacity(chain.count)
        known.findLeading(chain.span) { _, block in path.append(block) }
        dramPolicy?.touch(path.span, at: now)
        nvmePolicy?.touch(path.span, at: now)
        noteUpkeep()
        // What no policy keeps goes in the order in which it fell idle, a root behind its children.
        for block in path.reversed() where known[block].dram == .present && dram.isIdle(known[block].dramSlot) {
            dram.setHeld(known[block].dramSlot)
            dram.setIdle(known[block].dramSlot)
        }
    }
}
