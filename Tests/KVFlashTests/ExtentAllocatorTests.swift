// The allocator against a plain array of flags.

import KVFlash
import KVModel
import Testing

@Suite struct ExtentAllocatorTests {
    @Test(arguments: [1, 63, 64, 65, 1000, 4097, 300_000])
    func itAgreesWithAnArrayOfFlags(count: Int) {
        var allocator = ExtentAllocator(count: count)
        var flags = [Bool](repeating: true, count: count)
        var held: [ExtentList] = []
        var source = RandomSource(seed: UInt64(count))
        for _ in 0..<3000 {
            // Fills up and empties in turn.
            if source.below(held.count > 40 ? 5 : 2) != 0, let index = held.indices.randomElement(using: &source) {
                let list = held.remove(at: index)
                for place in 0..<list.count { flags[Int(list[place])] = true }
                allocator.release(list)
            } else {
                let wanted = 1 + source.below(min(64, 1 + count / 8))
                guard let list = allocator.reserve(wanted) else {
                    #expect(flags.count(where: { $0 }) < wanted)
                    continue
                }
                #expect(list.count == wanted)
                for place in 0..<list.count {
                    #expect(flags[Int(list[place])])
                    flags[Int(list[place])] = false
                }
                held.append(list)
            }
            if count < 5000 { #expect(allocator.freeCount == flags.count(where: { $0 })) }
        }
        for extent in 0..<count where allocator.isFree(UInt32(extent)) != flags[extent] {
            Issue.record("extent \(extent) differs")
        }
    }

    @Test func everyExtentCanBeReservedOnceAndNoneTwice() {
        var allocator = ExtentAllocator(count: 777)
        var seen: Set<UInt32> = []
        while let list = allocator.reserve(1) { #expect(seen.insert(list[0]).inserted) }
        #expect(seen.count == 777)
        #expect(allocator.freeCount == 0)
    }

    @Test func neighboursAreReservedTogetherWhereARunIsLeft() {
        var allocator = ExtentAllocator(count: 256)
        var held: [ExtentList] = []
        while let list = allocator.reserve(1) { held.append(list) }
        for extent in stride(from: 0, to: 20, by: 2) { allocator.release(UInt32(extent)) }
        // Across the border of two words.
        for extent in 120..<136 { allocator.release(UInt32(extent)) }
        let run = allocator.reserve(16)
        #expect(run == ExtentList(120..<136))
        let scattered = allocator.reserve(3)
        #expect(scattered?.count == 3)
    }

    @Test func aClaimIsWholeOrNothing() {
        var allocator = ExtentAllocator(count: 100)
        let first = allocator.claim(ExtentList([5, 90, 6]))
        let second = allocator.claim(ExtentList([7, 90]))
        #expect(first)
        #expect(!second)
        #expect(allocator.isFree(7))
        #expect(allocator.freeCount == 97)
    }

    @Test func itTakesABitAnExtent() {
        #expect(ExtentAllocator(count: 1_000_000).byteCount < 1_000_000 / 8 * 102 / 100)
    }
}
