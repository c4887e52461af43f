// What lies in the slots of node memory and of local flash: whose bytes, how many, and the checksum they must have. The
// decisions know slots by number only; offsets and extents begin here.

import KVFlash
import KVModel
import KVSystem

/// What a slot holds.
struct SlotContent {
    var name = ObjectName.none
    var metadata = ObjectMetadata()
    var payloadBytes: Int32 = 0
    /// `BlockChecksum` of name and payload.
    var checksum: UInt64 = 0
    /// Whether somebody has taken it: of what an engine wrote on a device, whoever copies it down first.
    var hasChecksum = true
}

/// The slots of node memory, side by side in one region.
struct MemorySlots {
    /// The memory they lie in.
    let memory: BlockMemory
    /// Bytes from one slot to the next: a multiple of 4 KiB, as drives want it.
    let stride: Int
    private let region: Int32
    private var contents: [SlotContent]

    /// `count` slots at the start of a region.
    init(memory: BlockMemory, region: Int32 = 0, blockBytes: Int, count: Int) {
        self.memory = memory
        self.region = region
        stride = Self.stride(of: blockBytes)
        precondition(unsafe memory.regions[Int(region)].count >= stride * count, "fewer bytes than slots need")
        contents = [SlotContent](repeating: SlotContent(), count: count)
    }

    static func stride(of blockBytes: Int) -> Int { blockBytes.roundedUp(toMultipleOf: 4096) }

    subscript(_ slot: UInt32) -> SlotContent {
        get { contents[Int(slot)] }
        set { contents[Int(slot)] = newValue }
    }

    /// The first `count` bytes of a slot.
    func slice(_ slot: UInt32, _ count: Int) -> MemorySlice {
        precondition(count <= stride, "a payload longer than its slot")
        return MemorySlice(region: region, offset: Int(slot) * stride, count: count)
    }
}

/// The slots of local flash: each has its own extents for ever, so that its bytes are exact and nothing is to be freed.
struct FlashSlots {
    private let extentsPerSlot: Int
    private let extentBytes: Int
    private var contents: [SlotContent]

    /// `count` slots of `extentsPerSlot` extents each, from the drive's first extent on.
    init(count: Int, extentsPerSlot: Int, extentBytes: Int) {
        self.extentsPerSlot = extentsPerSlot
        self.extentBytes = extentBytes
        contents = [SlotContent](repeating: SlotContent(), count: count)
    }

    subscript(_ slot: UInt32) -> SlotContent {
        get { contents[Int(slot)] }
        set { contents[Int(slot)] = newValue }
    }

    /// How many slots there are.
    var count: Int { contents.count }

    /// Where a payload of the slot lies.
    func extents(of slot: UInt32, payloadBytes: Int) -> ExtentList {
        let first = slot * UInt32(extentsPerSlot)
        return ExtentList(first..<first + UInt32((payloadBytes + extentBytes - 1) / extentBytes))
    }
}
