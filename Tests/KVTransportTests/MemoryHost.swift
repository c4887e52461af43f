// A store in a dictionary, for the transports' tests: it keeps payloads in the slots of one memory, counts them, and does
// wrong what a test wants done wrong.

import KVModel
import KVSystem
import KVTransport
import Synchronization

final class MemoryHost: SessionHost {
    /// What goes wrong.
    struct Faults {
        /// So many requests find no room first.
        var fullCount = 0
        /// Gets are not answered until `releaseHeld`.
        var holdsGets = false
        /// Puts get no room until `releaseHeld`.
        var holdsPuts = false
        /// The next get's payload is changed before it is sent.
        var corruptsNextGet = false
        /// Puts are refused before their payload.
        var refusesPuts = false
        /// Cancels are not answered until `releaseHeld`.
        var holdsCancels = false
        /// Payloads of no bytes are refused, as the store does it.
        var refusesEmptyPuts = false
        /// Requests of this operation are not answered until `releaseHeld`.
        var heldOperation: Operation?
        /// As many sessions are opened at a time.
        var sessionsMax = Int.max
        /// A tenant's key is taken away while its session is opened.
        var revokesKeys = false
        /// Subscribing ends with this, as long as it is there.
        var subscribeStatus = Status.ok
    }

    private struct Place: Hashable {
        var tenant: String
        var namespace: String
        var name: ObjectName
    }

    private struct Object {
        var slot: Int
        var payloadBytes: Int
        var checksum: UInt64
        var metadata: ObjectMetadata
        var readers = 0
    }

    private struct Session {
        var peer: Peer
        var namespaces: [String] = []
        var subscriptions: Set<NamespaceHandle> = []
    }

    fileprivate enum Held {
        case get(RequestID, NamespaceHandle, ObjectName)
        case put(RequestID, into: MemorySlice)
        case cancel(RequestID)
        case any(RequestID, Request)
    }

    private struct State {
        var revoked: Set<String> = []
        var objects: [Place: Object] = [:]
        var sessions: [SessionID: Session] = [:]
        var free: [Int]
        var incoming: [RequestID: (Place, Object)] = [:]
        var sending: [RequestID: Place] = [:]
        var held: [Held] = []
        var faults = Faults()
        var corruptReports: [ObjectName] = []
        var closedCount = 0
        var openedCount = 0
        var peers: [Peer] = []
        var abortedCount = 0
        var requests: [String] = []
        var cancelCount = 0
        var offeredCount = 0
    }

    let memory: BlockMemory
    let slotBytes: Int
    let slotCount: Int
    private let secrets: [String: [UInt8]]
    private let state: Mutex<State>
    private let server = Mutex<(any SessionServer)?>(nil)

    init(slotBytes: Int, slotCount: Int, secrets: [String: [UInt8]]) throws {
        memory = try BlockMemory(byteCount: slotBytes * slotCount, wantsHugePages: false)
        self.slotBytes = slotBytes
        self.slotCount = slotCount
        self.secrets = secrets
        state = Mutex(State(free: Array((0..<slotCount).reversed())))
    }

    func attach(_ server: any SessionServer) { self.server.withLock { $0 = server } }
    func detach() { server.withLock { $0 = nil } }

    func secret(ofTenant tenant: String) -> [UInt8]? {
        state.withLock { $0.revoked.contains(tenant) ? nil : secrets[tenant] }
    }

    func set(_ change: (inout Faults) -> Void) { state.withLock { change(&$0.faults) } }
    var corruptReports: [ObjectName] { state.withLock { $0.corruptReports } }
    var openedCount: Int { state.withLock { $0.openedCount } }
    var closedCount: Int { state.withLock { $0.closedCount } }
    var abortedCount: Int { state.withLock { $0.abortedCount } }
    var heldCount: Int { state.withLock { $0.held.count } }
    var peers: [Peer] { state.withLock { $0.peers } }
    /// What was asked, in order: the operation of each request.
    var requests: [String] { state.withLock { $0.requests } }
    var cancelCount: Int { state.withLock { $0.cancelCount } }
    /// Requests that came, those that found no room included, each time they were offered.
    var offeredCount: Int { state.withLock { $0.offeredCount } }
    var objectCount: Int { state.withLock { $0.objects.count } }
    var sessionIDs: [SessionID] { state.withLock { Array($0.sessions.keys) } }

