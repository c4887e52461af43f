// A catalogue entry becomes a model, a GPU or an engine, each key checked for its range.

import KVModel

extension ModelShape {
    /// Reads a model's entry.
    init(_ entry: CatalogueEntry) throws(OperatorError) {
        try entry.allow([
            "layers", "hiddenSize", "attentionHeads", "kvHeads", "headSize", "feedForwardSize", "vocabulary",
            "tiedEmbeddings", "experts", "expertsPerToken", "sharedExperts", "expertFeedForwardSize", "denseLayers",
            "latentRank", "queryRank", "ropeSize", "plainHeadSize", "valueHeadSize", "slidingWindow", "windowedLayers",
        ])
        let sizes = 1...1_000_000
        let layers = try entry.count("layers", in: 1...10_000)
        experts = try Experts(entry, layers: layers)
        latent = try LatentAttention(entry)
        window = try SlidingWindow(entry, layers: layers)
        name = entry.name
        aliases = try entry.texts("aliases")
        source = try entry.text("source")
        self.layers = layers
        hiddenSize = try entry.count("hiddenSize", in: sizes)
        attentionHeads = try entry.count("attentionHeads", in: sizes)
        // With latent attention these two say nothing; every head then has its own keys.
        kvHeads = try entry.count("kvHeads", in: sizes, missing: latent == nil ? nil : attentionHeads)
        headSize = try entry.count(
            "headSize", in: sizes, missing: latent.map { $0.plainHeadSize + $0.ropeSize })
        feedForwardSize = try entry.count(
            "feedForwardSize", in: sizes, missing: experts.map { $0.denseLayers == 0 } == true ? 0 : nil)
        vocabulary = try entry.count("vocabulary", in: 1...100_000_000)
        tiedEmbeddings = try entry.flag("tiedEmbeddings", missing: false)
        if kvHeads > attentionHeads { throw entry.error("kvHeads", "is above attentionHeads") }
    }
}

extension ModelShape.Experts {
    fileprivate init?(_ entry: CatalogueEntry, layers: Int) throws(OperatorError) {
        let others = ["expertsPerToken", "sharedExperts", "expertFeedForwardSize", "denseLayers"]
        guard entry.has("experts") else {
            for key in others where entry.has(key) { throw entry.error(key, "needs experts") }
            return nil
        }
        count = try entry.count("experts", in: 1...100_000)
        perToken = try entry.count("expertsPerToken", in: 1...count)
        shared = try entry.count("sharedExperts", in: 0...1000, missing: 0)
        feedForwardSize = try entry.count("expertFeedForwardSize", in: 1...1_000_000)
        denseLayers = try entry.count("denseLayers", in: 0...layers - 1, missing: 0)
    }
}

extension ModelShape.LatentAttention {
    fileprivate init?(_ entry: CatalogueEntry) throws(OperatorError) {
        let others = ["queryRank", "ropeSize", "plainHeadSize", "valueHeadSize"]
        guard entry.has("latentRank") else {
            for key in others where entry.has(key) { throw entry.error(key, "needs latentRank") }
            return nil
        }
        let sizes = 1...1_000_000
        rank = try entry.count("latentRank", in: sizes)
        queryRank = try entry.count("queryRank", in: sizes)
        ropeSize = try entry.count("ropeSize", in: sizes)
        plainHeadSize = try entry.count("plainHeadSize", in: sizes)
        valueHeadSize = try entry.count("valueHeadSize", in: sizes)
    }
}

extension ModelShape.SlidingWindow {
    fileprivate init?(_ entry: CatalogueEntry, layers: Int) throws(OperatorError) {
        guard entry.has("slidingWindow") || entry.has("windowedLayers") else { return nil }
        tokens = try entry.count("slidingWindow", in: 1...100_000_000)
        self.layers = try entry.count("windowedLayers", in: 1...layers)
    }
}

