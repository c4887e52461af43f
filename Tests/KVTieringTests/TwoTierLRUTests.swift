// DRAM over flash against the three modes written on plain arrays.

import KVModel
import KVTiering
import Testing

/// Both tiers as arrays, least recent first.
struct NaiveTwoTiers {
    let dramCapacity: Int
    let flashCapacity: Int
    let inclusion: Inclusion
    var dram: [BlockNumber] = []
    var flash: [BlockNumber] = []
    var writes = 0
    var reads = 0

    mutating func access(_ block: BlockNumber) {
        if let place = dram.firstIndex(of: block) {
            dram.append(dram.remove(at: place))
            if inclusion == .inclusive { renewInFlash(block) }
            return
        }
        if flash.contains(block) {
            reads += 1
            if inclusion == .exclusive { flash.removeAll { $0 == block } }
        } else if inclusion == .inclusive {
            write(block)
        }
        if dram.count == dramCapacity {
            let victim = dram.removeFirst()
            if inclusion == .exclusive { write(victim) }
            if inclusion == .keep { if flash.contains(victim) { renewInFlash(victim) } else { write(victim) } }
        }
        dram.append(block)
        if inclusion != .exclusive { renewInFlash(block) }
    }

    mutating func renewInFlash(_ block: BlockNumber) {
        if let place = flash.firstIndex(of: block) { flash.append(flash.remove(at: place)) }
    }

    mutating func write(_ block: BlockNumber) {
        writes += 1
        if flash.count == flashCapacity { flash.removeFirst() }
        flash.append(block)
    }
}

@Suite struct TwoTierLRUTests {
    @Test(arguments: Inclusion.allCases)
    func bothTiersHoldWhatTheNaiveOnesHold(_ inclusion: Inclusion) {
        for seed in UInt64(1)...60 {
            var source = RandomSource(seed: seed)
            let (dram, flash) = (1 + source.below(12), 1 + source.below(40))
            var tiers = TwoTierLRU(dramCapacity: dram, flashCapacity: flash, inclusion: inclusion)
            var naive = NaiveTwoTiers(dramCapacity: dram, flashCapacity: flash, inclusion: inclusion)
            for path in randomPaths(requests: 200, longest: 25, source: &source) {
                let run = path.prefix { naive.dram.contains($0) || naive.flash.contains($0) }
                let inDRAM = run.filter { naive.dram.contains($0) }.count
                #expect(tiers.hitRun(path.span) == (inDRAM, run.count - inDRAM), "seed \(seed)")
                tiers.access(path.span)
                for block in path.reversed() { naive.access(block) }
                #expect(tiers.flashWrites == naive.writes)
                #expect(tiers.flashReads == naive.reads)
                #expect(tiers.dramResidentCount == naive.dram.count)
                #expect(tiers.flashResidentCount == naive.flash.count)
            }
        }
    }

    @Test func inclusiveFlashReadsNothingItDoesNotHold() {
        // Flash no larger than DRAM can serve nothing that DRAM does not: every new block passes both.
        var tiers = TwoTierLRU(dramCapacity: 4, flashCapacity: 4, inclusion: .inclusive)
        var source = RandomSource(seed: 3)
        for path in randomPaths(requests: 300, longest: 10, source: &source) {
            #expect(tiers.hitRun(path.span).flash == 0)
            tiers.access(path.span)
        }
        #expect(tiers.flashReads == 0)
    }
}