    /// Every slot is free or holds an object, and nothing is under way.
    var isAccounted: Bool {
        state.withLock {
            $0.free.count + $0.objects.count == slotCount && $0.incoming.isEmpty && $0.sending.isEmpty
                && $0.objects.values.allSatisfy { $0.readers == 0 }
        }
    }

    func post(_ command: SessionCommand) {
        let server = self.server.withLock { $0 }
        guard let server else { return }
        let acceptance = server.post(command)
        if case .notify = command { return }
        precondition(acceptance == .accepted, "a transport has no room for an answer")
    }

    /// Answers what was held.
    func releaseHeld() {
        let held = state.withLock { state in
            defer { state.held = [] }
            state.faults.holdsGets = false
            state.faults.holdsPuts = false
            state.faults.holdsCancels = false
            state.faults.heldOperation = nil
            return state.held
        }
        for one in held {
            switch one {
            case .get(let request, let namespace, let name): get(request, namespace, name)
            case .put(let request, let slice): post(.receive(request, into: slice))
            case .cancel(let request): post(.reply(request, Response(.ok)))
            case .any(let request, let wish): answer(request, wish)
            }
        }
    }

    /// Tells every subscriber of a namespace, whoever caused it; how many of these found no room.
    @discardableResult
    func announce(
        _ namespace: String, tenant: String = "tenant", _ make: (NamespaceHandle) -> KVTransport.Notification
    ) -> Int {
        let all = state.withLock { state -> [(SessionID, NamespaceHandle)] in
            state.sessions.compactMap { id, session in
                guard session.peer.tenant == tenant, let place = session.namespaces.firstIndex(of: namespace),
                    session.subscriptions.contains(NamespaceHandle(place + 1))
                else { return nil }
                return (id, NamespaceHandle(place + 1))
            }
        }
        let server = self.server.withLock { $0 }
        return all.count { server?.post(.notify($0.0, make($0.1))) == .full }
    }

    /// Ends every session, giving this reason.
    func disconnectAll(_ reason: String) {
        for session in sessionIDs { post(.disconnect(session, reason: reason)) }
    }

    func deliver(_ event: SessionEvent) -> Acceptance {
        switch event {
        case .opened(let id, let peer):
            let isFull = state.withLock { state in
                guard state.sessions.count < state.faults.sessionsMax else { return true }
                state.sessions[id] = Session(peer: peer)
                state.openedCount += 1
                if state.faults.revokesKeys { state.revoked.insert(peer.tenant) }
                state.peers.append(peer)
                return false
            }
            if isFull { return .full }
        case .closed(let id):
            state.withLock {
                $0.sessions[id] = nil
                $0.closedCount += 1
                precondition(!$0.incoming.keys.contains { $0.session == id }, "closed with a payload under way")
                precondition(!$0.sending.keys.contains { $0.session == id }, "closed with a payload under way")
            }
        case .request(let id, let request):
            let isFull = state.withLock { state in
                state.offeredCount += 1
                guard state.faults.fullCount > 0 else { return false }
                state.faults.fullCount -= 1
                return true
            }
            if isFull { return .full }
            let isHeld = state.withLock { state in
                state.requests.append(request.label)
                guard state.faults.heldOperation == request.operation else { return false }
                state.held.append(.any(id, request))
                return true
            }
            if !isHeld { answer(id, request) }
        case .received(let id, let outcome): received(id, outcome)
        case .sent(let id, let outcome):
            state.withLock { state in
                guard let place = state.sending.removeValue(forKey: id) else { preconditionFailure("sent twice") }
                state.objects[place]?.readers -= 1
                if outcome == .aborted { state.abortedCount += 1 }
            }
        }
        return .accepted
    }

