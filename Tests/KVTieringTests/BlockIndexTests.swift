// The block index against a dictionary, and the promises about its memory and numbers.

import KVModel
import KVTiering
import Testing

@Suite struct BlockIndexTests {
    /// Keys whose hashes collide in every way: few distinct low words, all ones and all zeros among them.
    private func key(_ draw: Int, crowded: Bool) -> BlockKey {
        if !crowded { return BlockKey(traceBlock: UInt64(draw)) }
        let low: UInt64 = [0, .max, 0xFFFF_FFFF, 0x8000_0000, UInt64(draw % 7)][draw % 5]
        return BlockKey(high: UInt64(draw), low: low)
    }

    /// With room for none, for fewer and for more than come.
    @Test(arguments: [false, true], [0, 5000, 100_000])
    func agreesWithADictionary(crowded: Bool, expectedCount: Int) {
        var index = BlockIndex(expectedCount: expectedCount)
        var model: [BlockKey: (number: BlockNumber, location: UInt64)] = [:]
        var source = RandomSource(seed: crowded ? 5 : 6)
        // Rises to some ten thousand entries and falls again, twice.
        for step in 0..<200_000 {
            let rising = step / 50_000 % 2 == 0
            let key = key(source.below(crowded ? 600 : 40_000), crowded: crowded)
            switch source.below(10) {
            case 0..<(rising ? 6 : 2):
                let known = model[key]
                let (number, isNew) = index.insert(key)
                #expect(isNew == (known == nil))
                if let known {
                    #expect(number == known.number)
                } else {
                    #expect(index[location: number] == 0)
                    model[key] = (number, 0)
                }
            case (rising ? 6 : 2)..<8:
                guard let known = model[key] else { continue }
                if source.below(3) == 0 {
                    index[location: known.number] = UInt64(step)
                    model[key]!.location = UInt64(step)
                } else {
                    index.remove(known.number)
                    model[key] = nil
                }
            default:
                #expect(index.find(key) == model[key]?.number)
            }
            #expect(index.count == model.count)
        }
        #expect(Set(model.values.map(\.number)).count == model.count, "two blocks share a number")
        for (key, known) in model {
            #expect(index.find(key) == known.number)
            #expect(index.key(of: known.number) == key)
            #expect(index[location: known.number] == known.location)
        }
    }

