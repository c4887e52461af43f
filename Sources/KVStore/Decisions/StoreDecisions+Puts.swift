// How a payload becomes a block that others can find: admitted, received, written, durable, visible, acknowledged.

import KVFlash
import KVModel
import KVSystem
import KVTiering
import KVTransport

/// Why a put cannot go on now.
private enum Shortage {
    /// Somebody gives a buffer or extents back soon.
    case wait
    /// Nobody will, until a person or a pin's end makes room.
    case never(String)
    /// No drive takes writes.
    case noDrive
}

extension StoreDecisions {
    mutating func put(
        _ request: RequestID, _ namespace: UInt16, _ name: ObjectName, _ metadata: ObjectMetadata, _ payloadBytes: Int,
        _ checksum: UInt64
    ) {
        totals.puts += 1
        guard !isDraining else {
            reply(request, .unavailable, why: "the store is draining: it takes no new objects")
            return
        }
        guard payloadBytes > 0, payloadBytes <= settings.payloadBytesMax else {
            reply(request, .invalid, why: "a payload has 1 to \(settings.payloadBytesMax) bytes")
            return
        }
        if let refusal = refuses(name) {
            reply(request, .invalid, why: refusal)
            return
        }
        if let number = present(namespace, name) {
            // Recomputed KV is not bit-identical; the first writer wins.
            use(number)
            totals.putsPresent += 1
            reply(request, .alreadyPresent)
            return
        }
        guard admits(namespace, name, metadata) else {
            totals.putsNotAdmitted += 1
            reply(request, .notAdmitted)
            return
        }
        guard let index = newOperation(.put) else {
            totals.putsBusy += 1
            reply(request, .busy)
            return
        }
        operations[Int(index)].request = request
        operations[Int(index)].namespace = namespace
        operations[Int(index)].name = name
        operations[Int(index)].metadata = metadata
        operations[Int(index)].payloadBytes = payloadBytes
        operations[Int(index)].checksum = checksum
        operations[Int(index)].deadline = now + settings.waitLimit
        startPut(index)
    }

    private func refuses(_ name: ObjectName) -> String? {
        if name.shardCount == 0 || name.shard >= name.shardCount { return "shard \(name.shard) of \(name.shardCount)" }
        return nil
    }

    /// Whether a new block is worth its write. While wear allows, all are; when less than a quarter of the saved-up
    /// budget is left, per-user blocks must be offered twice.
    private mutating func admits(_ namespace: UInt16, _ name: ObjectName, _ metadata: ObjectMetadata) -> Bool {
        guard budget.fill(at: now) < 0.25, !isShared(namespace, metadata) else { return true }
        let fingerprint = name.key[0] ^ name.key[1] | 1
        let place = Int(truncatingIfNeeded: fingerprint >> 1) & (doorkeeper.count - 1)
        if doorkeeper[place] == fingerprint { return true }
        doorkeeper[place] = fingerprint
        return false
    }

    func isShared(_ namespace: UInt16, _ metadata: ObjectMetadata) -> Bool {
        switch namespaces[Int(namespace)].policy.evictionClass {
        case .shared: true
        case .perUser: false
        case .mixed: metadata.evictionClass == ObjectMetadata.sharedPrefixClass
        }
    }

    /// Reserves what a put needs and asks for its payload; lets it wait, or refuses it.
    mutating func startPut(_ index: UInt32) {
        let put = operations[Int(index)]
        let scope = ObjectScope(namespace: put.namespace, put.name)
        if let known = scopes.number(of: scope), let number = objects.find(put.name.key.short, scope: known) {
            if objects[number].state == .present {
                // On a failed drive: the name must go before it can be stored elsewhere.
                guard isPresent(number) else {
                    forgetOnFailedDrive(number)
                    startPut(index)
                    return
                }
                totals.putsPresent += 1
                endPut(index, .alreadyPresent)
            } else if let writer = writers[number] {
                operations[Int(index)].stage = .following
                operations[Int(index)].next = operations[Int(writer)].next
                operations[Int(writer)].next = index
            }
            return
        }
        switch reserve(for: index, scope) {
        case nil:
            operations[Int(index)].stage = .receiving
            transfers[put.request] = index
            let slice = buffers.slice(operations[Int(index)].buffer, put.payloadBytes)
            output.append(.session(.receive(put.request, into: slice)))
        case .wait:
            operations[Int(index)].stage = .waiting
            waiting.append(index)
        case .never(let why):
            totals.putsOverBudget += 1
            endPut(index, .overBudget, why: why)
        case .noDrive:
            totals.putsFailed += 1
            endPut(index, .unavailable, why: "no drive takes writes")
        }
    }

