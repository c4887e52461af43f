// Namespaces: who opens, makes, changes and deletes them. Settings hold from the moment the catalogue has them, so that
// what was refused is never in force.

import KVModel
import KVTransport

extension StoreDecisions {
    /// Namespaces a session may have open, and namespaces a store may have.
    static var handlesMax: Int { 1024 }
    static var namespacesMax: Int { 4096 }
    /// Namespaces that may list a tenant which then still makes another: one tenant cannot take all there are.
    static var namespacesATenantMax: Int { 256 }

    // MARK: Opening

    mutating func openNamespace(_ request: RequestID, _ name: String) {
        guard let session = sessions[request.session] else { return }
        guard !name.isEmpty, name.utf8.count <= 200 else {
            reply(request, .invalid, why: "a namespace's name has 1 to 200 bytes")
            return
        }
        // What is in the catalogue already stays in use.
        guard namespaceByName[name] != nil || !name.hasControlCharacters else {
            reply(request, .invalid, why: "a namespace's name has no control characters")
            return
        }
        guard let number = namespaceByName[name] ?? makeOpened(request, name, session.peer) else { return }
        guard !namespaces[Int(number)].isDeleted else {
            reply(request, .busy, why: "the namespace is being deleted")
            return
        }
        guard mayUse(session.peer, number) else {
            totals.requestsRefused += 1
            let isClear = namespaces[Int(number)].policy.requiresEncryption && !session.peer.isEncrypted
            reply(request, .forbidden, why: isClear ? "the namespace demands encryption: use TLS" : "not permitted")
            return
        }
        let open = opened(number)
        if let handle = session.namespaces.firstIndex(of: open) {
            reply(request, .ok, .namespace(NamespaceHandle(handle + 1)))
            return
        }
        guard session.namespaces.count < Self.handlesMax else {
            reply(request, .busy, why: "a session opens at most \(Self.handlesMax) namespaces")
            return
        }
        sessions[request.session]?.namespaces.append(open)
        reply(request, .ok, .namespace(NamespaceHandle(session.namespaces.count + 1)))
    }

    /// A namespace as a session that opens it now knows it.
    func opened(_ number: UInt16) -> OpenNamespace {
        OpenNamespace(number: number, incarnation: namespaces[Int(number)].incarnation)
    }

    /// Makes a namespace for who opens it first, or answers why not.
    private mutating func makeOpened(_ request: RequestID, _ name: String, _ peer: Peer) -> UInt16? {
        // Blocks without a catalogue belong to nobody but operators.
        let isOperator = operators.contains(peer.tenant)
        if !settings.opensUnknownNamespaces {
            reply(request, .absent, why: "no such namespace")
        } else if isDraining {
            reply(request, .unavailable)
        } else if settingChanges[name] != nil {
            reply(request, .busy, why: "the namespace is being made")
        } else if !isOperator, isListedOften(peer.tenant) {
            totals.requestsRefused += 1
            let most = Self.namespacesATenantMax
            reply(request, .overBudget, why: "a tenant makes no more when \(most) namespaces list it; an operator can")
        } else {
            var policy = settings.defaultPolicy
            policy.tenants.append(peer.tenant)
            switch makeNamespace(name, policy, claimsRecovered: isOperator) {
            case .made(let number):
                // It is made whether or not the catalogue takes it: the next start makes it again.
                commit(.setNamespace(name: name, policy), .quiet)
                return number
            case .unclaimed:
                reply(request, .forbidden, why: "its blocks were found without a catalogue; an operator names it first")
            case .full: refuseForNumber(request)
            }
        }
        return nil
    }

    private func isListedOften(_ tenant: String) -> Bool {
        namespaces.count { !$0.isDeleted && $0.policy.tenants.contains(tenant) } >= Self.namespacesATenantMax
    }

    private mutating func refuseForNumber(_ request: RequestID) {
        reply(request, .overBudget, why: "the store has \(Self.namespacesMax) namespaces, as many as it takes")
    }

    // MARK: Making

    /// What came of making a namespace.
    enum Making {
        case made(UInt16)
        /// Blocks of this name were recovered, and who asks may not claim them.
        case unclaimed
        /// All numbers are taken.
        case full
    }

    /// A new namespace, or the recovered one of the same name.
    mutating func makeNamespace(_ name: String, _ policy: NamespacePolicy, claimsRecovered: Bool) -> Making {
        let digest = StoreNamespace.digest(of: name)
        if let recovered = namespaceByDigest[digest] {
            guard claimsRecovered, namespaces[Int(recovered)].name.isEmpty else { return .unclaimed }
            namespaces[Int(recovered)].name = name
            namespaces[Int(recovered)].policy = policy
            namespaceByName[name] = recovered
            return .made(recovered)
        }
        guard let number = freeNumber() else { return .full }
        let made = StoreNamespace(
            number: number, name: name, digest: digest, policy: policy, incarnation: nextIncarnation)
        nextIncarnation += 1
        if Int(number) == namespaces.count { namespaces.append(made) } else { namespaces[Int(number)] = made }
        namespaceByName[name] = number
        namespaceByDigest[digest] = number
        return .made(number)
    }

