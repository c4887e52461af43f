// A trace at other loads, and how requests find replicas.

import KVModel
import KVSimulation
import KVTrace
import Testing

@Suite struct WorkloadTests {
    private let trace = conversations(count: 90, turns: 6, seed: 2)

    @Test func loadOneIsTheTraceItself() {
        let workload = Workload(trace, thinkTime: 30, seed: 1)
        #expect(workload.requests.count == trace.requests.count)
        #expect(workload.blocks == trace.blocks)
        #expect(workload.sessionCount == 90)
    }

    @Test func thinningKeepsWholeConversations() {
        let workload = Workload(trace, load: 0.5, thinkTime: 30, seed: 1)
        #expect((20...70).contains(workload.sessionCount))
        var turns: [Int32: Int32] = [:]
        for request in workload.requests {
            #expect(request.turn == turns[request.session, default: 0])
            turns[request.session] = request.turn + 1
        }
        // The same seed thins further the same conversations.
        let quarter = Workload(trace, load: 0.25, thinkTime: 30, seed: 1)
        let kept = Set(workload.requests.map(\.session))
        #expect(quarter.requests.allSatisfy { kept.contains($0.session) })
    }

    @Test func multiplyingAddsFreshConversationsBehindSharedPrompts() {
        let workload = Workload(trace, load: 3, thinkTime: 30, seed: 1)
        #expect(workload.sessionCount == 270)
        #expect(workload.requests.count == 3 * trace.requests.count)
        #expect(zip(workload.requests, workload.requests.dropFirst()).allSatisfy { $0.arrival <= $1.arrival })
        var users: [BlockNumber: Set<Int32>] = [:]
        for request in workload.requests {
            for block in workload.blocks[request.firstReference...].prefix(Int(request.blockCount)) {
                users[block, default: []].insert(request.session)
            }
        }
        let shared = users.filter { $0.value.count > 1 }.map(\.key)
        #expect(!shared.isEmpty)
        #expect(shared.allSatisfy { $0 < 40 }, "only the prompts that were shared before are shared between copies")
        #expect(workload.uniqueBlockCount > 2 * (trace.uniqueBlockCount - 40))
    }

    @Test(arguments: [0.3, 1, 2.5]) func asATraceItIsWhatTheClusterWasGiven(load: Double) {
        let workload = Workload(trace, load: load, thinkTime: 30, seed: 1)
        let made = workload.asTrace(trace)
        #expect(made.requests.count == workload.requests.count)
        #expect(Set(made.blocks).count == made.uniqueBlockCount)
        #expect(Set(workload.blocks).count == workload.distinctBlockCount)
        #expect(made.uniqueBlockCount == workload.distinctBlockCount)
        // The same block for the same block, and no other.
        var names: [BlockNumber: BlockNumber] = [:]
        for (index, request) in workload.requests.enumerated() {
            let copy = made.requests[index]
            #expect(copy.arrival.nanoseconds == request.arrival)
            #expect(copy.inputTokens == request.inputTokens)
            let path = workload.blocks[request.firstReference...].prefix(Int(request.blockCount))
            #expect(made.path(of: copy).count == path.count)
            for (left, right) in zip(path, made.path(of: copy)) {
                #expect(names[left, default: right] == right)
                names[left] = right
            }
        }
        #expect(Set(names.values).count == names.count)
    }

    @Test func conversationsAreFoundWhereTheTraceDoesNotNameThem() {
        var unnamed = trace
        for index in unnamed.requests.indices { unnamed.requests[index].session = -1 }
        let named = Workload(trace, thinkTime: 30, seed: 1)
        let found = Workload(unnamed, thinkTime: 30, seed: 1)
        #expect((found.sessionCount - named.sessionCount).magnitude <= 35)
    }

    @Test func promptsWithoutIdentityAreAllDifferent() {
        var azure = trace
        azure.format = .azure
        azure.blocks = []
        azure.uniqueBlockCount = 0
        for index in azure.requests.indices {
            azure.requests[index].firstReference = 0
            azure.requests[index].blockCount = 0
        }
        let workload = Workload(azure, thinkTime: 30, seed: 1)
        #expect(workload.promptsAreUnique)
        #expect(Set(workload.blocks).count == workload.blocks.count)
    }
}

@Suite struct RouterTests {
    private func router(_ policy: Scenario.RouterPolicy, staleness: Double = 0) -> Router {
        Router(
            Scenario.RouterSettings(policy: policy, staleness: staleness), replicas: 4, replicasPerNode: 4, seed: 7)
    }

