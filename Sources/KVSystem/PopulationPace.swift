// Memory brought in beforehand, a little at a time, while others in the process work. It knows nothing of what the memory is for.

import CKernel
import Glibc
import KVModel

/// How much memory is brought in at a time, and how long the others have before the next piece.
///
/// The kernel holds a lock of the whole process while it brings pages in. Whoever needs address space meanwhile waits: a heap
/// that grows (`mprotect`), a file that is mapped. Pieces of 64 MiB of 4 KiB pages made look-ups at an agent take up to
/// 0.4 s on a virtual machine that got its own pages from its host as they were touched. A lock that is taken again at once is
/// taken from under those who were just woken for it, so there is a rest between two pieces.
public struct PopulationPace: Sendable, Equatable {
    /// Bytes of the first piece, and of the least.
    public static let pieceBytesMin = 64 << 10
    /// Bytes of the largest piece. Pages that came quickly say little about the next, which may take thirty times as long.
    public static let pieceBytesMax = 1 << 20
    /// How long a piece may take.
    public static let turn = Duration(nanoseconds: 200_000)
    /// How long the others have at least, and at most: a piece that took longer was kept waiting itself.
    public static let rests = Duration(nanoseconds: 50_000)...Duration(milliseconds: 1)

    /// Bytes of the next piece.
    public private(set) var pieceBytes = Self.pieceBytesMin

    /// The pace of memory of which nothing is known.
    public init() {}

    /// The next piece is larger after a quick one and smaller after a slow one.
    ///
    /// - Parameter took: How long the last piece took.
    /// - Returns: How long to rest: half of the time belongs to others.
    public mutating func rest(after took: Duration) -> Duration {
        if took > Self.turn {
            pieceBytes = max(Self.pieceBytesMin, pieceBytes / 2)
        } else if took + took < Self.turn {
            pieceBytes = min(Self.pieceBytesMax, pieceBytes * 2)
        }
        return min(max(took, Self.rests.lowerBound), Self.rests.upperBound)
    }
}

extension BlockMemory {
    /// Has the kernel bring in the pages of a slice that nobody has touched yet, from its start to its end. No byte changes,
    /// and others may use the slice meanwhile.
    ///
    /// - Parameter isWanted: Asked before each piece.
    /// - Returns: Whether it was wanted to the end.
    /// - Throws: What the machine has no pages for; those before are there.
    @discardableResult
    public func populate(
        _ slice: MemorySlice, at pace: inout PopulationPace, while isWanted: () -> Bool = { true }
    ) throws(SystemError) -> Bool {
        let bytes = unsafe self[slice]
        var done = 0
        while done < slice.count {
            guard isWanted() else { return false }
            let count = min(pace.pieceBytes, slice.count - done)
            let began = MonotonicClock.now
            _ = try checked(
                unsafe hf_populate(bytes.baseAddress! + done, count), "get the pages of \(count) bytes more")
            done += count
            usleep(UInt32(pace.rest(after: MonotonicClock.now - began).nanoseconds / 1_000))
        }
        return true
    }
}
