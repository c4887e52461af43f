// Memory for blocks, and the words for a failed call.

import Glibc
import KVModel
import KVSystem
import Synchronization
import Testing

@Suite struct MemoryTests {
    @Test(arguments: [1, 4096, 4097, 2 << 20, (2 << 20) + 1, 5_000_000], [false, true])
    func pagesAreAlignedZeroAndAsManyAsAskedFor(byteCount: Int, wantsHugePages: Bool) throws {
        let pages = try PageMemory(byteCount: byteCount, wantsHugePages: wantsHugePages)
        let bytes = unsafe pages.bytes
        #expect(bytes.count >= byteCount)
        #expect(bytes.count % pages.pageBytes == 0)
        let start = Int(bitPattern: bytes.baseAddress!)
        #expect(start % pages.pageBytes == 0)
        let ends = unsafe (bytes[0], bytes[byteCount - 1])
        #expect(ends == (0, 0))
        unsafe bytes[byteCount - 1] = 7
        let written = unsafe bytes[byteCount - 1]
        #expect(written == 7)
        withExtendedLifetime(pages) {}
    }

    @Test func moreMemoryThanAnAddressSpaceHasIsRefusedInWords() {
        #expect(throws: SystemError(number: ENOMEM, doing: "map \(1 << 60) bytes of memory")) {
            _ = try PageMemory(byteCount: 1 << 60)
        }
    }

    @Test func aSliceIsItsPartOfItsRegion() throws {
        let memory = try BlockMemory(byteCount: 10_000)
        let slice = MemorySlice(offset: 4096, count: 100)
        let (region, part, prefix) = unsafe (memory.regions[0], memory[slice], memory[slice.prefix(7)])
        #expect(region.count == 10_000)
        #expect(part.count == 100)
        #expect(prefix.count == 7)
        unsafe part[99] = 42
        let seen = unsafe region[4195]
        #expect(seen == 42)
        withExtendedLifetime(memory) {}
    }

    @Test func whoeverOwnsTheRegionsIsToldOnceWhenNobodyUsesThem() {
        let told = Tally()
        let region = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 64)
        defer { unsafe region.deallocate() }
        var users = [unsafe BlockMemory(regions: [region], release: { told.add() })]
        users.append(users[0])
        users.removeLast()
        #expect(told.count == 0)
        users.removeLast()
        #expect(told.count == 1)
    }

    @Test func aFailedCallIsToldInWords() throws {
        #expect(throws: SystemError(number: ENOSPC, doing: "write a block")) {
            _ = try checked(Int32(-ENOSPC), "write a block")
        }
        let refused = SystemError(number: EACCES, doing: "open drive 3")
        #expect(refused.description == "cannot open drive 3: Permission denied")
        let count = try checked(Int64(17), "count")
        #expect(count == 17)
    }
}

/// Counts how often something happened.
private final class Tally: Sendable {
    private let value = Mutex(0)
    var count: Int { value.withLock { $0 } }
    func add() { value.withLock { $0 += 1 } }
}
