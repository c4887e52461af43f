// The start of a store: what the drives say, then what the catalogue says. The drives are the truth about blocks.

import KVFlash
import KVModel
import KVTransport

/// What recovery found.
public struct RecoverySummary: Sendable, Equatable {
    /// Blocks that can be found.
    public var objects = 0
    /// Their payload bytes.
    public var payloadBytes = 0
    /// Older twins, headers whose data a newer object has, and damaged headers: erased before their extents are used.
    public var erased = 0
    /// Namespaces that headers name by their digests only and no catalogue does.
    public var unnamedNamespaces = 0
    /// Blocks of those: only operators may claim them.
    public var unnamedObjects = 0
}

extension StoreDecisions {
    /// The namespaces of the catalogue; before the scan.
    public mutating func restoreNamespace(_ name: String, _ policy: NamespacePolicy) {
        if let known = namespaceByName[name] {
            namespaces[Int(known)].policy = policy
        } else {
            _ = makeNamespace(name, policy, claimsRecovered: true)
        }
    }

    /// What headers carry for a namespace's name.
    public static func digest(ofNamespace name: String) -> UInt64 { StoreNamespace.digest(of: name) }

    /// One thing that the scan of a drive met.
    public mutating func recover(_ event: ScanEvent, from drive: Int) {
        switch event {
        case .object(let object):
            if !recover(object, from: drive) { contested.append((object, drive)) }
        case .void(let first):
            recovery.erased += 1
            contested.removeAll { $0.drive == drive && $0.object.extents[0] == first }
            let number = drives[drive].base + first
            // Its extents are a newer object's or nobody's, the one of its header included.
            if objects[number].state == .present || objects[number].state == .leaving { dissolve(number) }
            outlived.insert(number)
        case .damaged(let extent):
            recovery.erased += 1
            // It may be in the middle of an object that is still to come, and means nothing to that.
            damagedHeaders.append(drives[drive].base + extent)
        }
    }

    /// Enters an object, or has its header erased.
    ///
    /// - Returns: False, and nothing done, while another object has one of its extents.
    private mutating func recover(_ object: FlashObject, from drive: Int) -> Bool {
        if generations.isEmpty { generations = Array(repeating: 0, count: objects.extentCount) }
        nextGeneration = max(nextGeneration, object.generation + 1)
        oldestGeneration = min(oldestGeneration, object.generation)
        let namespace: UInt16
        if let known = namespaceByDigest[object.namespace] {
            namespace = known
        } else {
            guard namespaces.count < Self.namespacesMax else {
                dropRecovered(object.extents, drive)
                return true
            }
            namespace = UInt16(namespaces.count)
            namespaces.append(
                StoreNamespace(number: namespace, name: "", digest: object.namespace, policy: NamespacePolicy()))
            namespaceByDigest[object.namespace] = namespace
        }
        let scope = ObjectScope(namespace: namespace, object.name)
        guard scopes.hasRoom(forRecovered: scope), object.payloadBytes > 0,
            extentCount(object.payloadBytes) == object.extents.count
        else {
            dropRecovered(object.extents, drive)
            return true
        }
        if let known = scopes.number(of: scope), let twin = objects.find(object.name.key.short, scope: known) {
            recovery.erased += 1
            // The later put was acknowledged after the earlier one's tombstone was asked for: the higher one wins.
            guard generations[Int(twin)] < object.generation else {
                dropRecovered(object.extents, drive)
                return true
            }
            forgetRecovered(twin)
        }
        guard drives[drive].extents.claim(object.extents) else { return false }
        let number = enter(object.extents, on: drive, key: object.name.key.short, scope: scope)
        generations[Int(number)] = object.generation
        objects[number].state = .present
        objects[number].payloadBytes = UInt32(object.payloadBytes)
        objects[number].depth = UInt16(clamping: object.metadata.indexInChain)
        objects[number].uses = 1
        objects[number].flags = [.isUnverified]
        objects[number].payloadChecksum = checksums.payloadChecksum(
            of: object.name, payloadBytes: object.payloadBytes, checksum: object.checksum)
        if isShared(namespace, object.metadata) {
            objects[number].flags.insert(.isShared)
            sharedExtents += object.extents.count
        }
        count(number, isPresent: true)
        return true
    }

    /// A valid header whose object is not wanted: its first extent is kept until a tombstone is there.
    private mutating func dropRecovered(_ list: ExtentList, _ drive: Int) {
        let number = drives[drive].base + list[0]
        guard objects[number].state == .free else { return }
        eraseUnknown(number)
    }

