// An agent's settings as they are read, and checked against each other: a wrong value is refused with what it may be.

import KVModel
import KVSettings
import KVTiering

extension AgentConfiguration {
    /// Bytes of node memory that an agent needs at least.
    public static let dramBytesMin = 1 << 20
    /// Bytes a second that a path may be said to move.
    public static let linkRates = 1e2...1e15

    /// Takes one setting.
    public mutating func take(_ value: SettingValue) throws(OperatorError) {
        let (name, words, place) = (value.name, value.words, value.place)
        switch name {
        case "socket": socket = try value.word()
        case "users": users = try value.numbers()
        case "engines": engines = try value.whole(1...1024)
        case "hbm": hbm = try value.bytes(0...(1 << 46))
        case "device":
            let word = try value.word()
            guard word.isEmpty || word == "emulated" || Self.gpu(of: word) != nil else {
                throw OperatorError("`device` is `\(word)`, not emulated or cuda:N", at: place)
            }
            device = word
        case "dram": dram = try value.bytes(Self.dramBytesMin...(1 << 46))
        case "hugePages": hugePages = try value.flag()
        case "pinMemory": pinMemory = try value.flag()
        case "numaNode":
            let word = try value.word()
            guard word == "auto" || word == "any" || Int(word).map({ (0..<1024).contains($0) }) == true else {
                throw OperatorError("`numaNode` is `\(word)`, not a number, auto or any", at: place)
            }
            numaNode = word
        case "nvme": nvme = try value.word()
        case "nvmeSize": nvmeSize = words == [""] ? nil : try value.bytes((1 << 20)...(1 << 52))
        case "nvmeWritePerDay": nvmeWritePerDay = try value.bytes(0...(1 << 56))
        case "store": store = try value.word()
        case "namespace": namespace = try value.word()
        case "tenant": tenant = try value.word()
        case "keys": keys = try value.word()
        case "rdmaStore": rdmaStore = try value.word()
        case "tlsAuthority": tlsAuthority = try value.word()
        case "tlsName": tlsName = try value.word()
        case "tlsCertificate": tlsCertificate = try value.word()
        case "tlsKey": tlsKey = try value.word()
        case "storeLimit": storeLimit = try value.number(0.01...3600)
        case "policy": policy = try value.choice(PolicyName.deployable)
        case "inclusion": inclusion = try value.choice(InclusionMode.allCases)
        case "spill": spill = try value.choice(SpillRule.allCases)
        case "planner": planner = try value.choice(PlannerRule.allCases)
        case "model": model = try value.word()
        case "gpu": gpu = try value.word()
        case "tensorParallel": tensorParallel = try value.whole(1...1024)
        case "prefill":
            guard words.count == 3 else {
                throw OperatorError("`prefill` is three numbers, not \(words.count)", at: place)
            }
            let parts = try words.map { word throws(OperatorError) in
                try SettingValue(name: name, words: [word], place: place).number(0...10)
            }
            prefill = PrefillCost(base: parts[0], linear: parts[1], quadratic: parts[2])
        case "layers": layers = try value.whole(1...1000)
        case "overlap": overlap = try value.choice(Overlap.allCases)
        case "loadGraceShare": loadGraceShare = try value.number(0...10)
        case "loadGraceMin": loadGraceMin = try value.number(0...3600)
        case "loadGraceMax": loadGraceMax = try value.number(0...3600)
        case "prefetch": prefetch = try value.flag()
        case "prefetchShare": prefetchShare = try value.number(0...1)
        case "ask": ask = try value.number(0...60)
        case "profile": profile = try value.word()
        case "links":
            let given = words.filter { !$0.isEmpty }
            guard given.isEmpty || given.count == 6 else {
                throw OperatorError("`links` is six numbers or empty, not \(given.count)", at: place)
            }
            let parts = try given.enumerated().map { index, word throws(OperatorError) in
                try SettingValue(name: name, words: [word], place: place)
                    .number(index.isMultiple(of: 2) ? Self.linkRates : 0...3600)
            }
            links = parts
        case "subscribe": subscribe = try value.flag()
        case "clock": clock = try value.choice(AgentTime.allCases)
        case "http": http = try value.word()
        case "engineMetrics": engineMetrics = try value.word()
        case "copyThreads": copyThreads = try value.whole(1...64)
        case "watch": watch = try value.number(0...0.001)
        case "nice": nice = try value.whole(-20...19)
        case "pins": pins = try value.bytes(0...(1 << 46))
        case "loan": loan = try value.number(0.01...86_400)
        case "loanShare": loanShare = try value.number(0...0.9)
        case "drain": drain = try value.number(0...3600)
        case "journal": journal = try value.word()
        case "journalSize": journalSize = try value.bytes((1 << 20)...(1 << 46))
        case "traces": traces = try value.word()
        case "tracesSize": tracesSize = try value.bytes((1 << 20)...(1 << 46))
        default:
            let isOfRDMA = try rdma.take(value)
            precondition(isOfRDMA, "the setting `\(name)` is documented and not read")
        }
    }