    /// Takes extents, a buffer, quota and wear for a put; all of them or nothing.
    private mutating func reserve(for index: UInt32, _ scope: ObjectScope) -> Shortage? {
        let put = operations[Int(index)]
        guard scopes.hasRoom(for: scope) else {
            return .never("the namespace has objects of more different groups and shards than the store has room for")
        }
        let count = extentCount(put.payloadBytes)
        let bytes = count * settings.extentBytes
        let namespace = Int(put.namespace)
        let quota = namespaces[namespace].policy.quotaBytes
        if quota > 0, namespaces[namespace].usedBytes + bytes > quota {
            if bytes > quota { return .never("a block of \(bytes) bytes in a quota of \(quota)") }
            return canFree(in: put.namespace) ? .wait : .never("the namespace's quota is spent")
        }
        guard let drive = placement(for: count) else {
            guard drives.contains(where: { $0.isWritable }) else { return .noDrive }
            return canFree(in: nil) ? .wait : .never("everything here is pinned or in use")
        }
        // Writers leave a quarter of the buffers to readers.
        let frames = buffers.frameCount(for: put.payloadBytes)
        let writersMax = max(frames, buffers.frameCount - buffers.frameCount / 4)
        guard buffers.lentFrames + frames <= writersMax else { return .wait }
        guard let buffer = buffers.take(frames) else { return .wait }
        if let refusal = takeWrite(put.payloadBytes, for: put.request.session) {
            buffers.release(buffer)
            return .never(refusal)
        }
        guard let list = drives[drive].extents.reserve(count) else {
            preconditionFailure("a drive was chosen that lacks the extents")
        }
        let number = enter(list, on: drive, key: put.name.key.short, scope: scope)
        objects[number].payloadBytes = UInt32(put.payloadBytes)
        objects[number].depth = UInt16(clamping: put.metadata.indexInChain)
        objects[number].flags = flags(put.namespace, put.metadata)
        if objects[number].flags.contains(.isShared) { sharedExtents += count }
        operations[Int(index)].object = number
        operations[Int(index)].buffer = buffer
        operations[Int(index)].next = ObjectRecord.none
        writers[number] = index
        return nil
    }

    /// Takes bytes from what may be written in a day, and from the share of the tenant who asks. Both or, with the reason, neither.
    private mutating func takeWrite(_ bytes: Int, for session: SessionID) -> String? {
        let tenant = settings.writeBytesPerDay > 0 ? limitedTenant(of: session) : nil
        var left: WriteBudget?
        if let tenant {
            left = tenantBudgets[tenant] ?? WriteBudget(settings.writeBudget(share: settings.tenantShare))
            guard left?.take(bytes, at: now) == true else {
                return "the tenant has written its share of the bytes that may be written in a day"
            }
        }
        guard budget.take(bytes, at: now) else { return "the budget of bytes written a day is spent" }
        if let tenant { tenantBudgets[tenant] = left }
        return nil
    }

    private func flags(_ namespace: UInt16, _ metadata: ObjectMetadata) -> ObjectRecord.Flags {
        var flags: ObjectRecord.Flags = []
        if namespaces[Int(namespace)].policy.durability == .volatile { flags.insert(.isVolatile) }
        if isShared(namespace, metadata) { flags.insert(.isShared) }
        return flags
    }

    /// Gives an object's extents their records and its name a place in the index; counts its bytes.
    mutating func enter(_ list: ExtentList, on drive: Int, key: BlockKey, scope: ObjectScope) -> UInt32 {
        let base = drives[drive].base
        let scope = scopes.retain(scope)
        let number = base + list[0]
        for place in 0..<list.count {
            let next = place + 1 < list.count ? base + list[place + 1] : ObjectRecord.none
            objects[base + list[place]] = ObjectRecord(
                key: key, payloadChecksum: 0, payloadBytes: 0, next: next, touched: second, scope: scope, depth: 0,
                uses: 0, state: place == 0 ? .writing : .continuation, flags: [], readers: 0)
        }
        objects.enter(number)
        namespaces[Int(scopes[scope].namespace)].usedBytes += list.count * settings.extentBytes
        return number
    }

    /// The drive for an object of `count` extents: the one with the largest free share, so that all fill alike.
    private func placement(for count: Int) -> Int? {
        var best: Int?
        for drive in drives.indices where drives[drive].isWritable && drives[drive].extents.freeCount >= count {
            guard let chosen = best else {
                best = drive
                continue
            }
            let left = drives[drive].extents.freeCount * drives[chosen].extents.count
            let right = drives[chosen].extents.freeCount * drives[drive].extents.count
            if left > right { best = drive }
        }
        return best
    }

    // MARK: The way of the payload

