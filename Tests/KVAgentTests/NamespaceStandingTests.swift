// A store that refuses an agent's namespace is not asked without a pause, and is used again when it lets the agent in.

import KVAgent
import KVModel
import KVStore
import KVSystem
import KVTransport
import Testing

@Suite struct NamespaceStandingTests {
    /// What one attempt after another comes to in an hour, each refused at once.
    @Test func whoIsRefusedAsksMoreAndMoreRarely() {
        var namespace = NamespaceStanding()
        var (now, asked) = (Instant.zero, 0)
        while now < Instant.zero + Duration(seconds: 3600) {
            #expect(namespace.isShut && namespace.asksAt >= now)
            now = namespace.asksAt
            namespace.asked()
            #expect(namespace.isAwaited && namespace.handle == nil)
            namespace.refused("no such namespace", at: now)
            asked += 1
        }
        // 0.25, 0.5 … 16 s, then every 30 s.
        #expect(asked == 7 + 1 + (3600 - 32) / 30 + 1)
        #expect(namespace.refusal == "no such namespace")
    }

    @Test func itIsOpenWhenItIsSubscribedToAndItsPauseBeginsAnew() {
        var namespace = NamespaceStanding()
        let later = Instant.zero + Duration(seconds: 100)
        for _ in 0..<20 { namespace.refused("busy", at: later) }
        #expect(namespace.asksAt == later + NamespaceStanding.pauseMax)
        namespace.asked()
        namespace.found(7)
        #expect(namespace.handle == nil && namespace.isAwaited)
        namespace.subscribed()
        #expect(namespace.handle == 7 && !namespace.isShut && !namespace.isAwaited && namespace.refusal == nil)
        namespace.refused("deleted", at: later)
        #expect(namespace.isShut && namespace.handle == nil && namespace.asksAt == later + NamespaceStanding.pauseMin)
        // An answer that comes too late opens nothing.
        namespace.subscribed()
        #expect(namespace.isShut)
    }

    @Test func whoGotNoAnswerMayAskTheNextConnectionAtOnce() {
        var namespace = NamespaceStanding()
        namespace.asked()
        namespace.unanswered()
        #expect(namespace.isShut && namespace.asksAt == .zero && namespace.refusal == nil)
    }

    /// The bench's store takes a MiB. Else each put fails by itself, and the store looks as if it were used.
    @Test(arguments: [1 << 20, (1 << 20) + 1])
    func aStoreThatTakesNoBlocksOfThisSizeIsNotUsedAndSaysWhy(payloadBytes: Int) throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder)
        var settings = AgentSettings(
            tiering: smallTiering(dramBlocks: 16, hasStore: true), links: .measured(first: fastLinks))
        settings.store = store.access
        settings.store?.payloadBytes = payloadBytes
        let bench = try AgentBench(settings, folder: folder)
        let engine = try TestEngine(bench.agent)
        _ = try bench.status()
        try engine.serve(chain(0..<4, of: 3))
        let status = try bench.status()
        let isTaken = payloadBytes == 1 << 20
        #expect(status.store?.isUsable == isTaken)
        if !isTaken { #expect(status.store?.reason.contains("the store takes 1 MiB (its `payloadMax`)") == true) }
        #expect(status.totals["failed_store_put"] == 0)
        #expect(status.totals["blocks_store_put"] == (isTaken ? 4 : 0))
        try bench.checkClean()
    }

    /// A store that refuses needs an operator, one that is slow does not: who is told must be able to tell.
    @Test func silenceIsNoRefusal() {
        func told(_ response: Response, isSubscribing: Bool = false) -> NamespaceStanding.Hindrance {
            NamespaceStanding.Hindrance(
                response, namespace: "prod", isSubscribing: isSubscribing, within: Duration(milliseconds: 1500))
        }
        let late = told(Response(.deadlinePassed))
        #expect(!late.isRefusal)
        #expect(late.words == "the store is slow: asked to open namespace `prod`, it gave no answer in 1500 ms")
        let deaf = told(Response(.deadlinePassed), isSubscribing: true)
        #expect(!deaf.isRefusal)
        #expect(
            deaf.words == "the store is slow: asked to subscribe to namespace `prod`, it gave no answer in 1500 ms")
        for status in [Status.busy, .unavailable, .failed, .cancelled] {
            let busy = told(Response(status, .text(Array("full".utf8))))
            #expect(!busy.isRefusal && busy.words.hasSuffix("it said \(status), full"), "\(busy)")
        }
        for status in [Status.forbidden, .absent, .invalid] {
            let refusal = told(Response(status, .text(Array("ask an operator".utf8))))
            #expect(refusal.isRefusal)
            #expect(refusal.words == "the store refuses namespace `prod`: \(status), ask an operator")
        }
    }

    /// What a real agent tells of a store that opens its namespace and never subscribes it, or never opens it.
    @Test(arguments: [Operation.subscribe, .openNamespace])
    func aStoreThatDoesNotAnswerIsToldAsSlow(_ ignored: Operation) throws {
        let store = try QuietStore(ignoring: ignored)
        defer { store.shutDown() }
        var settings = AgentSettings(
            tiering: smallTiering(dramBlocks: 16, hasStore: true, isSubscribed: true),
            links: .measured(first: fastLinks))
        settings.store = StoreAccess(client: store.client, namespace: "prod")
        settings.store?.questionLimit = Duration(milliseconds: 20)
        let bench = try AgentBench(settings, folder: try Folder())
        let engine = try TestEngine(bench.agent, namespace: "prod")
        #expect(Sample.wait { bench.agent.status.store?.reason.hasPrefix("the store is slow: asked to ") == true })
        let told = try #require(bench.agent.status.store)
        #expect(!told.isUsable && told.reason.contains(ignored == .subscribe ? "subscribe" : "open"), "\(told.reason)")
        // It is no less of a cache for that.
        let names = chain(0..<6, of: 1)
        try engine.serve(names)
        #expect(try engine.serve(names) == 6)
        try engine.leave()
    }

    @Test func aNamespaceThatWasDeletedIsOpenedAgain() async throws {
        let store = try StoreBench(folder: try Folder())
        let (bench, engine) = try AgentBench.beside(store)
        let names = chain(0..<10, of: 3)
        try engine.serve(names)
        #expect(try bench.status().store?.isUsable == true)
        let namespace = try #require(bench.status().store?.namespace)
        try await store.order("namespace-delete", #"{"namespace":"\#(namespace)","force":true}"#)
        // Whoever looks for what node memory does not have hears of it; what is saved goes to the namespace that is made anew.
        let deadline = MonotonicClock.now + waitLimit
        var round: UInt64 = 100
        repeat {
            try engine.serve(names)
            _ = try bench.status()
            for other in 0..<4 { try engine.serve(chain(0..<10, of: round + UInt64(other))) }
            round += 4
        } while try bench.status().totals["store_lost"] == 0 && MonotonicClock.now < deadline
        let reason = try #require(bench.status().store?.reason)
        #expect(reason.hasPrefix("the store refuses namespace `"), "\(reason)")
        while try engine.serve(names) < 10, MonotonicClock.now < deadline {
            _ = try bench.status()
            for other in 0..<4 { try engine.serve(chain(0..<10, of: round + UInt64(other))) }
            round += 4
        }
        #expect(try engine.lookUp(names).answer.hitBlocks == 10)
        #expect(try bench.status().store?.isUsable == true)
        #expect(try bench.status().totals["store_lost"] == 1)
        try bench.checkClean()
    }
}
