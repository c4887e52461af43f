// Sessions and what they ask: who may do what is decided here, before anything is done.

import KVModel
import KVTransport

extension StoreDecisions {
    mutating func take(_ event: SessionEvent) {
        switch event {
        case .opened(let session, let peer):
            sessions[session] = SessionState(peer: peer)
            totals.sessionsOpened += 1
        case .closed(let session):
            guard let state = sessions.removeValue(forKey: session) else { return }
            for namespace in state.subscriptions { subscribers[namespace]?.remove(session) }
        case .request(let request, let wish): take(request, wish)
        case .received(let request, let outcome): received(request, outcome)
        case .sent(let request, let outcome): sent(request, outcome)
        }
    }

    private mutating func take(_ request: RequestID, _ wish: Request) {
        guard sessions[request.session] != nil else {
            reply(request, .unavailable)
            return
        }
        switch wish {
        case .openNamespace(let name): openNamespace(request, name)
        case .stat: reply(request, .ok, .text(statusJSON(for: request.session)))
        case .administer(let verb, let arguments): administer(request, verb, arguments)
        // A cancelled request still ends by itself: nothing here takes long, and its payload must end first anyway.
        case .cancel: reply(request, .ok)
        case .lookUp(let handle, let names):
            guard let namespace = allowed(request, handle) else { return }
            lookUp(request, namespace, names)
        case .get(let handle, let name):
            guard let namespace = allowed(request, handle) else { return }
            get(request, namespace, name)
        case .put(let handle, let name, let metadata, let payloadBytes, let checksum):
            guard let namespace = allowed(request, handle) else { return }
            put(request, namespace, name, metadata, payloadBytes, checksum)
        case .pin(let handle, let names, let owner, let lifetime):
            guard let namespace = allowed(request, handle) else { return }
            pin(request, namespace, names, owner, lifetime)
        case .unpin(let handle, let names, let owner):
            guard let namespace = allowed(request, handle) else { return }
            unpin(request, namespace, names, owner)
        case .delete(let handle, let names):
            guard let namespace = allowed(request, handle) else { return }
            delete(request, namespace, names)
        case .list(let handle, let cursor, let countMax):
            guard let namespace = allowed(request, handle) else { return }
            list(request, namespace, cursor, countMax)
        case .describe(let handle, let name):
            guard let namespace = allowed(request, handle) else { return }
            describe(request, namespace, name)
        case .subscribe(let handle):
            guard let namespace = allowed(request, handle) else { return }
            sessions[request.session]?.subscriptions.insert(namespace)
            subscribers[namespace, default: []].insert(request.session)
            reply(request, .ok)
        case .reportCorrupt(let handle, let name):
            guard let namespace = allowed(request, handle) else { return }
            reportCorrupt(request, namespace, name)
        }
    }

    /// The namespace behind a handle, or an answer and nil.
    private mutating func allowed(_ request: RequestID, _ handle: NamespaceHandle) -> UInt16? {
        guard let session = sessions[request.session], handle > 0, Int(handle) <= session.namespaces.count else {
            totals.requestsRefused += 1
            reply(request, .invalid, why: "no namespace is open with this handle")
            return nil
        }
        let open = session.namespaces[Int(handle) - 1]
        let namespace = open.number
        guard !namespaces[Int(namespace)].isDeleted, namespaces[Int(namespace)].incarnation == open.incarnation else {
            reply(request, .absent, why: "the namespace was deleted")
            return nil
        }
        // Settings may have changed since it was opened.
        guard mayUse(session.peer, namespace) else {
            totals.requestsRefused += 1
            reply(request, .forbidden)
            return nil
        }
        return namespace
    }

    func mayUse(_ peer: Peer, _ namespace: UInt16) -> Bool {
        let policy = namespaces[Int(namespace)].policy
        if policy.requiresEncryption && !peer.isEncrypted { return false }
        return operators.contains(peer.tenant) || policy.tenants.contains(peer.tenant)
    }

    /// Whose session it is.
    func tenant(of session: SessionID) -> String? { sessions[session]?.peer.tenant }