    /// A number that no namespace has: a fresh one, or that of a deleted one of which nothing is left.
    private mutating func freeNumber() -> UInt16? {
        if namespaces.count < Self.namespacesMax { return UInt16(namespaces.count) }
        let puts = Set(operations.lazy.filter { $0.kind == .put }.map(\.namespace))
        guard let left = namespaces.first(where: { $0.isForgotten && $0.usedBytes == 0 && !puts.contains($0.number) })
        else { return nil }
        if sweep?.namespace == left.number { sweep = nil }
        return left.number
    }

    // MARK: Changing

    mutating func setNamespace(_ request: RequestID, _ order: OrderArguments) {
        guard let name = order.namespace, !name.isEmpty, name.utf8.count <= 200, let change = order.policy else {
            reply(request, .invalid, why: "a namespace has a name of 1 to 200 bytes and settings")
            return
        }
        guard namespaceByName[name] != nil || !name.hasControlCharacters else {
            reply(request, .invalid, why: "a namespace's name has no control characters")
            return
        }
        guard (change.quotaBytes ?? 0) >= 0, (change.pinQuotaBytes ?? 0) >= 0, (change.retentionSeconds ?? 0) >= 0
        else {
            reply(request, .invalid, why: "quotas and retention are not negative")
            return
        }
        // One change of a namespace at a time: the next builds on what this one leaves.
        guard settingChanges[name] == nil else {
            settingChanges[name]?.append((request, change))
            return
        }
        settingChanges[name] = []
        beginSetting(request, name, change)
    }

    private mutating func beginSetting(_ request: RequestID, _ name: String, _ change: PolicyChange) {
        let known = namespaceByName[name]
        if let known, namespaces[Int(known)].isDeleted {
            reply(request, .busy, why: "the namespace is being deleted")
            continueSetting(name)
            return
        }
        let policy = change.applied(to: known.map { namespaces[Int($0)].policy } ?? NamespacePolicy())
        commit(.setNamespace(name: name, policy), .set(request, name: name, policy))
    }

    mutating func endSetting(_ request: RequestID, _ name: String, _ policy: NamespacePolicy, _ succeeded: Bool) {
        if !succeeded {
            reply(request, .failed, why: "the catalogue failed")
        } else if let known = namespaceByName[name] {
            answerSet(request, known, policy)
        } else {
            switch makeNamespace(name, policy, claimsRecovered: true) {
            case .made(let number): answerSet(request, number, policy)
            case .unclaimed, .full:
                commit(.removeNamespace(name: name), .quiet)
                refuseForNumber(request)
            }
        }
        continueSetting(name)
    }

    private mutating func answerSet(_ request: RequestID, _ number: UInt16, _ policy: NamespacePolicy) {
        namespaces[Int(number)].policy = policy
        var result = OrderResult()
        result.namespace = namespaces[Int(number)].status
        answer(request, result)
    }

    private mutating func continueSetting(_ name: String) {
        guard let waiting = settingChanges[name], let next = waiting.first else {
            settingChanges[name] = nil
            return
        }
        settingChanges[name]?.removeFirst()
        beginSetting(next.0, name, next.1)
    }

    // MARK: Deleting

    /// Empties a namespace and then takes it out of the catalogue. From here on nobody can use it.
    mutating func deleteNamespace(_ request: RequestID, _ order: OrderArguments) {
        guard let name = order.namespace, let number = namespaceByName[name] else {
            reply(request, .absent, why: "no such namespace")
            return
        }
        let state = namespaces[Int(number)]
        guard !state.isDeleted, settingChanges[name] == nil else {
            reply(request, .busy, why: "the namespace is being deleted or changed")
            return
        }
        guard state.usedBytes == 0 || order.force == true else {
            reply(request, .invalid, why: "it has \(state.presentCount) blocks; say --force to remove them, too")
            return
        }
        guard state.pinnedBytes == 0 else {
            reply(request, .forbidden, why: "it has pinned blocks; unpin them first")
            return
        }
        namespaces[Int(number)].isDeleted = true
        begin(Clearing(request: request, namespace: number, deletes: true))
    }

    /// The catalogue has forgotten a namespace, or failed to.
    mutating func endDeleting(_ request: RequestID, _ number: UInt16, _ removed: Int, _ succeeded: Bool) {
        let state = namespaces[Int(number)]
        guard succeeded else {
            namespaces[Int(number)].isDeleted = false
            reply(request, .failed, why: "the catalogue failed; the namespace stays, its \(removed) blocks are gone")
            return
        }
        namespaces[Int(number)].isForgotten = true
        namespaceByName[state.name] = nil
        // The digest leads to a fresh one when the name is used again.
        namespaceByDigest[state.digest] = nil
        forgetDanglingPins(of: number)
        for session in subscribers.removeValue(forKey: number) ?? [] { sessions[session]?.subscriptions.remove(number) }
        var result = OrderResult()
        result.removed = removed
        answer(request, result)
    }
}
