// The devices of one simulated node: slots with content, readers and writers, and paths that are busy until a moment.

import KVModel
import KVTiering

/// What lies in a slot.
struct SlotContent: Equatable {
    var key: BlockKey
    /// Whether the bytes are the key's. A receiver notices; the decisions cannot.
    var isIntact: Bool
}

/// One slot of a tier.
struct DeviceSlot {
    var content: SlotContent?
    var readers = 0
    var writers = 0
}

/// The slots and paths of one node.
struct NodeDevices {
    /// Rises when the node's agent dies.
    var life: UInt32 = 0
    var device: [DeviceSlot]
    var dram: [DeviceSlot]
    var nvme: [DeviceSlot]
    /// Transfers in flight, by the number the node's agent gave them.
    var flights: [TransferNumber: Int] = [:]
    /// Keys for which the store holds a place because this node said it would write them.
    var promised: Set<BlockKey> = []
    // When each path is free: engine in and out, local flash reads and writes, the store's way in and out.
    private var busy = [Int64](repeating: 0, count: 6)

    init(_ shape: SimulationShape) {
        device = Array(repeating: DeviceSlot(), count: shape.deviceBlocks)
        dram = Array(repeating: DeviceSlot(), count: shape.dramBlocks)
        nvme = Array(repeating: DeviceSlot(), count: shape.nvmeBlocks)
    }

    /// When a path is free.
    func busyUntil(_ tier: Tier, reads: Bool) -> Int64 { busy[place(tier, reads)] }

    mutating func occupy(_ tier: Tier, reads: Bool, until moment: Int64) { busy[place(tier, reads)] = moment }

    private func place(_ tier: Tier, _ reads: Bool) -> Int {
        (tier == .flash ? 4 : tier == .nvme ? 2 : 0) + (reads ? 0 : 1)
    }

    /// A slot, or nil where the tier has none of that number.
    func slot(_ tier: Tier, _ index: SlotIndex) -> DeviceSlot? {
        let slots = tier == .hbm ? device : tier == .dram ? dram : nvme
        return slots.indices.contains(Int(index)) ? slots[Int(index)] : nil
    }

    mutating func change(_ tier: Tier, _ index: SlotIndex, _ body: (inout DeviceSlot) -> Void) {
        if tier == .hbm {
            if device.indices.contains(Int(index)) { body(&device[Int(index)]) }
        } else if tier == .dram {
            if dram.indices.contains(Int(index)) { body(&dram[Int(index)]) }
        } else if nvme.indices.contains(Int(index)) {
            body(&nvme[Int(index)])
        }
    }
}