    /// The tenant of a session, where it has no more than a tenant's share of what all need.
    func limitedTenant(of session: SessionID) -> String? {
        guard settings.tenantShare < 1, let tenant = tenant(of: session) else { return nil }
        return operators.contains(tenant) ? nil : tenant
    }

    // MARK: Names

    /// The object of this name that readers may have.
    mutating func present(_ namespace: UInt16, _ name: ObjectName) -> UInt32? {
        guard let scope = scopes.number(of: ObjectScope(namespace: namespace, name)),
            let number = objects.find(name.key.short, scope: scope)
        else { return nil }
        return isPresent(number) ? number : nil
    }

    // MARK: Looking up

    private mutating func lookUp(_ request: RequestID, _ namespace: UInt16, _ names: [ObjectName]) {
        var words = [UInt64](repeating: 0, count: (names.count + 63) / 64)
        let second = second
        var start = 0
        var hits = 0
        // Names of one scope are looked up together; a batch usually has one scope.
        while start < names.count {
            let first = names[start]
            var end = start + 1
            while end < names.count, names[end].group == first.group, names[end].shard == first.shard,
                names[end].shardCount == first.shardCount
            { end += 1 }
            if let scope = scopes.number(of: ObjectScope(namespace: namespace, first)) {
                var place = start
                while place < end {
                    let count = min(16, end - place)
                    let found = objects.find(names, place..<(place + count), scope: scope)
                    for index in 0..<count {
                        let number = found[index]
                        guard number != ObjectRecord.none, isPresent(number) else { continue }
                        objects[number].touched = second
                        words[(place + index) / 64] |= 1 << UInt64((place + index) % 64)
                        hits += 1
                    }
                    place += count
                }
            }
            start = end
        }
        totals.lookUpKeys += names.count
        totals.lookUpHits += hits
        reply(request, .ok, .presence(words))
    }

    // MARK: Subscribers

    mutating func tellSubscribers() {
        guard !changes.isEmpty else { return }
        for (namespace, change) in changes {
            for session in subscribers[namespace] ?? [] {
                guard let handle = sessions[session]?.namespaces.firstIndex(of: opened(namespace)) else { continue }
                let open = NamespaceHandle(handle + 1)
                if change.hasOverflown {
                    output.append(.session(.notify(session, .overflow(open))))
                    continue
                }
                if !change.added.isEmpty { output.append(.session(.notify(session, .added(open, change.added)))) }
                if !change.removed.isEmpty { output.append(.session(.notify(session, .removed(open, change.removed)))) }
            }
        }
        changes.removeAll(keepingCapacity: true)
    }

    mutating func tell(_ number: UInt32, isAdded: Bool) {
        let scope = scopes[objects[number].scope]
        guard let listeners = subscribers[scope.namespace], !listeners.isEmpty else { return }
        let name = name(of: number)
        changes[scope.namespace, default: NamespaceChanges()].add(name, isAdded: isAdded)
    }

    /// The name of an object as memory knows it: the first 128 bits of its key, zeros behind.
    func name(of number: UInt32) -> ObjectName {
        let record = objects[number]
        let scope = scopes[record.scope]
        return ObjectName(
            FullKey(record.key.high.byteSwapped, record.key.low.byteSwapped, 0, 0), group: scope.group,
            shard: scope.shard, shardCount: scope.shardCount)
    }
}

/// What came and went in one turn of the loop, in its order within each kind.
struct NamespaceChanges {
    var added: [ObjectName] = []
    var removed: [ObjectName] = []
    var hasOverflown = false

    mutating func add(_ name: ObjectName, isAdded: Bool) {
        guard !hasOverflown else { return }
        // An object that came and went in one turn cannot be told in two lists; the listener asks anew.
        if isAdded { added.append(name) } else { removed.append(name) }
        if !isAdded, added.contains(name) { hasOverflown = true }
        if isAdded, removed.contains(name) { hasOverflown = true }
        if added.count + removed.count > 4096 { hasOverflown = true }
    }
}
