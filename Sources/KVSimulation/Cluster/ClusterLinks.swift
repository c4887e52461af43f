// Which links a cluster has, and which of them a move between two tiers crosses.

import KVModel
import KVTiering

/// The links of a cluster by place.
struct ClusterLinks {
    private(set) var links: [Link] = []
    let discipline: LinkDiscipline
    private(set) var nodeOfReplica: [Int] = []
    private var engineBase: [Int] = []
    private let replicas: Int
    private let nodes: Int
    private let servers: Int
    private let stripe: Int
    /// First-byte latencies, nanoseconds.
    let dramLatency: Int64
    let nvmeLatency: Int64
    let flashLatency: Int64
    // Where each kind of link starts in `links`.
    private var toGPU = 0
    private var fromGPU = 0
    private var hostMemory = 0
    private var nicIn = 0
    private var nicOut = 0
    private var nvme = -1
    private var serverIn = -1
    private var serverOut = -1
    private var drives = -1

    /// The links of a scenario; `hostToGPU` is one GPU's rate, bytes a second each way.
    init(_ scenario: Scenario, hostToGPU: Double) {
        let settings = scenario.links
        let tiers = scenario.tiers
        discipline = settings.discipline
        replicas = scenario.replicas
        nodes = scenario.nodes
        servers = tiers.flash.use ? tiers.flash.servers : 0
        stripe = tiers.flash.stripe
        dramLatency = Int64(tiers.dram.latency * 1e9)
        nvmeLatency = Int64(tiers.nvme.latency * 1e9)
        flashLatency = Int64(tiers.flash.latency * 1e9)
        for replica in 0..<replicas { nodeOfReplica.append(replica / scenario.replicasPerNode) }
        for node in 0..<nodes { engineBase.append(node * scenario.replicasPerNode) }
        // The catalogue's figure is what is reached; the line is faster by the efficiency.
        let gpuRate = hostToGPU * Double(scenario.tensorParallel) / settings.efficiency
        toGPU = add("host to GPUs of replica", count: replicas, gpuRate, settings)
        fromGPU = add("GPUs to host of replica", count: replicas, gpuRate, settings)
        hostMemory = add("host memory of node", count: nodes, settings.hostMemory, settings)
        nicIn = add("host NIC in, node", count: nodes, settings.hostNIC, settings)
        nicOut = add("host NIC out, node", count: nodes, settings.hostNIC, settings)
        if tiers.nvme.use {
            nvme = add("local NVMe of node", count: nodes, tiers.nvme.read, write: tiers.nvme.write, settings)
        }
        if servers > 0 {
            serverIn = add("NIC in, store", count: servers, tiers.flash.nic, settings)
            serverOut = add("NIC out, store", count: servers, tiers.flash.nic, settings)
            drives = add("drives of store", count: servers, tiers.flash.read, write: tiers.flash.write, settings)
        }
    }

    private mutating func add(
        _ name: String, count: Int, _ read: Double, write: Double? = nil, _ settings: Scenario.Links
    ) -> Int {
        let first = links.count
        for number in 0..<count {
            links.append(
                Link(
                    name: "\(name) \(number)", lineRate: read, readRate: read * settings.efficiency,
                    writeRate: (write ?? read) * settings.efficiency, discipline: settings.discipline))
        }
        return first
    }

    /// All drives, of nodes and of the store, by place in `links`.
    var driveLinks: [Int] {
        (nvme >= 0 ? Array(nvme..<nvme + nodes) : []) + (drives >= 0 ? Array(drives..<drives + servers) : [])
    }

    /// All NICs, of nodes and of the store, by place in `links`.
    var networkLinks: [Int] {
        let hosts = Array(nicIn..<nicIn + nodes) + Array(nicOut..<nicOut + nodes)
        guard serverIn >= 0 else { return hosts }
        return hosts + Array(serverIn..<serverIn + servers) + Array(serverOut..<serverOut + servers)
    }

    /// The replica that a node's manager calls engine `engine`.
    func replica(node: Int, engine: Int32) -> Int { engineBase[node] + Int(max(0, engine)) }