    /// An object that was entered goes again, and its header with it.
    private mutating func forgetRecovered(_ number: UInt32) {
        count(number, isPresent: false)
        objects.leave(number)
        objects[number].state = .leaving
        generations[Int(number)] = 0
        toErase.append(number)
    }

    /// What was entered is no object after all, nor on its way out: its extents are free for whom they belong to.
    private mutating func dissolve(_ number: UInt32) {
        let record = objects[number]
        let drive = drive(of: number)
        let list = extents(of: number)
        if record.state == .present {
            count(number, isPresent: false)
            objects.leave(number)
            generations[Int(number)] = 0
        } else {
            toErase.removeAll { $0 == number }
        }
        for place in 0..<list.count { objects[drives[drive].base + list[place]].state = .free }
        drives[drive].extents.release(list)
        uncount(record, list.count)
        scopes.release(record.scope)
    }

    /// Erases the headers that outlived their data, now that every object has its extents. A page in the middle of an object
    /// means nothing to it, and would be a header again when the object is gone: the object is kept from leaving until the
    /// page is erased.
    private mutating func eraseOutlived() {
        let inObjects = outlived.filter { objects[$0].state != .free }
        for number in outlived.sorted() where !inObjects.contains(number) { eraseUnknown(number) }
        outlived = []
        guard !inObjects.isEmpty else { return }
        for first in 0..<UInt32(objects.extentCount) {
            guard objects[first].state == .present || objects[first].state == .leaving else { continue }
            var extent = objects[first].next
            while extent != ObjectRecord.none {
                if inObjects.contains(extent) { eraseHeader(extent, keeping: first) }
                extent = objects[extent].next
            }
        }
    }

    /// A header without an object: its extent is taken until the header is erased. It is the store's own.
    private mutating func eraseUnknown(_ number: UInt32) {
        let drive = drive(of: number)
        var list = ExtentList()
        list.append(number - drives[drive].base)
        guard drives[drive].extents.claim(list) else { return }
        let scope = scopes.retain(ownScope())
        objects[number] = ObjectRecord(
            key: BlockKey(high: 0, low: 0), payloadChecksum: 0, payloadBytes: 1, next: ObjectRecord.none, touched: 0,
            scope: scope, depth: 0, uses: 0, state: .leaving, flags: [], readers: 0)
        namespaces[Int(scopes[scope].namespace)].usedBytes += settings.extentBytes
        toErase.append(number)
    }

    /// The scope of extents that are nobody's and not free.
    private mutating func ownScope() -> ObjectScope {
        let digest = StoreNamespace.digest(of: "")
        let namespace: UInt16
        if let known = namespaceByDigest[digest] {
            namespace = known
        } else {
            namespace = UInt16(namespaces.count)
            namespaces.append(StoreNamespace(number: namespace, name: "", digest: digest, policy: NamespacePolicy()))
            namespaceByDigest[digest] = namespace
        }
        return ObjectScope(namespace: namespace, ObjectName(.none))
    }

    /// The scans are done: recency is guessed from generations, pins are put back, and what must go is erased.
    public mutating func endRecovery(
        generationMax: UInt64, pins records: [PinRecord], at time: Instant, into commands: inout [StoreOutput]
    ) -> RecoverySummary {
        now = max(now, time)
        startedAt = now
        nextGeneration = max(nextGeneration, generationMax + 1)
        for (object, drive) in contested where !recover(object, from: drive) { dropRecovered(object.extents, drive) }
        contested = []
        eraseOutlived()
        for number in damagedHeaders where objects[number].state == .free { eraseUnknown(number) }
        damagedHeaders = []
        // Older writes count as older uses, spread over the hour before the start.
        let span = Double(max(1, nextGeneration - min(oldestGeneration, nextGeneration)))
        for number in generations.indices where generations[number] > 0 {
            let age = Double(nextGeneration - generations[number]) / span
            objects[UInt32(number)].touched = second - UInt32(min(3600, 3600 * age))
        }
        generations = []
        restore(records)
        for number in toErase { beginErasure(number) }
        toErase = []
        if settings.scrubBytesPerSecond > 0 { scrub.begin(at: now + Duration(seconds: 1)) }
        recovery.objects = namespaces.reduce(0) { $0 + $1.presentCount }
        for space in namespaces where space.name.isEmpty && space.presentCount > 0 {
            recovery.unnamedNamespaces += 1
            recovery.unnamedObjects += space.presentCount
        }
        recovery.payloadBytes = namespaces.reduce(0) { $0 + $1.presentBytes }
        commands.append(contentsOf: output)
        output.removeAll(keepingCapacity: true)
        return recovery
    }
}
