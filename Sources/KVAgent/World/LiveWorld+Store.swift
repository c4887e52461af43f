// The shared store: questions and offers become look-ups, blocks come by get and go by put, its stream tells what came
// and went. A store that is away is a miss at once.

import KVModel
import KVSystem
import KVTiering
import KVTransport

extension LiveWorld {
    /// Tags of what is not a move.
    private static let inquiryTag: UInt64 = 1 << 63
    private static let openTag: UInt64 = 1 << 62
    private static let subscribeTag: UInt64 = 1 << 62 | 1
    /// Names in one look-up.
    private static let partMax = 8192

    /// Questions wait so long at most for the store's word on any of them before others are not even put.
    private static let silenceMax = Duration(milliseconds: 20)

    var storeIsUsable: Bool { wasConnected && namespace.handle != nil }

    /// Whether questions are open and none was answered for a while. What was asked goes on and is the probe: who asks
    /// meanwhile is answered at once, with what is known here.
    private var storeIsSilent: Bool { !inquiries.isEmpty && now - storeHeardAt > Self.silenceMax }

    /// Whether the first connection is still to be made or refused.
    var isWaitingForStore: Bool {
        client != nil && desk.storeNamespace != nil && namespace.handle == nil && counters.storeLost == 0
    }

    /// When the namespace is to be asked for, if nothing happens before.
    var namespaceIsAskedForAt: Instant {
        wasConnected && namespace.isShut && desk.storeNamespace != nil ? namespace.asksAt : .distantFuture
    }

    /// Opens the namespace when there is a connection and a name for it.
    mutating func lookAfterStore() {
        guard let client else { return }
        let isConnected = inbox.storeIsConnected.load(ordering: .acquiring)
        if wasConnected, !isConnected { counters.storeLost += 1 }
        if !wasConnected, !isConnected, counters.storeLost == 0,
            inbox.storeReason.withLock({ $0 }) != AgentInbox.notConnectedYet
        {
            counters.storeLost += 1
        }
        if wasConnected != isConnected { isPublished = false }
        wasConnected = isConnected
        guard isConnected, namespace.isShut, let name = desk.storeNamespace else { return }
        let now = MonotonicClock.now
        guard now >= namespace.asksAt else { return }
        if let most = client.payloadBytesMax, storedBytes > most {
            // Every put would fail, one by one, and the store would look as if it were used.
            return shut(
                "blocks of \(ByteSize.text(storedBytes)), the store takes \(ByteSize.text(most)) (its `payloadMax`)")
        }
        guard client.submit(.openNamespace(name: name), tag: Self.openTag, deadline: now + questionLimit) == .accepted
        else { return namespace.putOff(at: now) }
        namespace.asked()
    }

    /// Bytes of a block as it is put.
    private var storedBytes: Int { settings.store?.payloadBytes ?? settings.blockBytes }

    private var questionLimit: Duration { settings.store?.questionLimit ?? Duration(seconds: 1) }

    /// The namespace is open at the store; the stream of what comes and goes is asked for.
    private mutating func found(_ handle: NamespaceHandle) {
        namespace.found(handle)
        guard settings.isSubscribed, let client else { return subscribed() }
        let now = MonotonicClock.now
        let submission = client.submit(.subscribe(handle), tag: Self.subscribeTag, deadline: now + questionLimit)
        if submission != .accepted { namespace.putOff(at: now) }
    }

    private mutating func subscribed() {
        namespace.subscribed()
        isPublished = false
    }

    /// The store will not have this agent, or not any more, or did not say in time.
    private mutating func refused(_ response: Response) {
        guard response.status != .disconnected else { return namespace.unanswered() }
        shut(
            NamespaceStanding.Hindrance(
                response, namespace: desk.storeNamespace ?? "", isSubscribing: namespace.isSubscribing,
                within: questionLimit
            ).words)
    }

