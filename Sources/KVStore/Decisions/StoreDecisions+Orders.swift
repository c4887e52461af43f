// What people ask: status, listings, one object, and the orders of operators.

import Foundation
import KVModel
import KVTransport

extension StoreDecisions {
    // MARK: Asking

    /// The state of the store; `namespaces` nil = all.
    public func status(namespaces visible: Set<UInt16>? = nil) -> StoreStatus {
        let shown = namespaces.filter { !$0.isDeleted && (visible?.contains($0.number) ?? true) }
        return StoreStatus(
            state: isDraining ? "draining" : "serving", extentBytes: settings.extentBytes,
            objects: namespaces.reduce(0) { $0 + $1.presentCount },
            drives: drives.map {
                StoreStatus.Drive(
                    extents: $0.extents.count, freeExtents: $0.extents.freeCount,
                    state: $0.isFailed ? "failed" : $0.isReadOnly ? "read-only" : "healthy",
                    commandsUnanswered: $0.unanswered)
            },
            namespaces: shown.map(\.status), namespaceCount: shown.count, nextNamespace: 0,
            memoryBytes: buffers.frameCount * buffers.frameBytes, memoryCopies: buffers.copyCount,
            memoryLentBytes: buffers.lentFrames * buffers.frameBytes, requestsInFlight: operationCount,
            requestsWaiting: waiting.count, sessions: sessions.count, pins: pinRoom.count,
            danglingPins: danglingPins.values.reduce(0) { $0 + $1.count }, scrubPasses: scrub.passes,
            uptimeSeconds: (now - startedAt).seconds,
            totals: Dictionary(uniqueKeysWithValues: StoreTotals.fields.map { ($0.name, totals[keyPath: $0.path]) }))
    }

    /// What a session may see: operators all, others their own namespaces and no drives. Of namespaces the first page.
    func statusJSON(for session: SessionID) -> [UInt8] {
        guard let state = sessions[session] else { return [] }
        let isOperator = operators.contains(state.peer.tenant)
        let opened = Set(state.namespaces.filter { self.opened($0.number) == $0 }.map(\.number))
        var own = status(namespaces: isOperator ? nil : opened)
        if !isOperator { own.objects = own.namespaces.reduce(0) { $0 + $1.objects } }
        (own.namespaces, own.nextNamespace) = namespacePage(from: 0) { isOperator || opened.contains($0.number) }
        if isOperator { return Self.json(own) }
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
        guard countMax > 0 else {
            reply(request, .invalid, why: "a page of no objects")
            return
        }
        var page: [ListedObject] = []
        let limit = Int(min(countMax, 4096))
        var place = Int(clamping: cursor)
        let end = min(objects.extentCount, place &+ Self.recordsAListing)
        while place < end, page.count < limit {
            let number = UInt32(place)
            place += 1
            guard isPresent(number), scopes[objects[number].scope].namespace == namespace else { continue }
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
            key: self.name(of: number).key.text, namespace: namespaces[Int(namespace)].name,
            group: Int(name.group), shard: Int(name.shard), shardCount: Int(name.shardCount),
            payloadBytes: Int(record.payloadBytes),
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

    // MARK: Orders

    mutating func administer(_ request: RequestID, _ verb: String, _ arguments: [UInt8]) {
        guard let session = sessions[request.session] else { return reply(request, .unavailable) }
        guard operators.contains(session.peer.tenant) || verb == "namespaces" else {
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
        case "namespaces": listNamespaces(request, session.peer, order)
        case "pins": listPins(request, order)
        case "drain", "resume":
            isDraining = verb == "drain"
            progress(request)
        case "verify": beginVerifying(request)
        case "progress": progress(request)
        case "flush": flush(request, order)
        case "namespace-set": setNamespace(request, order)
        case "namespace-delete": deleteNamespace(request, order)
        default: reply(request, .invalid, why: "there is no order `\(verb)`")
        }
    }

    mutating func answer(_ request: RequestID, _ result: OrderResult) {
        reply(request, .ok, .text(Self.json(result)))
    }

    private mutating func progress(_ request: RequestID) {
        var result = OrderResult()
        result.scrubPasses = scrub.passes
        result.scrubbedExtents = scrub.looked
        result.extents = objects.extentCount
        result.damagedFound = totals.damagedFound
        result.isQuiet = isQuiet
        result.requestsInFlight = operationCount
        answer(request, result)
    }

    /// Reads everything once at full speed. A pass that is hurried already ends first: what it has behind it may have
    /// changed since.
    private mutating func beginVerifying(_ request: RequestID) {
        scrub.hurry(at: now)
        var result = OrderResult()
        result.scrubPassesWanted = scrub.hurriedUntilPass
        result.damagedFound = totals.damagedFound
        answer(request, result)
    }
}
