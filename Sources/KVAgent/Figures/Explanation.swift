// What an agent answers to "why": of a block, where it is and what became of it; of a conversation, how its last requests
// were served.

import KVModel
import KVTiering

/// An answer, as `/explain` serves it and `holdfast ctl explain` prints it.
public struct Explanation: Codable, Sendable, Equatable {
    /// What is known of the block; nil when nothing is, or a conversation was asked for.
    public var block: BlockStory?
    /// Loads that concern it, and prompts that were computed without one, the latest first.
    public var loads: [LoadStory]
    /// The same in words, a sentence each.
    public var sentences: [String]
}

extension Agent {
    /// Why a block is, or is not, where it is. Nil: the agent has stopped.
    public func explain(_ name: ObjectName) -> Explanation? {
        let key = name.blockKey
        let found = inspectCore { core in
            (core.manager.story(of: key), core.manager.loads(of: key, at: core.world.now), core.world.storeIsUsable)
        }
        guard let (story, loads, hasStore) = found else { return nil }
        var sentences: [String] = []
        if let story {
            sentences = story.sentences(hasStore: hasStore)
        } else {
            sentences.append("no request of this agent's engines named this block, or it was forgotten since")
            if hasStore { sentences.append("whether the store has it, `ctl stat NAMESPACE KEY` tells") }
        }
        sentences += loads.prefix(3).map { "\(Self.ago($0.secondsAgo)): \($0.sentence)" }
        return Explanation(block: story, loads: loads, sentences: sentences)
    }

    /// How the last requests of a conversation were served. Nil: the agent has stopped.
    public func explain(session: UInt64) -> Explanation? {
        let found = inspectCore { core -> (isKnown: Bool, loads: [LoadStory]) in
            guard let number = core.world.desk.sessions.find(session) else { return (false, []) }
            return (true, core.manager.loads(ofSession: number, at: core.world.now))
        }
        guard let found else { return nil }
        var sentences = found.loads.map { "\(Self.ago($0.secondsAgo)): \($0.sentence)" }
        if !found.isKnown {
            sentences.append("no request of this agent's engines named this conversation, or it was forgotten since")
        } else if found.loads.isEmpty {
            sentences.append(
                "this conversation is known; none of its requests is among the last that loaded or were computed")
        }
        return Explanation(block: nil, loads: found.loads, sentences: sentences)
    }

    private static func ago(_ seconds: Double) -> String {
        seconds < 1 ? "\(Int(seconds * 1000)) ms ago" : "\(Int(seconds)) s ago"
    }
}

extension BlockStory {
    /// What it says, in words.
    func sentences(hasStore: Bool) -> [String] {
        let names = ["dram": "node memory", "nvme": "local flash", "flash": "the store, as it last said"]
        var lines: [String] = []
        if tiers.isEmpty {
            let reasons = [
                "evicted": "it was evicted",
                "refused": "it was refused: the policy holds it for worth less than what it would push out",
                "lost": "it got lost on its way", "corrupt": "its bytes were wrong", "quota": "its namespace is full",
                "noTier": "there is no tier for it", "none": "it was computed and never offered",
            ]
            lines.append("it is in no tier: \(reasons[fate] ?? fate)")
        } else {
            lines.append("it is in " + tiers.map { names[$0] ?? $0 }.joined(separator: " and in "))
        }
        lines.append("block \(depth) of its chain, used by \(uses) request\(uses == 1 ? "" : "s")")
        var state: [String] = []
        if isKeptInMemory { state.append("kept in node memory by the policy") }
        if isKeptOnFlash { state.append("kept on local flash by the policy") }
        if isFilling { state.append("on its way in") }
        if isPredicted { state.append("brought up because it is expected to be asked for") }
        if isPromised { state.append("being written to the store") }
        if holders > 0 { state.append("held by \(holders) transfer\(holders == 1 ? "" : "s") or requests") }
        if !state.isEmpty { lines.append(state.joined(separator: ", ")) }
        if hasStore {
            lines.append(
                storeHeardSeconds < 0
                    ? "the store was not asked for it yet" : "the store was heard of it \(Int(storeHeardSeconds)) s ago"
            )
        }
        return lines
    }
}