    /// The store cannot be used, and why; it is looked at again after a pause.
    private mutating func shut(_ why: String) {
        let wasOpen = namespace.handle != nil
        if wasOpen || namespace.refusal == nil { counters.storeLost += 1 }
        namespace.refused(why, at: MonotonicClock.now)
        inbox.storeReason.withLock { $0 = why }
        isPublished = false
        // What is there when it is open again is not known.
        if wasOpen { streamBroke() }
    }

    // MARK: Questions and offers

    mutating func ask(_ question: StoreQuestion) -> Submission {
        guard storeIsUsable, !storeIsSilent else { return .full }
        let (names, sent) = fullNames(question.keys, of: question.request)
        let inquiry = Inquiry(
            purpose: .question, sent: sent, present: [UInt64](repeating: 0, count: (question.keys.count + 63) / 64),
            count: question.keys.count, partsLeft: 0)
        return inquire(Self.inquiryTag | UInt64(question.question) << 16, inquiry, names)
    }

    mutating func offer(_ offer: StoreOffer) -> Submission {
        guard storeIsUsable else { return .full }
        let offered = Array(offer.chain[Int(offer.firstOffered)...])
        let (names, sent) = fullNames(offered, of: offer.context.request)
        let inquiry = Inquiry(
            purpose: .offer(offer), sent: sent, present: [UInt64](repeating: 0, count: (offered.count + 63) / 64),
            count: offered.count, partsLeft: 0)
        return inquire(Self.inquiryTag | 1 << 61 | UInt64(offer.offer) << 16, inquiry, names)
    }

    private mutating func inquire(_ tag: UInt64, _ inquiry: Inquiry, _ names: [ObjectName]) -> Submission {
        guard let client, let handle = namespace.handle else { return .full }
        var inquiry = inquiry
        if inquiries.isEmpty { storeHeardAt = now }
        let deadline = MonotonicClock.now + questionLimit
        var start = 0
        while start < names.count {
            let end = min(names.count, start + Self.partMax)
            let part = Array(names[start..<end])
            let partTag = tag | UInt64(start / Self.partMax)
            if client.submit(.lookUp(handle, part), tag: partTag, deadline: deadline) == .full {
                guard start > 0 else { return .full }
                inquiry.isSilent = true
                break
            }
            inquiry.partsLeft += 1
            start = end
        }
        inquiries[tag] = inquiry
        if inquiry.partsLeft == 0 { answer(tag) }
        return .accepted
    }

    private mutating func answered(_ tag: UInt64, _ response: Response) {
        let name = tag & ~0xFFFF
        let part = Int(tag & 0xFFFF)
        guard inquiries[name] != nil else { preconditionFailure("the store answers what was not asked") }
        inquiries[name]?.partsLeft -= 1
        if response.status == .ok, case .presence(let words) = response.body {
            storeHeardAt = now
            let first = part * Self.partMax
            let sent = inquiries[name]?.sent ?? []
            for index in first..<min(sent.count, first + Self.partMax) {
                let bit = index - first
                guard bit / 64 < words.count, words[bit / 64] >> UInt64(bit % 64) & 1 == 1 else { continue }
                let position = Int(sent[index])
                inquiries[name]?.present[position / 64] |= 1 << UInt64(position % 64)
            }
        } else {
            inquiries[name]?.isSilent = true
            // It was deleted, or its tenants were changed.
            if response.status.deniesNamespace, namespace.handle != nil { refused(response) }
        }
        if inquiries[name]?.partsLeft == 0 { answer(name) }
    }

    private mutating func answer(_ tag: UInt64) {
        guard let inquiry = inquiries.removeValue(forKey: tag) else { return }
        let number = TransferNumber(truncatingIfNeeded: tag >> 16 & 0xFFFF_FFFF)
        let event: Event
        switch inquiry.purpose {
        case .question:
            event = .storeAnswered(
                StoreAnswer(question: number, present: inquiry.present, isSilent: inquiry.isSilent))
        case .offer(let offer): event = .storeWants(want(offer, inquiry))
        }
        ordinary.append(DueEvent(event: event, request: noRequest))
    }