    /// Checks what one setting cannot know of another.
    public func check() throws(OperatorError) {
        guard socket.utf8.count <= 107, !socket.isEmpty else {
            throw OperatorError(
                "`socket` has \(socket.utf8.count) bytes, not from 1 to 107", at: "--socket",
                remedy: "choose a shorter path")
        }
        guard hbm == 0 || !device.isEmpty else {
            throw OperatorError(
                "HBM slots of no device", at: "--device", remedy: "give cuda:0 for the first GPU, or emulated")
        }
        guard hbm > 0 || device.isEmpty else {
            throw OperatorError(
                "a device of no slots", at: "--hbm", remedy: "say how much of its memory is the agent's")
        }
        if !nvme.isEmpty, !nvme.hasPrefix("/dev/"), nvmeSize == nil {
            throw OperatorError(
                "the file `\(nvme)` has no size", at: "--nvme-size", remedy: "say how large it may become")
        }
        guard nvmeSize == nil || !nvme.isEmpty else {
            throw OperatorError("a size of no local flash", at: "--nvme-size", remedy: "name a file with --nvme")
        }
        guard model.isEmpty == gpu.isEmpty else {
            throw OperatorError(
                "`model` and `gpu` go together", at: model.isEmpty ? "--model" : "--gpu", remedy: "name both")
        }
        guard loadGraceMin <= loadGraceMax else {
            throw OperatorError(
                "`loadGraceMin` is \(loadGraceMin) s, more than `loadGraceMax` of \(loadGraceMax) s", at: "loadGraceMin"
            )
        }
        if store.isEmpty {
            let named = [
                ("keys", keys), ("namespace", namespace), ("rdma", rdma.device), ("tlsAuthority", tlsAuthority),
            ]
            for (name, value) in named where !value.isEmpty {
                throw OperatorError("`\(name)` without a store", at: "--\(name)", remedy: "name one with --store")
            }
        } else {
            _ = try splitEndpoint(store, option: "--store")
            guard !keys.isEmpty else {
                throw OperatorError(
                    "the store asks for a key", at: "--keys", remedy: "name the file of keys that the store made")
            }
            guard !rdma.isOn || !rdmaStore.isEmpty else {
                throw OperatorError(
                    "RDMA to an unknown place", at: "--rdma-store", remedy: "name the store's `rdmaListen`")
            }
            guard !rdma.isOn || tlsAuthority.isEmpty else {
                throw OperatorError("RDMA is not encrypted, and TLS is asked for", at: "--rdma")
            }
            guard tlsCertificate.isEmpty == tlsKey.isEmpty else {
                throw OperatorError(
                    "a certificate and its key go together", at: tlsKey.isEmpty ? "tlsKey" : "tlsCertificate",
                    remedy: "name both files")
            }
            for (name, value) in [("tlsName", tlsName), ("tlsCertificate", tlsCertificate)]
            where !value.isEmpty && tlsAuthority.isEmpty {
                throw OperatorError(
                    "`\(name)` without TLS", at: name, remedy: "name who signed the store's certificate: tlsAuthority")
            }
        }
        if !http.isEmpty { _ = try splitEndpoint(http, option: "--http") }
        if !engineMetrics.isEmpty { _ = try AgentWatch.page(engineMetrics) }
        if !traces.isEmpty { _ = try TraceTarget(traces, bytesMax: tracesSize) }
        guard clock == .machine || !http.isEmpty else {
            throw OperatorError(
                "a given clock, and nobody can give it", at: "--http", remedy: "say where HTTP is served")
        }
    }
}