    /// What a node's manager calls this replica.
    func engine(of replica: Int) -> Int32 { Int32(replica - engineBase[nodeOfReplica[replica]]) }

    /// Host memory, shared by all copies in and out of a node's DRAM.
    func appendHost(of node: Int, bytes: Double, to hops: inout [LinkFabric.Hop]) {
        // Both ways share the memory's bandwidth, and no copy waits for another: both count as reads.
        hops.append(.init(link: Int32(hostMemory + node), bytes: bytes, direction: .read))
    }

    /// The way between a host and the GPUs of a replica: `read` moves up into the GPUs.
    func appendGPU(of replica: Int, bytes: Double, _ direction: Link.Direction, to hops: inout [LinkFabric.Hop]) {
        hops.append(
            .init(link: Int32((direction == .read ? toGPU : fromGPU) + replica), bytes: bytes, direction: .read))
    }

    /// Appends the links that a move crosses, and returns its first-byte latency.
    func append(_ order: TransferOrder, node: Int, bytes: Double, to hops: inout [LinkFabric.Hop]) -> Int64 {
        appendHost(of: node, bytes: bytes, to: &hops)
        var latency = dramLatency
        if order.to == .hbm || order.from == .hbm {
            let replica = replica(node: node, engine: order.engine)
            appendGPU(of: replica, bytes: bytes, order.to == .hbm ? .read : .write, to: &hops)
        }
        if order.from == .nvme || order.to == .nvme {
            hops.append(
                .init(link: Int32(nvme + node), bytes: bytes, direction: order.from == .nvme ? .read : .write))
            latency += nvmeLatency
        }
        if order.from == .flash || order.to == .flash {
            let isRead = order.from == .flash
            hops.append(.init(link: Int32((isRead ? nicIn : nicOut) + node), bytes: bytes, direction: .read))
            // Blocks of one segment lie together; the first key of the transfer stands for its segment.
            let home = Int((order.moves.first?.key.high ?? 0) % UInt64(max(1, servers)))
            for part in 0..<stripe {
                let server = (home + part) % servers
                let share = bytes / Double(stripe)
                hops.append(
                    .init(link: Int32((isRead ? serverOut : serverIn) + server), bytes: share, direction: .read))
                hops.append(.init(link: Int32(drives + server), bytes: share, direction: isRead ? .read : .write))
            }
            latency += flashLatency
        }
        return latency
    }

    /// The paths up to the GPUs of a replica as they look now, for the planner.
    func view(of fabric: LinkFabric, replica: Int, at now: Int64) -> LinkView {
        let node = nodeOfReplica[replica]
        func state(_ indices: [Int], latency: Int64) -> LinkState {
            var rate = Double.infinity
            for index in indices {
                let link = fabric.links[index]
                rate = min(rate, link.readRate / Double(link.activeReads + 1))
            }
            return LinkState(bandwidth: rate, delay: Duration(nanoseconds: latency))
        }
        let dram = state([toGPU + replica, hostMemory + node], latency: dramLatency)
        let local = nvme >= 0 ? state([nvme + node, hostMemory + node], latency: nvmeLatency) : dram
        var shared = dram
        if servers > 0 {
            var rate = 0.0
            var serversSeen = 0
            // What a new transfer gets on average over the servers, cut by the node's own NIC.
            for server in 0..<servers {
                let out = fabric.links[serverOut + server]
                let disk = fabric.links[drives + server]
                rate += min(
                    out.readRate / Double(out.activeReads + 1), disk.readRate / Double(disk.activeReads + 1))
                serversSeen += 1
            }
            rate = rate / Double(serversSeen) * Double(stripe)
            let nic = fabric.links[nicIn + node]
            rate = min(rate, nic.readRate / Double(nic.activeReads + 1))
            shared = LinkState(bandwidth: rate, delay: Duration(nanoseconds: flashLatency))
        }
        return LinkView(dram: dram, nvme: local, flash: shared)
    }
}
