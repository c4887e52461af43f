// What people ask: status, listings, one object, and the orders of operators.

import Foundation
import KVModel
import KVTransport

extension StoreDecisions {
    private static var recordsAListing: Int { 1 << 18 }

    // MARK: Asking

    /// The state of the store; `namespaces` nil = all.
    public func status(namespaces visible: Set<UInt16>? = nil) -> StoreStatus {
        StoreStatus(
            state: isDraining ? "draining" : "serving", extentBytes: settings.extentBytes,
            objects: namespaces.reduce(0) { $0 + $1.presentCount },
            drives: drives.map {
                StoreStatus.Drive(
                    extents: $0.extents.count, freeExtents: $0.extents.freeCount,
                    state: $0.isFailed ? "failed" : $0.isReadOnly ? "read-only" : "healthy",
                    commandsUnanswered: $0.unanswered)
            },
            namespaces: namespaces.filter { !$0.isDeleted && (visible?.contains($0.number) ?? true) }.map(\.status),
            memoryBytes: buffers.frameCount * buffers.frameBytes, memoryCopies: buffers.copyCount,
            memoryLentBytes: buffers.lentFrames * buffers.frameBytes, requestsInFlight: operationCount,
            requestsWaiting: waiting.count, sessions: sessions.count, pins: pinCount,
            danglingPins: danglingPins.values.reduce(0) { $0 + $1.count }, scrubPasses: scrub.passes,
            uptimeSeconds: (now - startedAt).seconds,
            totals: Dictionary(uniqueKeysWithValues: StoreTotals.fields.map { ($0.name, totals[keyPath: $0.path]) }))
    }

    /// What a session may see: operators all, others their own namespaces and no drives.
    func statusJSON(for session: SessionID) -> [UInt8] {
        guard let state = sessions[session] else { return [] }
        if operators.contains(state.peer.tenant) { return Self.json(status()) }
        var own = status(namespaces: Set(state.namespaces))
        own.objects = own.namespaces.reduce(0) { $0 + $1.objects }
        own.drives = []
        own.totals = [:]
        own.pins = 0
        own.danglingPins = 0
        own.memoryCopies = 0
        own.memoryLentBytes = 0
        own.requestsInFlight = 0
        own.requestsWaiting = 0
        own.sessions = 0
        return Self.json(own)
    }

    static func json(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { preconditionFailure("a status that is no JSON") }
        return Array(data)
    }

    /// A page of the namespace's objects in the order of their numbers. A page may be empty and not the last: only so
    /// many records are looked at in one turn.
    mutating func list(_ request: RequestID, _ namespace: UInt16, _ cursor: UInt64, _ countMax: UInt32) {
        var page: [ListedObject] = []
        let limit = Int(min(countMax, 4096))
        var place = Int(clamping: cursor)
        let end = min(objects.extentCount, place &+ Self.recordsAListing)
        while place < end, page.count < limit {
            let number = UInt32(place)
            place += 1
            guard isPresent(number), scopes[Int(objects[number].scope)].namespace == namespace else { continue }
            let flags = objects[number].flags
            page.append(
                ListedObject(
                    name: name(of: number), payloadBytes: objects[number].payloadBytes,
                    flags: (flags.contains(.isPinned) ? 1 : 0) | (flags.contains(.isVolatile) ? 0 : 2)))
        }
        let next = place >= objects.extentCount ? 0 : UInt64(place)
        reply(request, .ok, .page(page, next: next))
    }

    mutating func describe(_ request: RequestID, _ namespace: UInt16, _ name: ObjectName) {
        guard let number = present(namespace, name) else {
            reply(request, .absent)
            return
        }
        let record = objects[number]
        let list = extents(of: number)
        let status = ObjectStatus(
            key: record.key.text, namespace: namespaces[Int(namespace)].name, group: Int(name.group),
            shard: Int(name.shard), shardCount: Int(name.shardCount), payloadBytes: Int(record.payloadBytes),
            payloadChecksum: hexadecimal(record.payloadChecksum), indexInChain: Int(record.depth),
            drive: drive(of: number), extents: (0..<list.count).map { Int(list[$0]) },
            durability: record.flags.contains(.isVolatile) ? .volatile : .restartSafe,
            isShared: record.flags.contains(.isShared), isInMemory: buffers.copy(of: number) != nil,
            isVerified: !record.flags.contains(.isUnverified), uses: Int(record.uses),
            secondsSinceUse: Int(second &- record.touched),
            pins: (pins[number] ?? []).map {
                PinStatus(namespaces[Int(namespace)].name, $0, isDangling: false)
            })
        reply(request, .ok, .text(Self.json(status)))
    }

