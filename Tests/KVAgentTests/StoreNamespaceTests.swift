// A store that refuses an agent's namespace is not asked without a pause, and is used again when it lets the agent in.

import KVAgent
import KVModel
import KVStore
import KVSystem
import KVTransport
import Testing

@Suite struct StoreNamespaceTests {
    /// What one attempt after another comes to in an hour, each refused at once.
    @Test func whoIsRefusedAsksMoreAndMoreRarely() {
        var namespace = StoreNamespace()
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
        var namespace = StoreNamespace()
        let later = Instant.zero + Duration(seconds: 100)
        for _ in 0..<20 { namespace.refused("busy", at: later) }
        #expect(namespace.asksAt == later + StoreNamespace.pauseMax)
        namespace.asked()
        namespace.found(7)
        #expect(namespace.handle == nil && namespace.isAwaited)
        namespace.subscribed()
        #expect(namespace.handle == 7 && !namespace.isShut && !namespace.isAwaited && namespace.refusal == nil)
        namespace.refused("deleted", at: later)
        #expect(namespace.isShut && namespace.handle == nil && namespace.asksAt == later + StoreNamespace.pauseMin)
        // An answer that comes too late opens nothing.
        namespace.subscribed()
        #expect(namespace.isShut)
    }

    @Test func whoGotNoAnswerMayAskTheNextConnectionAtOnce() {
        var namespace = StoreNamespace()
        namespace.asked()
        namespace.unanswered()
        #expect(namespace.isShut && namespace.asksAt == .zero && namespace.refusal == nil)
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
