// Pins and leases: marked in memory first, so that eviction refuses; then durable in the catalogue; then acknowledged.

import KVModel
import KVTransport

/// Somebody's wish that an object stays.
struct StorePin: Equatable {
    var owner: String
    /// Wall-clock second at which it ends; 0 = when it is taken away.
    var expires: Int64
    /// The object's whole name, which memory keeps for pinned objects only.
    var name: ObjectName
    /// Which request made or renewed it; 0 for one of an earlier start. What ends one leaves a renewal of it alone.
    var serial: UInt64 = 0
}

/// The name of a pinned object, found or not: by the 128 bits that the table compares, so that a pin made from a
/// listing and one made with the whole key are the same.
struct PinnedName: Hashable {
    let namespace: UInt16
    let name: ObjectName

    init(namespace: UInt16, name: ObjectName) {
        self.namespace = namespace
        var known = name
        known.key = FullKey(name.key[0], name.key[1], 0, 0)
        self.name = known
    }
}

/// What happens when a change of the catalogue is durable, or failed.
enum CatalogueWork {
    /// Nothing: it was told for the next start.
    case quiet
    /// Answers a request to pin; what was marked is unmarked if it failed.
    case pinned(RequestID, [Status], marked: [(PinnedName, StorePin)])
    /// Takes pins away and answers.
    case unpinned(RequestID, [Status], [(PinnedName, StorePin)])
    /// Settings hold from now on; those that wait to change them further go on.
    case set(RequestID, name: String, NamespacePolicy)
    /// A namespace without blocks is gone; if it failed it is there again.
    case deleted(RequestID, UInt16, removed: Int)
}

extension StoreDecisions {
    mutating func commit(_ change: CatalogueChange, _ work: CatalogueWork) {
        let ticket = takeTicket()
        catalogueWork[ticket] = work
        output.append(.catalogue(ticket: ticket, change))
    }

    mutating func catalogued(_ ticket: UInt64, _ succeeded: Bool) {
        guard let work = catalogueWork.removeValue(forKey: ticket) else {
            preconditionFailure("a change of the catalogue ends that nobody made")
        }
        totals.cataloguedChanges += 1
        if !succeeded {
            totals.catalogueFailures += 1
            note("a change of the catalogue could not be made durable")
        }
        switch work {
        case .quiet: break
        case .set(let request, let name, let policy): endSetting(request, name, policy, succeeded)
        case .deleted(let request, let number, let removed): endDeleting(request, number, removed, succeeded)
        case .pinned(let request, var statuses, let marked):
            if !succeeded {
                for (pinned, pin) in marked { unmark(pinned, pin) }
                statuses = statuses.map { $0 == .ok ? .failed : $0 }
            }
            reply(request, .ok, .statuses(statuses))
        case .unpinned(let request, var statuses, let pins):
            if succeeded {
                for (pinned, pin) in pins { unmark(pinned, pin) }
            } else {
                statuses = statuses.map { $0 == .ok ? .failed : $0 }
            }
            reply(request, .ok, .statuses(statuses))
        }
    }

    // MARK: Pinning

    /// Owners that keep one object: all its pins go into one page of them.
    static var ownersMax: Int { 256 }

    mutating func pin(
        _ request: RequestID, _ namespace: UInt16, _ names: [ObjectName], _ owner: String, _ lifetimeSeconds: UInt32
    ) {
        guard !owner.isEmpty, owner.utf8.count <= 200 else {
            reply(request, .invalid, why: "an owner's name has 1 to 200 bytes")
            return
        }
        guard !owner.hasControlCharacters else {
            reply(request, .invalid, why: "an owner's name has no control characters")
            return
        }
        let expires = lifetimeSeconds == 0 ? 0 : wallSecond + Int64(lifetimeSeconds)
        let serial = takeTicket()
        var statuses: [Status] = []
        var marked: [(PinnedName, StorePin)] = []
        var records: [PinRecord] = []
        var room = pinRoom(of: request.session, in: namespace)
        for name in names {
            let pin = StorePin(owner: owner, expires: expires, name: name, serial: serial)
            let pinned = PinnedName(namespace: namespace, name: name)
            let isRenewal = present(namespace, name).flatMap { pins[$0] }?.contains { $0.owner == owner } ?? false
            let bytes = room == nil ? 0 : bytesToPin(pinned)
            let status = bytes > room ?? .max ? .overBudget : mark(pinned, pin)
            statuses.append(status)
            guard status == .ok else { continue }
            room = room.map { $0 - bytes }
            // A renewal that fails leaves the pin that was there.
            if !isRenewal { marked.append((pinned, pin)) }
            records.append(record(of: pinned, pin))
        }
        guard !records.isEmpty else {
            reply(request, .ok, .statuses(statuses))
            return
        }
        commit(.addPins(records), .pinned(request, statuses, marked: marked))
    }