    @Test func numbersStayDense() {
        var index = BlockIndex()
        for round in 0..<50 {
            for number in 0..<1000 { #expect(index.insert(BlockKey(traceBlock: UInt64(round * 1000 + number))).isNew) }
            #expect(index.numberLimit == 1000)
            for number in 0..<1000 { index.remove(BlockNumber(number)) }
            #expect(index.count == 0)
        }
    }

    @Test func longestRunStopsAtTheFirstUnknownKey() {
        var index = BlockIndex()
        for number in 0..<5000 { _ = index.insert(BlockKey(traceBlock: UInt64(number))) }
        var source = RandomSource(seed: 9)
        for _ in 0..<500 {
            let length = source.below(120)
            var chain = (0..<length).map { _ in BlockKey(traceBlock: UInt64(source.below(5000))) }
            var expected = length
            for _ in 0..<source.below(3) where length > 0 {
                let gap = source.below(length)
                chain[gap] = BlockKey(traceBlock: UInt64(5000 + source.below(1000)))
                expected = min(expected, gap)
            }
            var numbers: [BlockNumber] = [77]
            #expect(index.longestRun(chain.span, into: &numbers) == expected)
            #expect(Array(numbers.dropFirst()) == chain.prefix(expected).map { index.find($0)! })
        }
    }

    @Test func aChainIsInsertedAsItsKeysAre() {
        var index = BlockIndex()
        var model = BlockIndex()
        var source = RandomSource(seed: 10)
        for _ in 0..<500 {
            let chain = (0..<source.below(60)).map { _ in BlockKey(traceBlock: UInt64(source.below(6000))) }
            var numbers: [BlockNumber] = [77]
            index.insert(chain.span, into: &numbers)
            #expect(Array(numbers.dropFirst()) == chain.map { model.insert($0).number })
        }
        #expect(index.count == model.count)
    }

    @Test func whatStandsInASecondGroupIsFoundUntilItIsRemoved() {
        // Twelve keys of one hash in a table of nothing else: eight stand in their first group, four in their second.
        var index = BlockIndex()
        let all = mixBits(0x9E37_79B9_7F4A_7C15)
        let keys = (UInt64(0)..<12).map { BlockKey(high: all ^ Self.lastPlace($0), low: 1) }
        for key in keys { _ = index.insert(key) }
        #expect(index.crowdedCount == 0)
        // Whatever leaves first, the others stay found.
        for order in [Array(0..<12), Array((0..<12).reversed()), [8, 0, 9, 1, 10, 2, 11, 3, 4, 5, 6, 7]] {
            for (step, place) in order.enumerated() {
                index.remove(index.find(keys[place])!)
                for other in order[...step] { #expect(index.find(keys[other]) == nil) }
                for other in order[(step + 1)...] { #expect(index.find(keys[other]) != nil) }
            }
            for key in keys { _ = index.insert(key) }
        }
    }

    @Test func oneHashForAThousandKeysIsOnlySlow() {
        // All share one hash: sixteen have places, and the segment must not grow for ever for the others.
        var index = BlockIndex()
        let all = mixBits(0x9E37_79B9_7F4A_7C15)
        func key(_ number: UInt64) -> BlockKey { BlockKey(high: all ^ Self.lastPlace(number), low: 1) }
        for number in UInt64(0)..<1000 { #expect(index.insert(key(number)).isNew) }
        #expect(index.crowdedCount == 1000 - 16)
        #expect(index.byteCount < 100_000)
        for number in UInt64(0)..<1000 { #expect(index.find(key(number)) != nil) }
        #expect(index.find(key(1000)) == nil)
        for number in BlockNumber(0)..<1000 { index.remove(number) }
        #expect(index.crowdedCount == 0)
        #expect(index.find(key(0)) == nil)
    }

    @Test func keysChosenForOneSegmentFindPlacesInIt() {
        // The last four bits of all hashes are the same, so one segment of many grows to thousands of groups, and is split
        // in two of as many.
        var index = BlockIndex()
        let all = mixBits(0x9E37_79B9_7F4A_7C15)
        func key(_ number: UInt64) -> BlockKey {
            BlockKey(high: all ^ Self.word(hashedTo: (number &* 0x9E3_779B & 0xFFF_FFFF) << 4 | 5), low: 1)
        }
        for number in UInt64(0)..<30_000 { #expect(index.insert(key(number)).isNew) }
        #expect(index.crowdedCount == 0)
        #expect(index.byteCount / 30_000 < 48)
        for number in UInt64(0)..<30_000 { #expect(index.find(key(number)) == BlockNumber(number)) }
        #expect(index.find(key(30_000)) == nil)
        for number in BlockNumber(0)..<30_000 { index.remove(number) }
        for number in UInt64(0)..<30_000 { #expect(index.find(key(number)) == nil) }
    }

    /// One of the words whose product with the golden ratio begins with these 32 bits: what a table without a seed hashes to
    /// them.
    private static func word(hashedTo hash: UInt64, _ number: UInt64 = 0) -> UInt64 {
        let inverse: UInt64 = 0xF1DE_83E1_9937_733D
        return (hash << 32 | number) &* inverse
    }

    /// One of many words hashed to the last place.
    private static func lastPlace(_ number: UInt64) -> UInt64 { word(hashedTo: 0xFFFF_FFFF, number) }

    @Test func keysThatDifferInOneHalfOnlyFindPlacesOfTheirOwn() {
        let patterns: [(UInt64) -> BlockKey] = [
            { BlockKey(high: $0, low: 0) }, { BlockKey(high: 0, low: $0) }, { BlockKey(high: mixBits($0), low: 7) },
            { BlockKey(high: 7, low: $0 << 40) }, { BlockKey(high: $0, low: $0) },
            { BlockKey(high: mixBits(0x9E37_79B9_7F4A_7C15) ^ Self.lastPlace($0), low: 1) },
        ]
        for (number, key) in patterns.enumerated() {
            var index = BlockIndex(hashSeed: 0xC0FF_EE00_5EED)
            for block in UInt64(0)..<20_000 { _ = index.insert(key(block)) }
            #expect(index.crowdedCount == 0, "pattern \(number)")
            // Hashes that gather would make segments grow that are half empty.
            #expect(index.byteCount / 20_000 < 48, "pattern \(number)")
        }
    }

    @Test(arguments: [10_000, 30_000, 100_000, 1_000_000])
    func anEntryTakesAtMost48BytesWithItsLinks(count: Int) {
        var index = BlockIndex()
        for number in 0..<count { _ = index.insert(BlockKey(traceBlock: UInt64(number))) }
        let links = 8
        #expect(index.byteCount / count + links <= 48)
        #expect(index.crowdedCount == 0)
    }

    @Test func roomThatWasAskedForIsTakenOnce() {
        var index = BlockIndex(expectedCount: 200_000)
        let bytes = index.byteCount
        for number in 0..<200_000 { _ = index.insert(BlockKey(traceBlock: UInt64(number))) }
        #expect(index.byteCount == bytes)
        #expect(index.crowdedCount == 0)
        for number in 200_000..<400_000 { _ = index.insert(BlockKey(traceBlock: UInt64(number))) }
        for number in 0..<400_000 { #expect(index.find(BlockKey(traceBlock: UInt64(number))) != nil) }
    }

    @Test func removalsLeaveNothingBehind() {
        // A table that was filled and emptied many times takes no more memory than one that was filled once.
        var index = BlockIndex()
        var source = RandomSource(seed: 12)
        for number in 0..<20_000 { _ = index.insert(BlockKey(traceBlock: UInt64(number))) }
        let bytes = index.byteCount
        var next = UInt64(20_000)
        for _ in 0..<400_000 {
            index.remove(BlockNumber(source.below(20_000)))
            _ = index.insert(BlockKey(traceBlock: next))
            next += 1
        }
        #expect(index.count == 20_000)
        #expect(index.numberLimit == 20_000)
        #expect(index.byteCount < bytes + bytes / 4)
        #expect(index.crowdedCount == 0)
    }
}