extension GPU {
    /// Reads a GPU's entry.
    init(_ entry: CatalogueEntry) throws(OperatorError) {
        try entry.allow([
            "peakFLOPs", "memoryBytes", "memoryBytesPerSecond", "linearEfficiency", "memoryEfficiency",
            "attentionEfficiency", "kvReadEfficiency", "allReduceBytesPerSecond", "allReduceLatencySeconds",
            "hostLinkBytesPerSecond", "nicBytesPerSecond", "watts", "dollarsPerHour",
        ])
        let formats = NumberFormat.allCases.map(\.rawValue).joined(separator: ", ")
        let share = 1e-6...1.0
        let rates = 1e6...1e18
        name = entry.name
        aliases = try entry.texts("aliases")
        source = try entry.text("source")
        peakFLOPs = try entry.numbers("peakFLOPs", in: rates, name: NumberFormat.init(rawValue:), names: formats)
        memoryBytes = try entry.number("memoryBytes", in: 1e9...1e15)
        memoryBytesPerSecond = try entry.number("memoryBytesPerSecond", in: rates)
        linearEfficiency = try entry.numbers(
            "linearEfficiency", in: share, name: NumberFormat.init(rawValue:), names: formats)
        memoryEfficiency = try entry.numbers(
            "memoryEfficiency", in: share, name: NumberFormat.init(rawValue:), names: formats)
        attentionEfficiency = try entry.number("attentionEfficiency", in: share)
        kvReadEfficiency = try entry.number("kvReadEfficiency", in: share)
        allReduceBytesPerSecond = try entry.numbers(
            "allReduceBytesPerSecond", in: rates, name: { Int($0) }, names: "numbers of GPUs")
        allReduceLatencySeconds = try entry.number("allReduceLatencySeconds", in: 0...1)
        hostLinkBytesPerSecond = try entry.number("hostLinkBytesPerSecond", in: rates)
        nicBytesPerSecond = try entry.number("nicBytesPerSecond", in: rates)
        watts = try entry.number("watts", in: 1...1e6)
        dollarsPerHour = nil
        if entry.has("dollarsPerHour") {
            let prices = try entry.numbers("dollarsPerHour", count: 2, in: 0...1e6)
            if prices[0] > prices[1] { throw entry.error("dollarsPerHour", "has its higher price first") }
            dollarsPerHour = PriceRange(low: prices[0], high: prices[1])
        }
        if peakFLOPs[.bf16] == nil { throw entry.error("peakFLOPs", "has no bf16") }
        if memoryEfficiency[.bf16] == nil { throw entry.error("memoryEfficiency", "has no bf16") }
        for format in NumberFormat.allCases where peakFLOPs[format] != nil && linearEfficiency[format] == nil {
            throw entry.error("linearEfficiency", "has no \(format.rawValue), but peakFLOPs has")
        }
    }
}

extension EngineConstants {
    /// Reads an engine's entry.
    init(_ entry: CatalogueEntry) throws(OperatorError) {
        try entry.allow([
            "stepSeconds", "layerSeconds", "sequenceSeconds", "expertPrefillFactor", "latentPrefillFactor",
            "memoryShare",
            "reservedBytes", "requestSeconds",
        ])
        name = entry.name
        aliases = try entry.texts("aliases")
        source = try entry.text("source")
        stepSeconds = try entry.number("stepSeconds", in: 0...10)
        layerSeconds = try entry.number("layerSeconds", in: 0...1)
        sequenceSeconds = try entry.number("sequenceSeconds", in: 0...1)
        expertPrefillFactor = try entry.number("expertPrefillFactor", in: 0.01...100)
        latentPrefillFactor = try entry.number("latentPrefillFactor", in: 0.01...100)
        memoryShare = try entry.number("memoryShare", in: 0.01...1)
        reservedBytes = try entry.number("reservedBytes", in: 0...1e13)
        requestSeconds = try entry.number("requestSeconds", in: 0...100)
    }
}
