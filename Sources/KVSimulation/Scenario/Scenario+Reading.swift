// From YAML to a checked scenario: the embedded default, a file laid over it, `--set` options laid over that.

import KVModel

extension Scenario {
    /// Reads a scenario.
    ///
    /// - Parameters:
    ///   - yaml: the text of a scenario file, or nil for the default one. It states only what differs from the default.
    ///   - file: what to call it in errors.
    ///   - overrides: `--set` options in order, `path=value` split at the first `=`.
    /// - Throws: one error with the file and line, the key and the accepted range.
    public static func read(
        yaml: String?, file: String, overrides: [(key: String, value: String)] = []
    ) throws(OperatorError) -> Scenario {
        var tree = try ScenarioTree(yaml: defaultText, file: "default.yaml")
        if let yaml { try tree.overlay(try ScenarioTree(yaml: yaml, file: file)) }
        for (key, value) in overrides { try tree.set(key, to: value) }
        return try Scenario(tree)
    }

    private init(_ tree: ScenarioTree) throws(OperatorError) {
        let root = ScenarioBlock(tree)
        let model = try root.block("model")
        let gpu = try root.block("gpu")
        name = try root.word("name")
        seed = UInt64(try root.count("seed", in: 0...(1 << 52)))
        modelName = try model.word("name")
        weights = try model.word("weights")
        kvType = try model.word("kv")
        gpuName = try gpu.word("name")
        gpusPerNode = try gpu.count("perNode", in: 1...1024)
        replicas = try root.count("replicas", in: 1...1024)
        tensorParallel = try root.count("tensorParallel", in: 1...72)
        ownership = try root.choice("ownership")
        engine = try Engine(try root.block("engine"))
        arrivals = try Arrivals(try root.block("arrivals"))
        tiers = try Tiers(try root.block("tiers"))
        links = try Links(try root.block("links"))
        router = try RouterSettings(try root.block("router"))
        planner = try PlannerSettings(try root.block("planner"))
        prefetch = try PrefetchSettings(try root.block("prefetch"))
        slo = try SLOSettings(try root.block("slo"))
        prices = try Prices(try root.block("prices"))
        energy = try EnergySettings(try root.block("energy"))
        warmUp = try root.number("warmUp", .plain, in: 0...0.9)
        sweep = try Sweep(try root.block("sweep"))
        text = tree.yaml()
        if ![1, 2, 4, 8].contains(tensorParallel) {
            throw OperatorError(
                "`tensorParallel` is \(tensorParallel), and all-reduce rates are known for 1, 2, 4 and 8",
                at: root.place("tensorParallel"))
        }
        if planner.policy == .split, ownership == .engine {
            throw OperatorError(
                "`planner.policy` is split with `ownership` engine, and an engine that owns its host tier loads prefixes only",
                at: root.place("planner"), remedy: "take `boundary`, or `ownership: host`")
        }
        if tensorParallel > gpusPerNode {
            throw OperatorError(
                "`tensorParallel` is \(tensorParallel), more than the \(gpusPerNode) GPUs of a node",
                at: root.place("tensorParallel"), remedy: "raise `gpu.perNode` or lower `tensorParallel`")
        }
        if gpusPerNode % tensorParallel != 0 {
            throw OperatorError(
                "`gpu.perNode` is \(gpusPerNode), not a multiple of `tensorParallel` \(tensorParallel): "
                    + "\(gpusPerNode % tensorParallel) of each node's GPUs would stand idle and be in no figure",
                at: gpu.place("perNode"), remedy: "give whole replicas to a node")
        }
    }
}

extension Scenario.Engine {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        name = try block.word("name")
        tokenBudget = try block.count("tokenBudget", in: 16...1_000_000)
        maxSequences = try block.count("maxSequences", in: 1...65_536)
        if tokenBudget < maxSequences {
            throw OperatorError(
                "`engine.tokenBudget` is \(tokenBudget), less than one token for each of \(maxSequences) sequences",
                at: block.place("tokenBudget"), remedy: "raise it, or lower `engine.maxSequences`")
        }
        memoryShare = try block.number("memoryShare", .plain, in: 0.1...1)
        prefixCaching = try block.flag("prefixCaching")
        preemption = try block.choice("preemption")
        overlap = try block.choice("overlap")
        hostRegion = try block.number("hostRegion", .bytes, in: 0...1e15)
        requestOverhead = try block.number("requestOverhead", .time, in: 0...60)
    }
}

