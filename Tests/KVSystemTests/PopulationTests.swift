// Memory is brought in a little at a time: no piece is long, nothing is left out, and the others have their turn between two pieces.

import Glibc
import KVModel
import KVSystem
import Testing

@Suite struct PopulationTests {
    private let quick = Duration(nanoseconds: 1_000)
    private let slow = Duration(milliseconds: 3)

    @Test func piecesGrowWhileTheyAreQuickAndNeverBeyondOneMebibyte() {
        var pace = PopulationPace()
        var sizes = [pace.pieceBytes]
        for _ in 0..<6 {
            _ = pace.rest(after: quick)
            sizes.append(pace.pieceBytes)
        }
        #expect(sizes == [64, 128, 256, 512, 1024, 1024, 1024].map { $0 << 10 })
    }

    @Test func aSlowPieceHalvesTheNextAndNoneIsTooSmallToComeForward() {
        var pace = PopulationPace()
        for _ in 0..<6 { _ = pace.rest(after: quick) }
        var sizes: [Int] = []
        for _ in 0..<6 {
            _ = pace.rest(after: slow)
            sizes.append(pace.pieceBytes)
        }
        #expect(sizes == [512, 256, 128, 64, 64, 64].map { $0 << 10 })
    }

    @Test func aPieceOfTheRightLengthIsFollowedByOneOfItsSize() {
        var pace = PopulationPace()
        _ = pace.rest(after: quick)
        for took in [PopulationPace.turn, Duration(nanoseconds: PopulationPace.turn.nanoseconds / 2)] {
            _ = pace.rest(after: took)
            #expect(pace.pieceBytes == 128 << 10)
        }
    }

    @Test func theOthersHaveAsLongAsThePieceTookWithinBounds() {
        var pace = PopulationPace()
        #expect(pace.rest(after: .zero) == PopulationPace.rests.lowerBound)
        #expect(pace.rest(after: Duration(nanoseconds: 170_000)) == Duration(nanoseconds: 170_000))
        #expect(pace.rest(after: Duration(seconds: 1)) == PopulationPace.rests.upperBound)
        #expect(PopulationPace.rests.lowerBound > .zero)
    }

    @Test func everyPageIsBroughtInAndNoByteChanges() throws {
        let memory = try BlockMemory(byteCount: (5 << 20) + 12_288, wantsHugePages: false)
        let bytes = unsafe memory.regions[0]
        unsafe bytes[3 << 20] = 42
        var pace = PopulationPace()
        #expect(try memory.populate(MemorySlice(offset: 0, count: bytes.count), at: &pace))
        #expect(resident(memory) == Array(stride(from: 0, to: bytes.count, by: 4096)))
        let (byte, sum) = unsafe (bytes[3 << 20], bytes.reduce(0) { $0 + Int($1) })
        #expect(byte == 42)
        #expect(sum == 42)
    }

    /// Whoever waits for the process' lock gets it between two pieces, of which none is larger than it may be.
    @Test func beforeEachPieceItIsAskedWhetherItIsWanted() throws {
        let memory = try BlockMemory(byteCount: 8 << 20, wantsHugePages: false)
        let whole = MemorySlice(offset: 0, count: 8 << 20)
        for turns in [0, 1, 2, 5, 1_000] {
            var pace = PopulationPace()
            var asked = 0
            let isWhole = try memory.populate(whole, at: &pace) {
                asked += 1
                return asked <= turns
            }
            #expect(isWhole == (turns == 1_000))
            #expect(isWhole ? asked >= whole.count / PopulationPace.pieceBytesMax : asked == turns + 1)
        }
    }

    /// Offsets of the pages that are there.
    private func resident(_ memory: BlockMemory) -> [Int] {
        let bytes = unsafe memory.regions[0]
        var pages = [UInt8](repeating: 0, count: (bytes.count + 4095) / 4096)
        let result = unsafe mincore(bytes.baseAddress!, bytes.count, &pages)
        #expect(result == 0)
        return pages.indices.filter { pages[$0] & 1 == 1 }.map { $0 * 4096 }
    }
}
