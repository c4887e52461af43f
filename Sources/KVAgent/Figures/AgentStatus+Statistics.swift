// What an engine hears of its agent when it asks: a few of the agent's figures, by names as metrics spell them.

import KVModel

extension AgentStatus {
    /// The figures for an engine. `engines` are attached, whose blocks have so many bytes and tokens.
    func statistics(engines: Int, blockBytes: Int, blockTokens: Int32) -> [EngineStatistic] {
        let tiers = (hbm.map { [("hbm", $0)] } ?? []) + [("dram", dram), ("nvme", nvme)]
        var numbers = tiers.flatMap { name, tier in
            [
                EngineStatistic("\(name)_bytes", UInt64(clamping: tier.totalBytes)),
                EngineStatistic("\(name)_used_bytes", UInt64(clamping: tier.usedBytes)),
            ]
        }
        numbers.append(EngineStatistic("engines", UInt64(engines)))
        numbers.append(EngineStatistic("block_payload_bytes", UInt64(clamping: blockBytes)))
        numbers.append(EngineStatistic("block_tokens", UInt64(clamping: blockTokens)))
        for (name, value) in handOver.sorted(by: { $0.key < $1.key }) {
            numbers.append(EngineStatistic("handover_\(name)", UInt64(clamping: value)))
        }
        numbers.append(EngineStatistic("handover_loaned_bytes", UInt64(clamping: loanedBytes)))
        numbers.append(EngineStatistic("handover_reserved_bytes", UInt64(clamping: reservedBytes)))
        for (name, value) in totals.sorted(by: { $0.key < $1.key }) {
            numbers.append(EngineStatistic("\(name)_total", UInt64(clamping: value)))
        }
        return numbers
    }
}
