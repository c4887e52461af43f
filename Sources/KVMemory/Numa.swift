// Which part of the machine memory and devices are near to.

import CNuma
import KVModel
import KVSystem

/// The nodes of this machine: processors with memory that is nearer to them than the rest.
public enum Numa {
    /// Nodes that have memory.
    public static var nodes: [Int] {
        (0...Int(hf_numa_node_max())).filter { memory(ofNode: $0) != nil }
    }

    /// All memory of a node and what is free of it, bytes. Nil: there is no such node, or it has none.
    public static func memory(ofNode node: Int) -> (total: Int, free: Int)? {
        var total: Int64 = 0
        var free: Int64 = 0
        guard unsafe hf_numa_node_bytes(Int32(clamping: node), &total, &free) == 0 else { return nil }
        return (Int(total), Int(free))
    }

    /// The node that a network adapter, GPU or drive is attached to, by its folder in sysfs: `/sys/class/infiniband/mlx5_0`,
    /// `/sys/class/net/eth0`, `/sys/bus/pci/devices/0000:3b:00.0`. Nil: the machine does not say, as one of a single node.
    public static func node(ofDevice folder: String) -> Int? {
        let node = unsafe hf_numa_node_of_device(folder)
        return node < 0 ? nil : Int(node)
    }

    /// The node of the page that holds a slice's first byte. The page is faulted in if it must be.
    public static func node(of slice: MemorySlice, in memory: BlockMemory) throws(SystemError) -> Int {
        Int(try checked(unsafe hf_numa_node_of_page(memory[slice].baseAddress!), "find the node of a page"))
    }
}