    private func allPins() -> [PinStatus] {
        var all: [PinStatus] = []
        for (number, held) in pins {
            let namespace = namespaces[Int(scopes[Int(objects[number].scope)].namespace)].name
            for pin in held { all.append(PinStatus(namespace, pin, isDangling: false)) }
        }
        for (pinned, held) in danglingPins {
            for pin in held { all.append(PinStatus(namespaces[Int(pinned.namespace)].name, pin, isDangling: true)) }
        }
        return all.sorted { ($0.namespace, $0.key, $0.shard, $0.owner) < ($1.namespace, $1.key, $1.shard, $1.owner) }
    }

    // MARK: Orders

    mutating func administer(_ request: RequestID, _ verb: String, _ arguments: [UInt8]) {
        guard let session = sessions[request.session], operators.contains(session.peer.tenant) else {
            totals.requestsRefused += 1
            reply(request, .forbidden, why: "only operators may do this")
            return
        }
        let decoded =
            arguments.isEmpty
            ? OrderArguments() : try? JSONDecoder().decode(OrderArguments.self, from: Data(arguments))
        guard let order = decoded else {
            reply(request, .invalid, why: "the arguments are not the JSON object that is expected")
            return
        }
        switch verb {
        case "pins": answer(request, OrderResult(pins: allPins()))
        case "drain", "resume":
            isDraining = verb == "drain"
            answer(request, OrderResult(isQuiet: isQuiet, requestsInFlight: operationCount))
        case "verify": beginVerifying(request)
        case "progress":
            answer(
                request,
                OrderResult(
                    scrubPasses: scrub.passes, damagedFound: totals.damagedFound, isQuiet: isQuiet,
                    requestsInFlight: operationCount))
        case "flush": flush(request, order)
        case "namespace-set": setNamespace(request, order)
        case "namespace-delete": deleteNamespace(request, order)
        default: reply(request, .invalid, why: "there is no order `\(verb)`")
        }
    }

    private mutating func answer(_ request: RequestID, _ result: OrderResult) {
        reply(request, .ok, .text(Self.json(result)))
    }

    /// Reads everything once at full speed.
    private mutating func beginVerifying(_ request: RequestID) {
        scrub.cursor = 0
        scrub.passBegan = true
        scrub.isHurried = true
        scrub.hurriedUntilPass = scrub.passes + 1
        scrub.nextStart = now
        answer(request, OrderResult(scrubPassesWanted: scrub.passes + 1, damagedFound: totals.damagedFound))
    }

    private mutating func flush(_ request: RequestID, _ order: OrderArguments) {
        var number: UInt16?
        if let name = order.namespace {
            guard let known = namespaceByName[name] else {
                reply(request, .absent, why: "no namespace `\(name)`")
                return
            }
            number = known
        }
        answer(request, OrderResult(removed: removeAll(of: number)))
    }

    private mutating func setNamespace(_ request: RequestID, _ order: OrderArguments) {
        guard let name = order.namespace, !name.isEmpty, name.utf8.count <= 200, let policy = order.policy else {
            reply(request, .invalid, why: "a namespace has a name of 1 to 200 bytes and settings")
            return
        }
        guard policy.quotaBytes >= 0, policy.pinQuotaBytes >= 0, policy.retentionSeconds >= 0 else {
            reply(request, .invalid, why: "quotas and retention are not negative")
            return
        }
        let number = namespaceByName[name] ?? makeNamespace(name, policy, claimsRecovered: true)
        guard let number else {
            reply(request, .busy, why: "there are \(Self.namespacesMax) namespaces")
            return
        }
        namespaces[Int(number)].policy = policy
        var result = OrderResult()
        result.namespace = namespaces[Int(number)].status
        commit(.setNamespace(name: name, policy), .answer(request, Self.json(result)))
    }

    private mutating func deleteNamespace(_ request: RequestID, _ order: OrderArguments) {
        guard let name = order.namespace, let number = namespaceByName[name] else {
            reply(request, .absent, why: "no such namespace")
            return
        }
        let state = namespaces[Int(number)]
        guard state.usedBytes == 0 || order.force == true else {
            reply(request, .invalid, why: "it has \(state.presentCount) blocks; say --force to remove them, too")
            return
        }
        guard state.pinnedBytes == 0 else {
            reply(request, .forbidden, why: "it has pinned blocks; unpin them first")
            return
        }
        let removed = removeAll(of: number)
        namespaces[Int(number)].isDeleted = true
        namespaceByName[name] = nil
        // The digest leads to a fresh one when the name is used again; what still leaves counts for the old one.
        namespaceByDigest[state.digest] = nil
        var result = OrderResult()
        result.removed = removed
        commit(.removeNamespace(name: name), .answer(request, Self.json(result)))
    }
}