    /// What may still be pinned for the tenant who asks, in the namespaces that are its alone; nil: what their quotas say. Quotas of
    /// namespaces that it makes are its own choice, as many as it makes.
    private func pinRoom(of session: SessionID, in namespace: UInt16) -> Int? {
        guard let tenant = limitedTenant(of: session), namespaces[Int(namespace)].policy.tenants == [tenant] else {
            return nil
        }
        let pinned = namespaces.reduce(0) { $1.policy.tenants == [tenant] ? $0 + $1.pinnedBytes : $0 }
        return Int(settings.tenantShare * Double(objects.extentCount * settings.extentBytes)) - pinned
    }

    /// Bytes that a pin of this object would be the first to take.
    private mutating func bytesToPin(_ pinned: PinnedName) -> Int {
        guard let number = present(pinned.namespace, pinned.name), pins[number] == nil else { return 0 }
        return extentCount(Int(objects[number].payloadBytes)) * settings.extentBytes
    }

    /// Marks an object as pinned, if the budget allows: from here on it is not evicted.
    private mutating func mark(_ pinned: PinnedName, _ pin: StorePin) -> Status {
        guard let number = present(pinned.namespace, pinned.name) else { return .absent }
        let record = objects[number]
        guard !record.flags.contains(.isVolatile) else { return .invalid }
        var held = pins[number] ?? []
        if let place = held.firstIndex(where: { $0.owner == pin.owner }) {
            held[place] = pin
            pins[number] = held
            notePinExpiry(pin)
            return .ok
        }
        let bytes = extentCount(Int(record.payloadBytes)) * settings.extentBytes
        let namespace = Int(pinned.namespace)
        if held.isEmpty {
            guard namespaces[namespace].pinnedBytes + bytes <= namespaces[namespace].policy.pinQuotaBytes else {
                return .overBudget
            }
        }
        guard pinRoom.hasPlace(for: pinned.namespace), held.count < Self.ownersMax else { return .overBudget }
        if held.isEmpty {
            namespaces[namespace].pinnedBytes += bytes
            objects[number].flags.insert(.isPinned)
        }
        held.append(pin)
        pins[number] = held
        pinRoom.take(for: pinned.namespace)
        notePinExpiry(pin)
        return .ok
    }

    mutating func unpin(_ request: RequestID, _ namespace: UInt16, _ names: [ObjectName], _ owner: String) {
        var statuses: [Status] = []
        var found: [(PinnedName, StorePin)] = []
        var records: [PinRecord] = []
        for name in names {
            let pinned = PinnedName(namespace: namespace, name: name)
            guard let pin = pin(of: pinned, owner: owner) else {
                statuses.append(.absent)
                continue
            }
            statuses.append(.ok)
            found.append((pinned, pin))
            records.append(record(of: pinned, pin))
        }
        guard !records.isEmpty else {
            reply(request, .ok, .statuses(statuses))
            return
        }
        commit(.removePins(records), .unpinned(request, statuses, found))
    }

    private mutating func pin(of pinned: PinnedName, owner: String) -> StorePin? {
        if let dangling = danglingPins[pinned]?.first(where: { $0.owner == owner }) { return dangling }
        guard let number = present(pinned.namespace, pinned.name) else { return nil }
        return pins[number]?.first { $0.owner == owner }
    }

    /// Takes one owner's pin away, wherever it is, unless it was renewed.
    private mutating func unmark(_ pinned: PinnedName, _ pin: StorePin) {
        func isIt(_ other: StorePin) -> Bool { other.owner == pin.owner && other.serial == pin.serial }
        if var held = danglingPins[pinned], let place = held.firstIndex(where: isIt) {
            held.remove(at: place)
            danglingPins[pinned] = held.isEmpty ? nil : held
            pinRoom.giveBack(of: pinned.namespace)
            return
        }
        guard let number = present(pinned.namespace, pinned.name), var held = pins[number],
            let place = held.firstIndex(where: isIt)
        else { return }
        held.remove(at: place)
        pinRoom.giveBack(of: pinned.namespace)
        pins[number] = held.isEmpty ? nil : held
        if held.isEmpty { unpinObject(number) }
    }

    private mutating func unpinObject(_ number: UInt32) {
        objects[number].flags.remove(.isPinned)
        let namespace = Int(scopes[objects[number].scope].namespace)
        let bytes = extentCount(Int(objects[number].payloadBytes)) * settings.extentBytes
        namespaces[namespace].pinnedBytes -= bytes
    }

    // MARK: Pins whose object is not there

    /// The object goes in spite of its pins (damaged, or its drive failed): they are listed as dangling.
    mutating func loosenPins(of number: UInt32) {
        guard let held = pins.removeValue(forKey: number) else { return }
        let namespace = scopes[objects[number].scope].namespace
        for pin in held { danglingPins[PinnedName(namespace: namespace, name: pin.name), default: []].append(pin) }
        unpinObject(number)
    }

