// The memory tier as numbers: which buffers are lent to requests, and which hold a copy of an object that the next
// reader can have without the drive.

import KVFlash
import KVModel
import KVSystem

/// Buffers of one or more frames, each frame an extent long, side by side.
///
/// A buffer is lent while it has users; without users it is either free or the clean copy of an object, in the order of
/// last use. The oldest copies make room for new buffers.
struct BufferTable {
    let frameBytes: Int
    let frameCount: Int
    /// Buffers that somebody uses now, in frames.
    private(set) var lentFrames = 0

    private struct Frame {
        /// The object whose copy this is, or `none`.
        var object = ObjectRecord.none
        var frames: UInt32 = 0
        var users: UInt32 = 0
        var older: UInt32 = 0
        var newer: UInt32 = 0
    }

    /// The frame after the last is the head of the list: its `newer` is the oldest copy.
    private var frames: [Frame]
    private var free: ExtentAllocator
    private var copies: [UInt32: UInt32] = [:]
    private var head: UInt32 { UInt32(frameCount) }

    init(byteCount: Int, frameBytes: Int) {
        self.frameBytes = frameBytes
        frameCount = byteCount / frameBytes
        precondition(frameCount > 0, "a memory tier without room for one extent")
        frames = Array(repeating: Frame(), count: frameCount + 1)
        frames[frameCount].older = UInt32(frameCount)
        frames[frameCount].newer = UInt32(frameCount)
        free = ExtentAllocator(count: frameCount)
        copies.reserveCapacity(frameCount)
    }

    /// Buffers that are neither lent nor copies, in frames.
    var freeFrames: Int { free.freeCount }
    /// Copies of objects.
    var copyCount: Int { copies.count }

    /// How many frames so many bytes take.
    func frameCount(for bytes: Int) -> Int { max(1, (bytes + frameBytes - 1) / frameBytes) }

    /// The first bytes of a buffer.
    func slice(_ buffer: UInt32, _ byteCount: Int) -> MemorySlice {
        MemorySlice(offset: Int(buffer) * frameBytes, count: byteCount)
    }

    /// A buffer with one user; copies leave for it as needed. Nil when too much is lent.
    mutating func take(_ count: Int) -> UInt32? {
        guard count <= min(frameCount - lentFrames, ExtentList.countMax) else { return nil }
        while true {
            if let list = free.reserve(count) {
                if Int(list[count - 1]) == Int(list[0]) + count - 1 {
                    let buffer = list[0]
                    frames[Int(buffer)] = Frame(frames: UInt32(count), users: 1)
                    lentFrames += count
                    return buffer
                }
                free.release(list)
            }
            let oldest = frames[frameCount].newer
            guard oldest != head else { return nil }
            drop(oldest)
        }
    }

    /// The copy of an object.
    func copy(of object: UInt32) -> UInt32? { copies[object] }

    /// One more user.
    mutating func retain(_ buffer: UInt32) {
        if frames[Int(buffer)].users == 0 {
            unlink(buffer)
            lentFrames += Int(frames[Int(buffer)].frames)
        }
        frames[Int(buffer)].users += 1
    }

    /// One user less. Without users a copy goes to the newest end, anything else is free.
    mutating func release(_ buffer: UInt32) {
        precondition(frames[Int(buffer)].users > 0, "a buffer is given back that nobody uses")
        frames[Int(buffer)].users -= 1
        guard frames[Int(buffer)].users == 0 else { return }
        lentFrames -= Int(frames[Int(buffer)].frames)
        if frames[Int(buffer)].object == ObjectRecord.none { giveBack(buffer) } else { linkNewest(buffer) }
    }

    /// A lent buffer holds the object's payload from now on, for readers to come.
    mutating func becomeCopy(_ buffer: UInt32, of object: UInt32) {
        precondition(frames[Int(buffer)].users > 0, "a buffer that nobody filled becomes a copy")
        precondition(copies[object] == nil, "an object has two copies in memory")
        frames[Int(buffer)].object = object
        copies[object] = buffer
    }

    /// The object is gone, or its copy is not trusted; users of it keep the buffer until they are done.
    mutating func forget(_ object: UInt32) {
        guard let buffer = copies[object] else { return }
        if frames[Int(buffer)].users == 0 {
            drop(buffer)
        } else {
            copies[object] = nil
            frames[Int(buffer)].object = ObjectRecord.none
        }
    }

    private mutating func drop(_ buffer: UInt32) {
        copies[frames[Int(buffer)].object] = nil
        unlink(buffer)
        giveBack(buffer)
    }

    private mutating func giveBack(_ buffer: UInt32) {
        for frame in buffer..<(buffer + frames[Int(buffer)].frames) { free.release(frame) }
        frames[Int(buffer)] = Frame()
    }

    private mutating func linkNewest(_ buffer: UInt32) {
        let newest = frames[frameCount].older
        frames[Int(buffer)].older = newest
        frames[Int(buffer)].newer = head
        frames[Int(newest)].newer = buffer
        frames[frameCount].older = buffer
    }

    private mutating func unlink(_ buffer: UInt32) {
        let frame = frames[Int(buffer)]
        frames[Int(frame.older)].newer = frame.newer
        frames[Int(frame.newer)].older = frame.older
    }
}
