// Which options of `replay` belong to which of its modes. One that would change nothing is refused: whoever gave it would
// believe in a result that it had no part in.

import ArgumentParser

extension Replay {
    /// Throws for an option that the mode asked for does not read.
    func checkModes() throws {
        let cache = [
            ("--policy", cacheOnly.policy != nil), ("--capacity", cacheOnly.capacity != nil),
            ("--dram", cacheOnly.dram != nil), ("--flash", cacheOnly.flash != nil),
            ("--inclusion", cacheOnly.inclusion != nil),
        ]
        let cluster = [
            ("--scenario", modelled.scenario.scenario != nil), ("--set", !modelled.scenario.overrides.isEmpty),
            ("--profile", modelled.scenario.profile != nil), ("--catalogue", modelled.scenario.catalogue != nil),
            ("--output", modelled.output != nil),
        ]
        let systems = [
            ("--only", modelled.only != nil), ("--no-sweep", modelled.noSweep),
            ("--threads", modelled.scenario.threads != nil),
        ]
        let nodes = [
            ("--agents", live.agents != nil), ("--route", live.route != nil),
            ("--block-bytes", live.blockBytes != nil),
        ]
        if cacheOnly.isAsked {
            let modes = [("--lockstep", live.isLockStep), ("--live", live.isLive)]
            try refuse(modes + cluster + systems + nodes, "has no part in --cache-only: leave out one of them.")
            return
        }
        try refuse(cache, "is for --cache-only: give that, too, or set the tiers of a scenario (--set tiers.…).")
        if live.isLockStep || live.isLive {
            try refuse(systems, "is for a modelled replay, not for --lockstep or --live.")
        } else {
            try refuse(nodes, "is for --lockstep or --live: give one of them, too.")
        }
    }

    private func refuse(_ options: [(String, Bool)], _ why: String) throws {
        for (name, isGiven) in options where isGiven { throw ValidationError("\(name) \(why)") }
    }
}
