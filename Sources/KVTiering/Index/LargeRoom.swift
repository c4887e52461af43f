// Room for tables of a record a block. It promises that a large table is seldom copied when it grows. What is not used yet
// costs nothing: a page that nobody wrote to does not exist.

import Glibc
import KVModel

/// How large tables take their memory.
enum LargeRoom {
    /// A table of so many bytes is large.
    static let threshold = 1 << 20
    /// A large table grows to so many times its size.
    static let growth = 4
    /// A large page.
    private static let pageBytes = 2 << 20

    /// A line of memory.
    private static let lineBytes = 64

    /// Memory for so many elements from the start of a line, freed by `deallocate`. The kernel is asked for large pages, of which fewer are touched
    /// and looked up; refusal changes nothing but time. Taking the first of them may stop the thread for a while, so this is
    /// for a table whose size is known from the start.
    static func allocate<Element: BitwiseCopyable>(_ count: Int) -> UnsafeMutablePointer<Element> {
        let bytes = count * MemoryLayout<Element>.stride
        let isLarge = bytes >= pageBytes
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: isLarge ? pageBytes : lineBytes)
        if isLarge { _ = unsafe madvise(memory, bytes, Int32(MADV_HUGEPAGE)) }
        return unsafe memory.bindMemory(to: Element.self, capacity: count)
    }
}

extension Array where Element: BitwiseCopyable {
    /// Appends `element` until there are `count`.
    mutating func extend(to count: Int, with element: Element) {
        guard count > self.count else { return }
        makeRoom(for: count)
        append(contentsOf: repeatElement(element, count: count - self.count))
    }

    /// Sees to it that `count` elements have room, if that is much.
    @inline(__always)
    mutating func makeRoom(for count: Int) {
        if count > capacity, count * MemoryLayout<Element>.stride >= LargeRoom.threshold {
            reserveCapacity(count * LargeRoom.growth)
        }
    }
}