    /// What the store lacks of an offer is wanted: whether it is worth its place the store says when it comes.
    private func want(_ offer: StoreOffer, _ inquiry: Inquiry) -> StoreWant {
        var want = StoreWant(
            offer: offer.offer, wanted: [], presentBlocks: 0,
            refusedFrom: Int32(truncatingIfNeeded: offer.chain.count))
        guard !inquiry.isSilent else { return want }
        for place in inquiry.sent where inquiry.present[Int(place) / 64] >> UInt64(place % 64) & 1 == 0 {
            let position = offer.firstOffered + place
            if let last = want.wanted.last, last.upperBound == position {
                want.wanted[want.wanted.count - 1] = last.lowerBound..<position + 1
            } else {
                want.wanted.append(position..<position + 1)
            }
        }
        if offer.firstOffered == 0 {
            var leading: Int32 = 0
            while Int(leading) < inquiry.count, inquiry.present[Int(leading) / 64] >> UInt64(leading % 64) & 1 == 1 {
                leading += 1
            }
            want.presentBlocks = leading
        }
        return want
    }

    /// The full names of keys in chain order, as far as they are known, with their places among the keys.
    private mutating func fullNames(
        _ keys: [BlockKey], of request: RequestNumber
    ) -> (names: [ObjectName], places: [Int32]) {
        let chain =
            request != noRequest && desk.records.indices.contains(Int(request))
            ? desk.records[Int(request)].names : []
        var names: [ObjectName] = []
        var places: [Int32] = []
        names.reserveCapacity(keys.count)
        places.reserveCapacity(keys.count)
        var next = 0
        for (place, key) in keys.enumerated() {
            var position = next
            while position < chain.count, chain[position].blockKey != key { position += 1 }
            if position < chain.count {
                names.append(chain[position])
                next = position + 1
            } else if let name = desk.names.find(key) {
                names.append(name)
            } else {
                counters.namesMissing += 1
                continue
            }
            places.append(Int32(truncatingIfNeeded: place))
        }
        return (names, places)
    }

    // MARK: Blocks

    mutating func beginGet(_ index: Int) -> Bool {
        let number = flights[index].next
        let order = flights[index].order
        let move = order.moves[number]
        guard let client, let handle = namespace.handle, let name = name(of: move, order.request) else {
            counters.namesMissing += 1
            flights[index].next += 1
            flights[index].outstanding += 1
            moveEnded(index, number, .absent)
            return true
        }
        let slot = slots.slice(move.destination, settings.blockBytes)
        return beginStore(index, client, .get(handle, name), slot)
    }

    private mutating func name(of move: BlockMove, _ request: RequestNumber) -> ObjectName? {
        if request != noRequest {
            let chain = desk.records[Int(request)].names
            let position = Int(move.position)
            if position >= 0, position < chain.count, chain[position].blockKey == move.key { return chain[position] }
        }
        return desk.names.find(move.key)
    }

    mutating func beginPut(_ index: Int) -> Bool {
        let move = flights[index].order.moves[flights[index].next]
        let content = slots[move.source]
        guard let client, let handle = namespace.handle, content.name.blockKey == move.key else {
            flights[index].next += 1
            flights[index].outstanding += 1
            moveEnded(index, flights[index].next - 1, .failed)
            return true
        }
        let bytes = Int(content.payloadBytes)
        let request = Request.put(
            handle, content.name, content.metadata, payloadBytes: bytes, checksum: content.checksum)
        return beginStore(index, client, request, slots.slice(move.source, bytes))
    }

