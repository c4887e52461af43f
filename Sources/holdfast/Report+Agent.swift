// `report --agent`: what a running agent counted since its start, as a table. Each figure is measured or counted by the agent
// itself, or told by its engines; what nobody told is left out.

import Foundation
import KVAgent
import KVModel

/// An agent's record of itself in lines of text.
struct AgentReport {
    let status: SidecarStatus

    private func row(_ name: String, _ value: String, _ source: String) -> String {
        name.padding(toLength: 34, withPad: " ", startingAt: 0)
            + value.padding(toLength: 26, withPad: " ", startingAt: 0) + source
    }

    private func share(_ part: Int, of whole: Int) -> String {
        whole == 0 ? "\(part)" : String(format: "%d (%.1f %%)", part, 100 * Double(part) / Double(whole))
    }

    private func time(_ name: String, _ title: String, _ source: String) -> [String] {
        guard let times = status.times[name], times.count > 0 else { return [] }
        let text = String(
            format: "%.3g ms, p99 < %.3g ms", times.meanSeconds * 1e3, times.p99Seconds * 1e3)
        return [row("\(title), mean", text, "\(source), \(times.count) of them")]
    }

    var text: String {
        var lines = [
            "Agent at \(status.socket), \(status.state), \(Int(status.uptimeSeconds)) s up, "
                + "\(status.engines.count) engines", "",
        ]
        if let agent = status.agent {
            let prompt = agent.promptTokens
            lines.append(row("prompt tokens", "\(prompt)", "counted"))
            let nearest = agent.hbm == nil ? "by the engine itself" : "from HBM slots"
            lines.append(row("  served \(nearest)", share(agent.hbmHitTokens, of: prompt), "counted"))
            for (name, tier) in [("node memory", agent.dram), ("local flash", agent.nvme), ("the store", agent.flash)] {
                lines.append(row("  served from \(name)", share(tier.hitTokens, of: prompt), "counted"))
            }
            lines += ["", "why tokens were served or computed:"]
            for (name, tokens) in agent.ledger.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) where tokens > 0
            {
                lines.append(row("  \(name)", share(tokens, of: prompt), "counted"))
            }
            let sum = agent.ledger.values.reduce(0, +)
            lines.append(row("  all together", share(sum, of: prompt), sum == prompt ? "adds up" : "DOES NOT ADD UP"))
        }
        lines.append("")
        lines += time("lookup", "look-up", "measured at the door")
        lines += time("load", "load", "measured at the door")
        lines += time("save", "save", "measured at the door")
        lines += time("first_token", "time to first token", "told by engines")
        let (loaded, saved) = (status.counts["bytes_loaded_total"] ?? 0, status.counts["bytes_saved_total"] ?? 0)
        lines.append(row("bytes loaded", ByteSize.text(Int(clamping: loaded)), "counted"))
        lines.append(row("bytes saved", ByteSize.text(Int(clamping: saved)), "counted"))
        let prefetch = status.agent?.prefetch.filter { $0.value > 0 } ?? [:]
        if !prefetch.isEmpty {
            lines += ["", "blocks brought up before they were asked for:"]
            for (name, blocks) in prefetch.sorted(by: { $0.key < $1.key }) {
                lines.append(row("  \(name.replacing("_", with: " "))", "\(blocks)", "counted"))
            }
        }
        return lines.joined(separator: "\n")
    }
}
