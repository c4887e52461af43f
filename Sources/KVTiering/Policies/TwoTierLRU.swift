// DRAM over flash, LRU in both, in the three ways two tiers can share blocks. Exact and without time: what the
// agent does with pins, transfers and budgets is decided elsewhere.

import KVModel

/// Which blocks of the upper tier the lower tier also holds.
public enum Inclusion: String, Sendable, CaseIterable, Codable {
    /// A block is in one tier only: promotion takes it out of flash, and what DRAM evicts is written to flash.
    case exclusive
    /// Every new block is written to flash at once; what DRAM evicts is dropped.
    case inclusive
    /// Promotion leaves the flash copy; what DRAM evicts is written only when flash has no copy of it.
    case keep
}

/// A DRAM tier over a flash tier, both evicting the least recently used block, fed deepest block first.
public struct TwoTierLRU {
    /// How the tiers share blocks.
    public let inclusion: Inclusion
    /// Blocks written to flash so far.
    public private(set) var flashWrites = 0
    /// Blocks read from flash so far: promotions.
    public private(set) var flashReads = 0
    private var dram: EvictionList
    private var flash: EvictionList

    /// Two tiers of so many blocks, both at least 1.
    public init(dramCapacity: Int, flashCapacity: Int, inclusion: Inclusion) {
        self.inclusion = inclusion
        dram = EvictionList(capacity: dramCapacity)
        flash = EvictionList(capacity: flashCapacity)
    }

    /// Blocks in DRAM.
    public var dramResidentCount: Int { dram.residentCount }
    /// Blocks in flash, the copies of what is in DRAM included.
    public var flashResidentCount: Int { flash.residentCount }

    /// The longest leading run of `path` that is in either tier; each of its blocks counts for the highest tier
    /// that has it.
    public func hitRun(_ path: Span<BlockNumber>) -> (dram: Int, flash: Int) {
        var run = (dram: 0, flash: 0)
        for position in path.indices {
            if dram.isResident(path[position]) {
                run.dram += 1
            } else if flash.isResident(path[position]) {
                run.flash += 1
            } else {
                break
            }
        }
        return run
    }

    /// One request's access to its whole path.
    public mutating func access(_ path: Span<BlockNumber>) {
        var position = path.count
        while position > 0 {
            position -= 1
            access(path[position])
        }
    }

    private mutating func access(_ block: BlockNumber) {
        if dram.isResident(block) {
            dram.renew(block)
            if inclusion == .inclusive, flash.isResident(block) { flash.renew(block) }
            return
        }
        if flash.isResident(block) {
            flashReads += 1
            if inclusion == .exclusive { flash.remove(block) }
        } else if inclusion == .inclusive {
            write(block)
        }
        if let victim = dram.insert(block) { demote(victim) }
        // After the victim's copy, so that the promoted block's is the newer of the two. Where flash is full and
        // this copy was its oldest, the victim has just pushed it out.
        if inclusion != .exclusive, flash.isResident(block) { flash.renew(block) }
    }

    /// A block leaves DRAM.
    private mutating func demote(_ victim: BlockNumber) {
        switch inclusion {
        case .exclusive: write(victim)
        case .inclusive: break
        case .keep: if flash.isResident(victim) { flash.renew(victim) } else { write(victim) }
        }
    }

    private mutating func write(_ block: BlockNumber) {
        flashWrites += 1
        _ = flash.insert(block)
    }
}