    private func choices(
        _ router: inout Router, _ count: Int, loads: [Int] = [3, 1, 2, 4], costs: [Double] = [4, 3, 1, 2]
    )
        -> [Int]
    {
        (0..<count).map { index in
            router.choose(session: Int32(index / 3), now: Int64(index)) {
                ReplicaView(queuedTokens: loads[$0])
            } cost: {
                replica, _ in
                costs[replica]
            }
        }
    }

    @Test func eachRouterFollowsItsRule() {
        var random = router(.random)
        let drawn = choices(&random, 4000)
        for replica in 0..<4 { #expect((800...1200).contains(drawn.filter { $0 == replica }.count)) }
        var robin = router(.roundRobin)
        #expect(choices(&robin, 5) == [1, 2, 3, 0, 1])
        var least = router(.leastLoaded)
        #expect(choices(&least, 3) == [1, 1, 1])
        var stateless = router(.stateless)
        #expect(choices(&stateless, 3) == [1, 1, 1])
        var aware = router(.cacheAware)
        #expect(choices(&aware, 3) == [2, 2, 2])
        var sticky = router(.sticky)
        let stuck = choices(&sticky, 300)
        for index in stride(from: 0, to: 300, by: 3) { #expect(Set(stuck[index..<index + 3]).count == 1) }
        #expect(Set(stuck).count == 4)
    }

    private func bound(_ policy: Scenario.RouterPolicy, replicas: Int, replicasPerNode: Int) -> Router {
        var settings = Scenario.RouterSettings(policy: policy, staleness: 0)
        settings.bindsSessionsToNodes = true
        return Router(settings, replicas: replicas, replicasPerNode: replicasPerNode, seed: 7)
    }

    @Test func boundSessionsStayOnTheirNodeAndTheRuleChoosesInside() {
        var aware = bound(.cacheAware, replicas: 4, replicasPerNode: 2)
        // Of replicas 0 and 1 the second is cheaper, of 2 and 3 the first.
        #expect(Set(choices(&aware, 300)) == [1, 2])
        for policy in Scenario.RouterPolicy.allCases {
            var router = bound(policy, replicas: 4, replicasPerNode: 2)
            let chosen = choices(&router, 300)
            for index in stride(from: 0, to: 300, by: 3) {
                #expect(Set(chosen[index..<index + 3].map { $0 / 2 }).count == 1, "\(policy)")
            }
        }
    }

    @Test func boundToNodesOfOneReplicaIsSticky() {
        var sticky = bound(.sticky, replicas: 4, replicasPerNode: 1)
        var aware = bound(.cacheAware, replicas: 4, replicasPerNode: 1)
        #expect(!aware.looksForPrefixes)
        #expect(choices(&aware, 300) == choices(&sticky, 300))
        // On one node nothing is bound.
        var whole = bound(.cacheAware, replicas: 4, replicasPerNode: 4)
        #expect(choices(&whole, 3) == [2, 2, 2])
    }

    @Test func aNodeWithFewerReplicasGetsFewerSessions() {
        var robin = bound(.roundRobin, replicas: 5, replicasPerNode: 4)
        var counts = [0, 0]
        for session in 0..<5000 {
            let replica = robin.choose(session: Int32(session), now: Int64(session)) { _ in
                ReplicaView()
            } cost: { _, _ in
                0
            }
            counts[replica / 4] += 1
        }
        #expect((900...1100).contains(counts[1]))
    }

    @Test func tiesAreDrawnEvenly() {
        var least = router(.leastLoaded)
        let drawn = choices(&least, 4000, loads: [2, 1, 1, 2])
        #expect(Set(drawn) == [1, 2])
        #expect((1800...2200).contains(drawn.filter { $0 == 1 }.count))
    }

    @Test func staleRouterSeesTheLoadsOfThePast() {
        var least = router(.leastLoaded, staleness: 1)
        var loads = [0, 5, 5, 5]
        func choose(_ now: Int64) -> Int {
            least.choose(session: 0, now: now) {
                ReplicaView(queuedTokens: loads[$0])
            } cost: { _, _ in
                0
            }
        }
        #expect(choose(0) == 0)
        loads = [9, 5, 1, 5]
        #expect(choose(999_999_999) == 0)
        #expect(choose(1_000_000_000) == 2)
    }
}
