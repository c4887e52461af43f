// The families that any sidecar of a KV cache could have, by tier: objects, bytes, requests, times, evictions. Their names carry
// no `agent`, so that a dashboard of several caches can hold them side by side. All of them are other views of counters that the
// agent has anyway.

import KVModel

extension AgentMetrics {
    /// Families with the prefix `holdfast_`, with what they mean.
    public static let tierFamilies: [(name: String, meaning: String)] = [
        ("objects", "Blocks in a tier of this node"), ("bytes", "Bytes of slots in use in a tier of this node"),
        ("capacity_bytes", "Bytes of all slots of a tier of this node"),
        ("requests_total", "Blocks asked of a tier, by operation and result; a look-up asks all of them at once"),
        ("bytes_total", "Bytes that went into a tier and came out of it"),
        ("op_seconds", "How long operations of engines took, whatever tiers they touched"),
        ("evictions_total", "Blocks that left a tier of this node"),
        ("queue_depth", "Pieces of work under way on the paths of a tier"), ("clients", "Engines attached"),
        ("lease_expired_total", "Leases and reservations that ended by their time"),
    ]

    /// The page of these families.
    static func tierPage(_ status: AgentStatus, _ door: EngineDoorView) -> String {
        var page = MetricsPage(prefix: "holdfast_", meanings: Dictionary(uniqueKeysWithValues: tierFamilies.map { $0 }))
        let tiers = (status.hbm.map { [("hbm", $0)] } ?? []) + [("dram", status.dram), ("nvme", status.nvme)]
        let there = tiers.filter { $0.1.totalBytes > 0 }
        func of(_ value: (AgentStatus.Tier) -> Int) -> [(labels: String, value: Double)] {
            there.map { ("tier=\"\($0.0)\"", Double(value($0.1))) }
        }
        page.add("objects", "gauge", of { status.blockBytes > 0 ? $0.usedBytes / status.blockBytes : 0 })
        page.add("bytes", "gauge", of(\.usedBytes))
        page.add("capacity_bytes", "gauge", of(\.totalBytes))
        let hasFlash = status.nvme.totalBytes > 0
        let paths = Path.allCases.filter { path in
            switch path {
            case .outOfEngine, .intoEngine: true
            case .flashRead, .flashWrite: hasFlash
            case .storeGet, .storePut: status.store != nil
            }
        }
        page.add("requests_total", "counter", requests(status, door.counters.engines, paths))
        page.add(
            "bytes_total", "counter",
            paths.map { path in
                let (tier, isIn, word) = side(of: path)
                return ("dir=\"\(isIn ? "in" : "out")\",tier=\"\(tier)\"", total("bytes_\(word)", status))
            })
        let engines = door.counters.engines
        page.add(
            "op_seconds",
            [
                ("op=\"lookup\",tier=\"all\"", engines.lookUpTime), ("op=\"load\",tier=\"all\"", engines.loadTime),
                ("op=\"save\",tier=\"all\"", engines.saveTime), ("op=\"take\",tier=\"all\"", engines.takeTime),
            ])
        page.add(
            "evictions_total", "counter",
            there.map { ("reason=\"capacity\",tier=\"\($0.0)\"", total("\($0.0)_evictions", status)) })
        var depths: [(tier: String, underWay: Int)] = []
        for (path, link) in zip(Path.allCases, status.links) where paths.contains(path) {
            let tier = side(of: path).tier
            if depths.last?.tier == tier {
                depths[depths.count - 1].underWay += link.underWay
            } else {
                depths.append((tier, link.underWay))
            }
        }
        page.add("queue_depth", "gauge", depths.map { ("tier=\"\($0.tier)\"", Double($0.underWay)) })
        page.add("clients", "gauge", Double(door.engines.count))
        page.add("lease_expired_total", "counter", Double(status.handOver["loans_expired_total"] ?? 0))
        return page.text
    }

    private static func total(_ name: String, _ status: AgentStatus) -> Double { Double(status.totals[name] ?? 0) }

    /// The tier that a path ends or begins at, whether blocks go in there, and the path's word in the totals.
    private static func side(of path: Path) -> (tier: String, isIn: Bool, word: String) {
        switch path {
        case .outOfEngine: ("dram", true, "out_of_engine")
        case .intoEngine: ("dram", false, "into_engine")
        case .flashRead: ("nvme", false, "flash_read")
        case .flashWrite: ("nvme", true, "flash_write")
        case .storeGet: ("flash", false, "store_get")
        case .storePut: ("flash", true, "store_put")
        }
    }

    private static func requests(
        _ status: AgentStatus, _ engines: EngineCounters, _ paths: [Path]
    ) -> [(labels: String, value: Double)] {
        let (keys, found) = (engines.keysLookedUp, engines.blocksFound)
        var lines: [(labels: String, value: Double)] = [
            ("op=\"lookup\",tier=\"all\",result=\"hit\"", Double(found)),
            ("op=\"lookup\",tier=\"all\",result=\"miss\"", Double(keys - min(keys, found))),
        ]
        for path in paths {
            let (tier, isIn, word) = side(of: path)
            for (result, count) in [
                ("ok", "blocks"), ("corrupt", "corrupt"), ("failed", "failed"), ("absent", "absent"),
                ("refused", "refused"),
            ] {
                lines.append(
                    (
                        "op=\"\(isIn ? "put" : "get")\",tier=\"\(tier)\",result=\"\(result)\"",
                        total("\(count)_\(word)", status)
                    ))
            }
        }
        return lines
    }
}