    mutating func received(_ request: RequestID, _ outcome: PayloadOutcome) {
        guard let index = transfers.removeValue(forKey: request) else {
            preconditionFailure("a payload ends that no put waits for")
        }
        let put = operations[Int(index)]
        switch outcome {
        case .whole:
            objects[put.object].payloadChecksum = checksums.payloadChecksum(
                of: put.name, payloadBytes: put.payloadBytes, checksum: put.checksum)
            operations[Int(index)].stage = .atDrive
            send(tag(of: index), to: drive(of: put.object))
        case .corrupt, .aborted:
            withdraw(index)
            objects[put.object].flags.insert(.isErased)
            beginErasure(put.object)
            if outcome == .corrupt { totals.putsCorrupt += 1 }
            endPut(index, outcome == .corrupt ? .corrupt : .cancelled)
        }
    }

    mutating func written(_ index: UInt32, _ outcome: FlashOutcome) {
        let put = operations[Int(index)]
        let number = put.object
        let isVolatile = objects[number].flags.contains(.isVolatile)
        switch outcome {
        case .done:
            writers[number] = nil
            objects[number].state = .present
            objects[number].uses = 1
            objects[number].touched = second
            count(number, isPresent: true)
            buffers.becomeCopy(put.buffer, of: number)
            buffers.release(put.buffer)
            operations[Int(index)].buffer = ObjectRecord.none
            roomCameFree = true
            totals.putsStored += 1
            totals.putBytes += put.payloadBytes
            attachDanglingPins(to: number, put.namespace, put.name)
            tell(number, isAdded: true)
            if namespaces[Int(put.namespace)].isDeleted { remove(number) }
            endPut(index, .ok)
        case .failed:
            withdraw(index)
            // A header may have reached the flash: the extents are free when a tombstone is there.
            if isVolatile { objects[number].flags.insert(.isErased) }
            beginErasure(number)
            totals.putsFailed += 1
            endPut(index, .failed)
        case .readOnly:
            withdraw(index)
            quarantine(number)
            totals.putsFailed += 1
            endPut(index, .failed)
        case .overdue:
            // The drive may still write from the buffer to the extents: both are kept until it says `released`.
            writers[number] = nil
            objects.leave(number)
            objects[number].state = .leaving
            totals.putsFailed += 1
            let followers = operations[Int(index)].next
            operations[Int(index)].next = ObjectRecord.none
            operations[Int(index)].stage = .overdue
            reply(put.request, .failed, why: "the drive did not answer in time")
            restart(followers)
        }
    }

    /// An overdue write let go of buffer and extents.
    mutating func releasedWrite(_ index: UInt32) {
        let put = operations[Int(index)]
        buffers.release(put.buffer)
        roomCameFree = true
        endOperation(index)
        if objects[put.object].flags.contains(.isVolatile) { objects[put.object].flags.insert(.isErased) }
        beginErasure(put.object)
    }

    /// A put's object leaves the index, its buffer the operation.
    private mutating func withdraw(_ index: UInt32) {
        let put = operations[Int(index)]
        writers[put.object] = nil
        objects.leave(put.object)
        objects[put.object].state = .leaving
        buffers.release(put.buffer)
        operations[Int(index)].buffer = ObjectRecord.none
        roomCameFree = true
    }

    /// Answers a put and lets those that followed it go on: present now, or their turn to try.
    private mutating func endPut(_ index: UInt32, _ status: Status, why: String? = nil) {
        let put = operations[Int(index)]
        let followers = put.stage == .following || put.object == ObjectRecord.none ? ObjectRecord.none : put.next
        endOperation(index)
        if let why { reply(put.request, status, why: why) } else { reply(put.request, status) }
        restart(followers)
    }

    private mutating func restart(_ first: UInt32) {
        var follower = first
        while follower != ObjectRecord.none {
            let next = operations[Int(follower)].next
            operations[Int(follower)].next = ObjectRecord.none
            operations[Int(follower)].deadline = now + settings.waitLimit
            startPut(follower)
            follower = next
        }
    }

    // MARK: Waiting

    /// Tries those that wait again, oldest first.
    mutating func resumeWaiting() {
        roomCameFree = false
        guard !waiting.isEmpty else { return }
        let tried = waiting
        waiting.removeAll(keepingCapacity: true)
        for (place, index) in tried.enumerated() {
            // A few that fail show that nothing fits; small requests may pass large ones that far.
            if waiting.count >= 16 {
                waiting.append(contentsOf: tried[place...])
                break
            }
            switch operations[Int(index)].kind {
            case .put: startPut(index)
            case .get, .check: startRead(index)
            case .scrub, .none: preconditionFailure("a task that never waits is in the waiting list")
            }
        }
    }

    /// The time of one that waits is up.
    mutating func giveUp(_ index: UInt32) {
        let operation = operations[Int(index)]
        endOperation(index)
        if operation.kind == .put { totals.putsBusy += 1 }
        if operation.kind != .put { endLease(operation.object) }
        reply(operation.request, .busy)
    }
}