extension Scenario.Arrivals {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        mode = try block.choice("mode")
        thinkTime = try block.number("thinkTime", .time, in: 0...86_400)
        load = try block.number("load", .plain, in: 0.001...1000)
    }
}

extension Scenario.Tiers {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        policy = try block.choice("policy")
        inclusion = try block.choice("inclusion")
        writesPerDay = try block.number("writesPerDay", .plain, in: 0...1000)
        let dram = try block.block("dram")
        self.dram = DRAM(
            use: try dram.flag("use"),
            perNode: try dram.number("perNode", .bytes, in: 1e6...1e15),
            latency: try dram.number("latency", .time, in: 0...1))
        let nvme = try block.block("nvme")
        self.nvme = NVMe(
            use: try nvme.flag("use"),
            perNode: try nvme.number("perNode", .bytes, in: 1e6...1e17),
            read: try nvme.number("read", .rate, in: 1e6...1e13),
            write: try nvme.number("write", .rate, in: 1e6...1e13),
            latency: try nvme.number("latency", .time, in: 0...1))
        let flash = try block.block("flash")
        self.flash = Flash(
            use: try flash.flag("use"),
            policy: try flash.choice("policy"),
            servers: try flash.count("servers", in: 1...1024),
            perServer: try flash.number("perServer", .bytes, in: 1e6...1e17),
            read: try flash.number("read", .rate, in: 1e6...1e14),
            write: try flash.number("write", .rate, in: 1e6...1e14),
            nic: try flash.number("nic", .rate, in: 1e6...1e13),
            latency: try flash.number("latency", .time, in: 0...1),
            stripe: try flash.count("stripe", in: 1...64))
        if self.flash.stripe > self.flash.servers {
            throw OperatorError(
                "`tiers.flash.stripe` is \(self.flash.stripe), more than `tiers.flash.servers`, which is \(self.flash.servers)",
                at: flash.place("stripe"))
        }
    }
}

extension Scenario.Links {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        discipline = try block.choice("discipline")
        efficiency = try block.number("efficiency", .plain, in: 0.01...1)
        hostNIC = try block.number("hostNIC", .rate, in: 1e6...1e13)
        hostMemory = try block.number("hostMemory", .rate, in: 1e6...1e13)
        let rate = try block.number("hostToGPU", .rate, in: 0...1e13)
        hostToGPU = rate == 0 ? 0 : try block.number("hostToGPU", .rate, in: 1e6...1e13)
    }
}

extension Scenario.RouterSettings {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        policy = try block.choice("policy")
        staleness = try block.number("staleness", .time, in: 0...3600)
    }
}

extension Scenario.PlannerSettings {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        policy = try block.choice("policy")
        gpuWeight = try block.number("gpuWeight", .plain, in: 0...1000)
    }
}

extension Scenario.PrefetchSettings {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        use = try block.flag("use")
        budget = try block.number("budget", .plain, in: 0...1)
    }
}

extension Scenario.SLOSettings {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        name = try block.word("name")
        ttft = try block.number("ttft", .time, in: 0.001...3600)
        tpot = try block.number("tpot", .time, in: 0.0001...60)
        share = try block.number("share", .plain, in: 0.01...1)
    }
}

extension Scenario.Prices {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        gpuHour = try block.number("gpuHour", .plain, in: 0...10_000)
        storeHour = try block.number("storeHour", .plain, in: 0...10_000)
        switchHour = try block.number("switchHour", .plain, in: 0...10_000)
        nvmeHour = try block.number("nvmeHour", .plain, in: 0...10_000)
        dramHour = try block.number("dramHour", .plain, in: 0...10_000)
    }
}

extension Scenario.EnergySettings {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        gpu = try block.number("gpu", .plain, in: 0...10_000)
        prefill = try block.number("prefill", .plain, in: 0...2)
        decode = try block.number("decode", .plain, in: 0...2)
        idle = try block.number("idle", .plain, in: 0...2)
        drive = try block.number("drive", .plain, in: 0...1000)
        nic = try block.number("nic", .plain, in: 0...1000)
        store = try block.number("store", .plain, in: 0...1000)
    }
}

extension Scenario.Sweep {
    fileprivate init(_ block: ScenarioBlock) throws(OperatorError) {
        use = try block.flag("use")
        // What is asked for twice is one point of a curve.
        loads = Set(try block.numbers("loads", .plain, in: 0.001...1000)).sorted()
        replicas = Set(try block.numbers("replicas", .whole, in: 1...1024).map { Int($0) }).sorted()
        capacities = try block.count("capacities", in: 2...64)
    }
}