    /// A pinned object was stored again. Its pins hold again, as far as the budget goes.
    mutating func attachDanglingPins(to number: UInt32, _ namespace: UInt16, _ name: ObjectName) {
        guard !danglingPins.isEmpty else { return }
        let pinned = PinnedName(namespace: namespace, name: name)
        guard let held = danglingPins.removeValue(forKey: pinned) else { return }
        pinRoom.giveBack(held.count, of: namespace)
        for pin in held where mark(pinned, pin) != .ok {
            danglingPins[pinned, default: []].append(pin)
            pinRoom.take(for: namespace)
        }
    }

    /// A namespace is gone, and with it the pins of blocks that it had not.
    mutating func forgetDanglingPins(of namespace: UInt16) {
        for (pinned, held) in danglingPins where pinned.namespace == namespace {
            pinRoom.giveBack(held.count, of: namespace)
            danglingPins[pinned] = nil
        }
    }

    // MARK: Expiry

    private mutating func notePinExpiry(_ pin: StorePin) {
        guard pin.expires > 0 else { return }
        nextPinExpiry = min(nextPinExpiry, instant(ofWall: pin.expires))
    }

    /// What a catalogue says may be any number; the clock's nanoseconds end some 290 years on.
    private func instant(ofWall second: Int64) -> Instant {
        guard second < 1 << 33 else { return .distantFuture }
        return Instant(nanoseconds: max(0, second - settings.wallSecondsAtOrigin) * 1_000_000_000)
    }

    mutating func expirePins() {
        guard nextPinExpiry <= now else { return }
        nextPinExpiry = .distantFuture
        var ended: [(PinnedName, StorePin)] = []
        for (number, held) in pins {
            let namespace = scopes[objects[number].scope].namespace
            for pin in held where pin.expires > 0 {
                if pin.expires <= wallSecond {
                    ended.append((PinnedName(namespace: namespace, name: pin.name), pin))
                } else {
                    notePinExpiry(pin)
                }
            }
        }
        for (pinned, held) in danglingPins {
            for pin in held where pin.expires > 0 {
                if pin.expires <= wallSecond { ended.append((pinned, pin)) } else { notePinExpiry(pin) }
            }
        }
        guard !ended.isEmpty else { return }
        // What the dictionaries' order decides must not show: the same events give the same commands.
        let ordered = ended.map { (record(of: $0.0, $0.1), $0) }
            .sorted { ($0.0.namespace, $0.0.key, $0.0.owner) < ($1.0.namespace, $1.0.key, $1.0.owner) }
        for (_, pin) in ordered { unmark(pin.0, pin.1) }
        commit(.removePins(ordered.map(\.0)), .quiet)
    }

    // MARK: As the catalogue keeps them

    func record(of pinned: PinnedName, _ pin: StorePin) -> PinRecord {
        PinRecord(
            namespace: namespaces[Int(pinned.namespace)].name, key: pinned.name.key.text, group: pinned.name.group,
            shard: pinned.name.shard, shardCount: pinned.name.shardCount, owner: pin.owner, expires: pin.expires)
    }

    /// Puts the pins of the catalogue back, after the scan; those that ended meanwhile leave it.
    mutating func restore(_ records: [PinRecord]) {
        let second = wallSecond
        let ended = records.filter { $0.expires > 0 && $0.expires <= second }
        for record in records where record.expires <= 0 || record.expires > second { restore(record) }
        if !ended.isEmpty { commit(.removePins(ended), .quiet) }
    }

    private mutating func restore(_ record: PinRecord) {
        guard let namespace = namespaceByName[record.namespace], let key = FullKey(text: record.key) else { return }
        let name = ObjectName(key, group: record.group, shard: record.shard, shardCount: record.shardCount)
        let pinned = PinnedName(namespace: namespace, name: name)
        let pin = StorePin(owner: record.owner, expires: record.expires, name: name)
        if mark(pinned, pin) == .ok { return }
        danglingPins[pinned, default: []].append(pin)
        pinRoom.take(for: namespace)
        notePinExpiry(pin)
    }
}

extension FullKey {
    /// 64 hex digits, in the order of the bytes.
    public var text: String {
        (0..<4).map { hexadecimal(self[$0].byteSwapped) }.joined()
    }

    /// From 64 hex digits, or from the first 32 of them.
    public init?(text: String) {
        let digits = Array(text.utf8)
        guard digits.count == 64 || digits.count == 32 else { return nil }
        var words: [UInt64] = []
        for start in stride(from: 0, to: digits.count, by: 16) {
            guard let word = UInt64(String(decoding: digits[start..<(start + 16)], as: UTF8.self), radix: 16) else {
                return nil
            }
            words.append(word.byteSwapped)
        }
        words += Array(repeating: 0, count: 4 - words.count)
        self.init(words[0], words[1], words[2], words[3])
    }
}