    private mutating func beginStore(
        _ index: Int, _ client: StoreClient, _ request: Request, _ slot: MemorySlice
    ) -> Bool {
        let path = flights[index].path.rawValue
        let number = flights[index].next
        let deadline = MonotonicClock.now + (settings.store?.transferLimit ?? Duration(seconds: 10))
        guard client.submit(request, tag: tag(index, number), slot: slot, deadline: deadline) == .accepted else {
            if underWay[path] > 0 { return false }
            flights[index].next += 1
            flights[index].outstanding += 1
            moveEnded(index, number, .failed)
            return true
        }
        flights[index].next += 1
        flights[index].outstanding += 1
        underWay[path] += 1
        return true
    }

    // MARK: What the client tells

    mutating func take(_ event: StoreEvent) {
        switch event {
        case .completed(Self.openTag, let response, _):
            guard response.status == .ok, case .namespace(let handle) = response.body else { return refused(response) }
            found(handle)
        case .completed(Self.subscribeTag, let response, _):
            if response.status == .ok { subscribed() } else { refused(response) }
        case .completed(let tag, let response, _) where tag & Self.inquiryTag != 0: answered(tag, response)
        case .completed(let tag, let response, let slotIsFree): moved(tag, response, slotIsFree)
        case .slotReturned(let tag):
            guard let cause = returning.removeValue(forKey: tag), let (index, move) = move(of: tag) else { return }
            underWay[flights[index].path.rawValue] -= 1
            moveEnded(index, move, cause)
        case .notified, .connected, .lost: break
        }
    }

    private mutating func moved(_ tag: UInt64, _ response: Response, _ slotIsFree: Bool) {
        guard let (index, number) = move(of: tag) else { preconditionFailure("the store ends what was not begun") }
        let cause = flights[index].path == .storeGet ? got(index, number, response) : put(response)
        guard slotIsFree else {
            // The wire may still write or read the slot: the move ends when it is given back.
            returning[tag] = cause ?? .failed
            counters.quarantined += 1
            return
        }
        underWay[flights[index].path.rawValue] -= 1
        moveEnded(index, number, cause)
    }

    private mutating func got(_ index: Int, _ number: Int, _ response: Response) -> LostMove.Cause? {
        switch response.status {
        case .ok:
            guard case .object(let payloadBytes, let checksum, let metadata) = response.body,
                payloadBytes <= settings.blockBytes
            else { return .corrupt }
            let order = flights[index].order
            let move = order.moves[number]
            guard let name = name(of: move, order.request) else { return .failed }
            noteLeaving(move.destination, for: name)
            slots[move.destination] = SlotContent(
                name: name, metadata: metadata, payloadBytes: Int32(truncatingIfNeeded: payloadBytes),
                checksum: checksum)
            return nil
        case .absent: return .absent
        case .corrupt: return .corrupt
        default: return .failed
        }
    }

    private func put(_ response: Response) -> LostMove.Cause? {
        switch response.status {
        case .ok, .alreadyPresent: nil
        case .notAdmitted: .refused
        case .overBudget: .overQuota
        case .corrupt: .corrupt
        default: .failed
        }
    }

    // MARK: The stream

    mutating func take(_ notification: Notification) {
        switch notification {
        case .added(let handle, let names) where handle == namespace.handle: changed(added: names, removed: [])
        case .removed(let handle, let names) where handle == namespace.handle: changed(added: [], removed: names)
        case .overflow(let handle) where handle == namespace.handle: streamBroke()
        default: break
        }
    }

    private mutating func changed(added: [ObjectName], removed: [ObjectName]) {
        ordinary.append(
            DueEvent(
                event: .storeChanged(added: added.map(\.blockKey), removed: removed.map(\.blockKey)),
                request: noRequest))
        desk.tellSubscribers(added: added, removed: removed)
    }

    mutating func streamBroke() {
        counters.streamBroken += 1
        ordinary.append(DueEvent(event: .storeForgotten, request: noRequest))
    }
}

extension Status {
    /// Whether a look-up that ends so was asked of a namespace that is not there for who asks.
    fileprivate var deniesNamespace: Bool {
        switch self {
        case .absent, .forbidden, .invalid: true
        default: false
        }
    }
}
