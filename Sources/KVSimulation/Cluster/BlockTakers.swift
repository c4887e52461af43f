// Which replicas were ever given a request with a block, for a router that looks for a prompt's prefix in many caches: all
// others cannot hold it, and are not asked.

import KVModel

/// One word a block: a bit for each replica, or for several in a row where there are more than 64.
struct BlockTakers {
    private var takers: [UInt64]
    private let replicasPerBit: Int
    /// The bits of each replica, then those of each node's replicas.
    private let masks: [UInt64]
    private let replicaCount: Int
    /// How many leading blocks of the path in hand each of them may hold.
    private var reaches: [Int]

    init(blockCount: Int, nodeOfReplica: [Int], nodes: Int) {
        takers = Array(repeating: 0, count: blockCount)
        replicaCount = nodeOfReplica.count
        replicasPerBit = (nodeOfReplica.count + 63) / 64
        var masks = [UInt64](repeating: 0, count: replicaCount + nodes)
        for (replica, node) in nodeOfReplica.enumerated() {
            let bit = UInt64(1) << UInt64(replica / replicasPerBit)
            masks[replica] = bit
            if node < nodes { masks[replicaCount + node] |= bit }
        }
        self.masks = masks
        reaches = Array(repeating: 0, count: masks.count)
    }

    /// A request with this path goes to a replica.
    mutating func add(_ path: Span<BlockNumber>, to replica: Int) {
        let mask = masks[replica]
        var takers = takers.mutableSpan
        for index in path.indices { takers[Int(path[index])] |= mask }
    }

    /// Takes up the path that is asked about.
    mutating func follow(_ path: Span<BlockNumber>) {
        for place in reaches.indices { reaches[place] = path.count }
        var before = UInt64.max
        for depth in path.indices {
            let here = takers[Int(path[depth])]
            // A path's takers change a few times on its way down.
            if here == before { continue }
            for place in reaches.indices where here & masks[place] == 0 { reaches[place] = min(reaches[place], depth) }
            if here == 0 { return }
            before = here
        }
    }

    /// How many leading blocks of the path in hand a replica may hold.
    func reach(ofReplica replica: Int) -> Int { reaches[replica] }

    /// How many leading blocks of the path in hand a node's own tiers may hold.
    func reach(ofNode node: Int) -> Int { reaches[replicaCount + node] }
}
