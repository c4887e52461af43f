// Groups and shards are the peers' choice: however many one of them uses, there is room for those of the others.

import KVFlash
import KVModel
import KVStore
import KVSystem
import KVTransport
import Testing

@Suite struct ScopeRuleTests {
    private static let extentBytes = 64 << 10
    /// What all namespaces together may have beyond their shares of 128, and one share.
    private static let most = (1 << 20) - 4096 * 128 + 128

    private let greedy = SessionID(transport: 1, number: 1)
    private let other = SessionID(transport: 1, number: 2)

    private func name(_ scope: Int) -> ObjectName {
        ObjectName(
            FullKey(mixBits(UInt64(scope)), 0, 0, 0), group: UInt16(scope >> 10), shard: UInt16(scope & 1023),
            shardCount: 1024)
    }

    /// A store in which a namespace of the tenant `greedy` has so many objects, each of a group and shard of its own.
    private func store(scopes: Int) throws -> StoreDecisions {
        let settings = StoreSettings(
            extentBytes: Self.extentBytes, drives: [StoreDrive(extentCount: scopes + 1024)],
            memoryBytes: 512 * Self.extentBytes, payloadBytesMax: Self.extentBytes, operationCountMax: 512,
            driveCommandCountMax: 512, waitLimit: Duration(seconds: 1), sharedShare: 0.25, writeBytesPerDay: 0,
            tenantShare: 1,
            scrubBytesPerSecond: 0, operators: [], opensUnknownNamespaces: true, defaultPolicy: NamespacePolicy(),
            pinCountMax: 1, wallSecondsAtOrigin: 0, hashSeed: 0x5EED)
        var store = try StoreDecisions(settings, at: .zero)
        var policy = NamespacePolicy()
        policy.tenants = ["greedy"]
        store.restoreNamespace("n", policy)
        for scope in 0..<scopes {
            store.recover(
                .object(
                    FlashObject(
                        name: name(scope), metadata: ObjectMetadata(),
                        namespace: StoreDecisions.digest(ofNamespace: "n"), payloadBytes: Self.extentBytes, checksum: 1,
                        generation: UInt64(scope) + 1, extents: ExtentList([UInt32(scope)]))),
                from: 0)
        }
        var commands: [StoreOutput] = []
        _ = store.endRecovery(generationMax: UInt64(scopes), pins: [], at: .zero, into: &commands)
        for (session, tenant) in [(greedy, "greedy"), (other, "other")] {
            let peer = Peer(tenant: tenant, carrier: .loopback, address: "here")
            store.handle(.session(.opened(session, peer)), at: .zero, into: &commands)
            let request = RequestID(session: session, number: 0)
            store.handle(
                .session(.request(request, .openNamespace(name: tenant == "greedy" ? "n" : "o"))), at: .zero,
                into: &commands)
        }
        return store
    }

    /// What the store says first to an offer: nil when it asks for the payload.
    private func offer(
        _ store: inout StoreDecisions, _ session: SessionID, _ number: UInt32, _ name: ObjectName
    ) -> Status? {
        var commands: [StoreOutput] = []
        let put = Request.put(1, name, ObjectMetadata(), payloadBytes: Self.extentBytes, checksum: 1)
        store.handle(
            .session(.request(RequestID(session: session, number: number), put)), at: .zero, into: &commands)
        for case .session(.reply(_, let response)) in commands { return response.status }
        #expect(commands.contains { if case .session(.receive) = $0 { true } else { false } })
        return nil
    }

    @Test func whoTakesAllThatIsInNobodysShareLeavesTheOthersTheirs() throws {
        var store = try store(scopes: Self.most)
        #expect(offer(&store, greedy, 1, name(Self.most)) == .overBudget)
        #expect(store.status().totals["puts_over_budget_total"] == 1)
        #expect(offer(&store, greedy, 2, ObjectName(FullKey(7, 7, 0, 0), shardCount: 1024)) == nil, "a known scope")
        for scope in 0..<128 { #expect(offer(&store, other, UInt32(scope + 1), name(scope)) == nil) }
        #expect(offer(&store, other, 129, name(128)) == .overBudget, "its share is full, and nothing else is left")
    }

    @Test func aScopeThatNoObjectHasAnyMoreIsFree() throws {
        var store = try store(scopes: Self.most)
        #expect(offer(&store, greedy, 1, name(Self.most)) == .overBudget)
        var commands: [StoreOutput] = []
        let request = RequestID(session: greedy, number: 2)
        store.handle(.session(.request(request, .delete(1, [name(3)]))), at: .zero, into: &commands)
        let tombstones: [UInt64] = commands.compactMap { command in
            if case .drive(_, .erase(let tag, _, _)) = command { tag } else { nil }
        }
        #expect(tombstones.count == 1)
        #expect(offer(&store, greedy, 3, name(Self.most)) == .overBudget, "its tombstone is not there yet")
        for tag in tombstones { store.handle(.drive(0, .erased(tag: tag, .done)), at: .zero, into: &commands) }
        #expect(offer(&store, greedy, 4, name(Self.most)) == nil)
        #expect(offer(&store, greedy, 5, name(3)) == .overBudget, "its number has gone to the other")
    }
}