    private func place(_ id: RequestID, _ namespace: NamespaceHandle, _ name: ObjectName) -> Place? {
        state.withLock { state in
            guard let session = state.sessions[id.session], namespace > 0,
                Int(namespace) <= session.namespaces.count
            else { return nil }
            return Place(
                tenant: session.peer.tenant, namespace: session.namespaces[Int(namespace) - 1], name: name)
        }
    }

    private func answer(_ id: RequestID, _ request: Request) {
        switch request {
        case .openNamespace(let name):
            let handle = state.withLock { state -> NamespaceHandle in
                state.sessions[id.session]!.namespaces.append(name)
                return NamespaceHandle(state.sessions[id.session]!.namespaces.count)
            }
            post(.reply(id, Response(.ok, .namespace(handle))))
        case .lookUp(let namespace, let names):
            var words = [UInt64](repeating: 0, count: (names.count + 63) / 64)
            for (index, name) in names.enumerated() {
                guard let place = place(id, namespace, name) else { continue }
                if state.withLock({ $0.objects[place] != nil }) { words[index / 64] |= 1 << UInt64(index % 64) }
            }
            post(.reply(id, Response(.ok, .presence(words))))
        case .get(let namespace, let name):
            let isHeld = state.withLock { state in
                if state.faults.holdsGets { state.held.append(.get(id, namespace, name)) }
                return state.faults.holdsGets
            }
            if !isHeld { get(id, namespace, name) }
        case .put(let namespace, let name, let metadata, let payloadBytes, let checksum):
            put(id, namespace, name, metadata, payloadBytes, checksum)
        case .delete(let namespace, let names), .pin(let namespace, let names, _, _),
            .unpin(let namespace, let names, _):
            var isDelete = false
            if case .delete = request { isDelete = true }
            let statuses = names.map { name -> Status in
                guard let place = place(id, namespace, name) else { return .invalid }
                return state.withLock { state in
                    guard let object = state.objects[place] else { return .absent }
                    if isDelete, object.readers > 0 { return .busy }
                    if isDelete {
                        state.objects[place] = nil
                        state.free.append(object.slot)
                    }
                    return .ok
                }
            }
            if isDelete, let place = place(id, namespace, .init(.none)) {
                announce(place.namespace, tenant: place.tenant) { .removed($0, names) }
            }
            post(.reply(id, Response(.ok, .statuses(statuses))))
        case .list(let namespace, let cursor, let countMax):
            guard let any = place(id, namespace, ObjectName(.none)) else { return refuse(id) }
            let all = state.withLock { state in
                state.objects.filter { $0.key.tenant == any.tenant && $0.key.namespace == any.namespace }
                    .map { ListedObject(name: $0.key.name, payloadBytes: UInt32($0.value.payloadBytes), flags: 2) }
            }.sorted { $0.name.key.words.0 < $1.name.key.words.0 }
            let page = Array(all.dropFirst(Int(cursor)).prefix(Int(countMax)))
            let next = Int(cursor) + page.count
            post(.reply(id, Response(.ok, .page(page, next: next < all.count ? UInt64(next) : 0))))
        case .describe(let namespace, let name):
            let there = place(id, namespace, name).map { place in state.withLock { $0.objects[place] != nil } }
            post(.reply(id, Response(there == true ? .ok : .absent, .text(Array("{}".utf8)))))
        case .stat: post(.reply(id, Response(.ok, .text(Array(#"{"store":"memory"}"#.utf8)))))
        case .subscribe(let namespace):
            let status = state.withLock { state in
                if state.faults.subscribeStatus == .ok {
                    _ = state.sessions[id.session]?.subscriptions.insert(namespace)
                }
                return state.faults.subscribeStatus
            }
            post(.reply(id, Response(status)))
        case .reportCorrupt(_, let name):
            state.withLock { $0.corruptReports.append(name) }
            post(.reply(id, Response(.ok)))
        case .administer(let verb, let arguments):
            post(.reply(id, Response(.ok, .text(Array("\(verb) ".utf8) + arguments))))
        case .cancel(let number):
            let target = RequestID(session: id.session, number: number)
            let isHeld = state.withLock { state in
                state.cancelCount += 1
                if state.faults.holdsCancels { state.held.append(.cancel(id)) }
                return state.faults.holdsCancels
            }
            if isHeld { return }
            let held = state.withLock { state -> Held? in
                guard let index = state.held.firstIndex(where: { $0.request == target }) else { return nil }
                return state.held.remove(at: index)
            }
            // The acknowledgement first: the transport holds it back until the cancelled request was answered.
            post(.reply(id, Response(.ok)))
            if case .get? = held { post(.reply(target, Response(.cancelled))) }
            if case .put? = held {
                state.withLock { state in
                    if let (_, object) = state.incoming.removeValue(forKey: target) { state.free.append(object.slot) }
                }
                post(.reply(target, Response(.cancelled)))
            }
        }
    }

    private func refuse(_ id: RequestID) { post(.reply(id, Response(.invalid))) }

    private func slice(_ slot: Int, _ count: Int) -> MemorySlice {
        MemorySlice(offset: slot * slotBytes, count: count)
    }

    private func get(_ id: RequestID, _ namespace: NamespaceHandle, _ name: ObjectName) {
        guard let place = place(id, namespace, name) else { return refuse(id) }
        let found = state.withLock { state -> Object? in
            guard let object = state.objects[place] else { return nil }
            state.objects[place]!.readers += 1
            state.sending[id] = place
            if state.faults.corruptsNextGet, object.payloadBytes > 0 {
                state.faults.corruptsNextGet = false
                unsafe memory[slice(object.slot, object.payloadBytes)][object.payloadBytes / 2] ^= 4
            }
            return object
        }
        guard let found else { return post(.reply(id, Response(.absent))) }
        let body = ResponseBody.object(
            payloadBytes: found.payloadBytes, checksum: found.checksum, found.metadata)
        post(.send(id, Response(.ok, body), from: slice(found.slot, found.payloadBytes)))
    }

    private func put(
        _ id: RequestID, _ namespace: NamespaceHandle, _ name: ObjectName, _ metadata: ObjectMetadata,
        _ payloadBytes: Int, _ checksum: UInt64
    ) {
        guard let place = place(id, namespace, name), payloadBytes <= slotBytes else { return refuse(id) }
        let answer = state.withLock { state -> SessionCommand? in
            if state.faults.refusesEmptyPuts, payloadBytes == 0 { return .reply(id, Response(.invalid)) }
            if state.faults.refusesPuts { return .reply(id, Response(.notAdmitted)) }
            if state.objects[place] != nil { return .reply(id, Response(.alreadyPresent)) }
            guard let slot = state.free.popLast() else { return .reply(id, Response(.busy)) }
            let object = Object(slot: slot, payloadBytes: payloadBytes, checksum: checksum, metadata: metadata)
            state.incoming[id] = (place, object)
            let slice = slice(slot, payloadBytes)
            guard state.faults.holdsPuts else { return .receive(id, into: slice) }
            state.held.append(.put(id, into: slice))
            return nil
        }
        if let answer { post(answer) }
    }

    private func received(_ id: RequestID, _ outcome: PayloadOutcome) {
        var added: Place?
        let status = state.withLock { state -> Status in
            guard let (place, object) = state.incoming.removeValue(forKey: id) else {
                preconditionFailure("a payload of no put")
            }
            if outcome == .aborted { state.abortedCount += 1 }
            guard outcome == .whole, state.objects[place] == nil else {
                state.free.append(object.slot)
                return outcome == .whole ? .alreadyPresent : outcome == .corrupt ? .corrupt : .cancelled
            }
            state.objects[place] = object
            added = place
            return .ok
        }
        // Visible first, then told, then acknowledged.
        if let added { announce(added.namespace, tenant: added.tenant) { .added($0, [added.name]) } }
        post(.reply(id, Response(status)))
    }
}

extension MemoryHost.Held {
    var request: RequestID {
        switch self {
        case .get(let request, _, _), .put(let request, _), .cancel(let request), .any(let request, _): request
        }
    }
}

extension Request {
    /// Which operation it is, without its operands.
    fileprivate var label: String { "\(operation)" }
}
