// Commands to drives, within what each may have unanswered, and their answers; how objects leave: invisible, tombstone
// durable, readers gone, extents free.

import KVFlash
import KVModel
import KVSystem
import KVTransport

extension StoreDecisions {
    /// The bit that tells the tag of an erasure, which names an object, from that of an operation.
    private static var erasureBit: UInt64 { 1 << 63 }
    /// Tombstones at a drive at once: their flushes are shared, and reads come first.
    private static var erasuresMax: Int { 64 }
    /// Failures in a row that end a drive: its blocks are lost, the others are not.
    private static var failuresMax: Int { 8 }

    // MARK: Commands

    /// Hands a command over, or queues it behind those the drive has.
    mutating func send(_ tag: UInt64, to drive: Int) {
        guard drives[drive].unanswered < settings.driveCommandCountMax else {
            drives[drive].queue.append(tag)
            return
        }
        drives[drive].unanswered += 1
        output.append(.drive(drive, command(tag)))
    }

    /// A command that is overdue keeps its place: the drive has none for another until it lets go of it.
    private mutating func answered(by drive: Int, _ outcome: FlashOutcome) {
        if outcome == .overdue { drives[drive].overdue += 1 } else { cameFree(at: drive) }
        judge(outcome, drive)
    }

    private mutating func cameFree(at drive: Int) {
        drives[drive].unanswered -= 1
        guard let tag = drives[drive].queue.removeFirst() else { return }
        drives[drive].unanswered += 1
        output.append(.drive(drive, command(tag)))
    }

    /// What waits for a place at a drive that was given up may wait for ever: nothing of it is sent.
    mutating func endQueuesOfFailedDrives() {
        for drive in drives.indices where drives[drive].isFailed {
            while let tag = drives[drive].queue.removeFirst() {
                if tag & Self.erasureBit != 0 {
                    erased(UInt32(truncatingIfNeeded: tag), .readOnly)
                } else if operations[Int(operation(of: tag))].kind == .put {
                    written(operation(of: tag), .readOnly)
                } else {
                    read(operation(of: tag), .readOnly)
                }
            }
        }
    }

    private mutating func command(_ tag: UInt64) -> FlashCommand {
        if tag & Self.erasureBit != 0 {
            let number = UInt32(truncatingIfNeeded: tag)
            return .erase(
                tag: tag, firstExtent: number - drives[drive(of: number)].base, generation: takeGeneration())
        }
        let index = operation(of: tag)
        let operation = operations[Int(index)]
        let slice = buffers.slice(operation.buffer, operation.payloadBytes)
        guard operation.kind == .put else { return .read(tag: tag, extents(of: operation.object), into: slice) }
        let object = FlashObject(
            name: operation.name, metadata: operation.metadata,
            namespace: namespaces[Int(operation.namespace)].digest, payloadBytes: operation.payloadBytes,
            checksum: operation.checksum, generation: takeGeneration(), extents: extents(of: operation.object))
        let isVolatile = objects[operation.object].flags.contains(.isVolatile)
        return .write(tag: tag, object, from: slice, isVolatile: isVolatile)
    }

    private mutating func takeGeneration() -> UInt64 {
        nextGeneration += 1
        return nextGeneration - 1
    }

    // MARK: Answers

    mutating func take(_ event: FlashEvent, from drive: Int) {
        switch event {
        case .written(let tag, let outcome):
            answered(by: drive, outcome)
            written(operation(of: tag), outcome)
        case .read(let tag, let outcome):
            answered(by: drive, outcome)
            read(operation(of: tag), outcome)
        case .erased(let tag, let outcome):
            answered(by: drive, outcome)
            erased(UInt32(truncatingIfNeeded: tag), outcome)
        case .becameReadOnly(let number):
            drives[drive].isReadOnly = true
            totals.driveFailures += 1
            note("drive \(drive) failed a flush (error \(number)) and takes no more writes; its blocks can be read")
            roomCameFree = true
        case .released(let tag):
            drives[drive].overdue -= 1
            cameFree(at: drive)
            if tag & Self.erasureBit != 0 {
                // The tombstone may or may not be there: the extents wait for the next start's scan.
                let number = UInt32(truncatingIfNeeded: tag)
                if foreignHeaders.removeValue(forKey: number) == nil { quarantine(number) }
            } else {
                let index = operation(of: tag)
                if operations[Int(index)].kind == .put { releasedWrite(index) } else { releasedRead(index) }
            }
        }
    }

    private mutating func judge(_ outcome: FlashOutcome, _ drive: Int) {
        switch outcome {
        case .done: drives[drive].failuresInRow = 0
        case .readOnly: break
        case .failed, .overdue:
            drives[drive].failuresInRow += 1
            let hasNoPlace = drives[drive].overdue == settings.driveCommandCountMax
            guard drives[drive].failuresInRow >= Self.failuresMax || hasNoPlace, !drives[drive].isFailed else { return }
            drives[drive].isFailed = true
            totals.driveFailures += 1
            roomCameFree = true
            let count = drives[drive].failuresInRow
            note("drive \(drive) failed \(count) times in a row and is given up; its blocks are misses now")
        }
    }

    // MARK: Leaving

    /// A present object cannot be found from now on. Its pins, if any, dangle.
    mutating func remove(_ number: UInt32) {
        precondition(objects[number].state == .present, "an object is removed that is not there")
        tell(number, isAdded: false)
        loosenPins(of: number)
        count(number, isPresent: false)
        buffers.forget(number)
        objects.leave(number)
        objects[number].state = .leaving
        if objects[number].flags.contains(.isVolatile) { objects[number].flags.insert(.isErased) }
        beginErasure(number)
    }

    /// An object whose payload is wrong or cannot be read: as `remove`, and its extents are not used again.
    mutating func damage(_ number: UInt32) {
        objects[number].flags.insert(.isDamaged)
        if objects[number].state == .present { remove(number) }
    }

    /// Out of the index already: its tombstone is queued, or its extents are free at once.
    mutating func beginErasure(_ number: UInt32) {
        precondition(objects[number].state == .leaving, "a tombstone for an object that can be found")
        let count = extentCount(Int(objects[number].payloadBytes))
        objects[number].flags.insert(.isAwaited)
        leavingExtents += count
        namespaces[Int(scopes[objects[number].scope].namespace)].leavingBytes += count * settings.extentBytes
        if objects[number].flags.contains(.isErased) {
            free(number)
        } else {
            awaitTombstone(of: number)
            erasures.append(number)
            sendErasures()
        }
    }

    private mutating func sendErasures() {
        while erasuresAtDrives < Self.erasuresMax * drives.count, let number = erasures.removeFirst() {
            erasuresAtDrives += 1
            send(Self.erasureBit | UInt64(number), to: drive(of: number))
        }
    }

    private mutating func erased(_ number: UInt32, _ outcome: FlashOutcome) {
        erasuresAtDrives -= 1
        if let object = foreignHeaders[number] {
            erasedForeign(number, in: object, outcome)
            sendErasures()
            return
        }
        switch outcome {
        case .done:
            totals.erased += 1
            objects[number].flags.insert(.isErased)
            endDeletion(of: number, .ok)
            free(number)
        case .failed, .readOnly:
            endDeletion(of: number, .failed)
            quarantine(number)
        case .overdue:
            endDeletion(of: number, .failed)
            endWaitFor(number, extentCount(Int(objects[number].payloadBytes)))
        }
        sendErasures()
    }

    /// Erases the page of an extent that another object has: a header that outlived its data. No header is written there
    /// while the object is there.
    mutating func eraseHeader(_ number: UInt32, keeping object: UInt32) {
        foreignHeaders[number] = object
        objects[object].readers += 1
        erasures.append(number)
        sendErasures()
    }

    private mutating func erasedForeign(_ number: UInt32, in object: UInt32, _ outcome: FlashOutcome) {
        if outcome == .done {
            totals.erased += 1
        } else {
            // The page may be a header still when the object has gone: its extents wait for the next start's scan.
            objects[object].flags.insert(.isDamaged)
        }
        if outcome != .overdue { foreignHeaders[number] = nil }
        endLease(object)
    }

    /// Gives an object's extents back if nothing keeps them.
    mutating func free(_ number: UInt32) {
        let record = objects[number]
        guard record.state == .leaving, record.flags.contains(.isErased), record.readers == 0 else { return }
        guard !record.flags.contains(.isDamaged) else {
            quarantine(number)
            return
        }
        let drive = drive(of: number)
        let list = extents(of: number)
        endWaitFor(number, list.count)
        for place in 0..<list.count {
            objects[drives[drive].base + list[place]].state = .free
            objects[drives[drive].base + list[place]].flags = []
        }
        drives[drive].extents.release(list)
        uncount(record, list.count)
        scopes.release(record.scope)
        output.append(.drive(drive, .discard(list)))
        roomCameFree = true
    }

    /// Keeps an object's extents out of use until the next start; they still count.
    mutating func quarantine(_ number: UInt32) {
        guard objects[number].state != .quarantined else { return }
        precondition(objects[number].state == .leaving, "an object is quarantined that can be found")
        let count = extentCount(Int(objects[number].payloadBytes))
        endWaitFor(number, count)
        objects[number].state = .quarantined
        totals.quarantinedExtents += count
    }

    /// Nobody waits for these extents to become free any more.
    private mutating func endWaitFor(_ number: UInt32, _ count: Int) {
        guard objects[number].flags.contains(.isAwaited) else { return }
        objects[number].flags.remove(.isAwaited)
        leavingExtents -= count
        let namespace = Int(scopes[objects[number].scope].namespace)
        namespaces[namespace].leavingBytes -= count * settings.extentBytes
    }

    mutating func uncount(_ record: ObjectRecord, _ count: Int) {
        if record.flags.contains(.isShared) { sharedExtents -= count }
        namespaces[Int(scopes[record.scope].namespace)].usedBytes -= count * settings.extentBytes
    }

    /// An object on a drive that was given up: its name is free again, its extents are not.
    mutating func forgetOnFailedDrive(_ number: UInt32) {
        tell(number, isAdded: false)
        loosenPins(of: number)
        count(number, isPresent: false)
        buffers.forget(number)
        objects.leave(number)
        objects[number].state = .leaving
        quarantine(number)
    }

    /// Keeps the counts of what can be found.
    mutating func count(_ number: UInt32, isPresent: Bool) {
        let record = objects[number]
        let namespace = Int(scopes[record.scope].namespace)
        let sign = isPresent ? 1 : -1
        namespaces[namespace].presentCount += sign
        namespaces[namespace].presentBytes += sign * Int(record.payloadBytes)
        namespaces[namespace].presentExtentBytes +=
            sign * extentCount(Int(record.payloadBytes)) * settings.extentBytes
    }

    // MARK: Deleting

    mutating func delete(_ request: RequestID, _ namespace: UInt16, _ names: [ObjectName]) {
        var batch = DeletionBatch(request: request, statuses: [])
        let ticket = takeTicket()
        for name in names {
            guard let number = present(namespace, name) else {
                batch.statuses.append(.absent)
                continue
            }
            guard !objects[number].flags.contains(.isPinned) else {
                batch.statuses.append(.forbidden)
                continue
            }
            batch.statuses.append(.ok)
            totals.deleted += 1
            if !objects[number].flags.contains(.isVolatile) {
                // Acknowledged when it would not come back after a crash.
                deletions[number] = ticket
                batch.places[number] = batch.statuses.count - 1
            }
            remove(number)
        }
        guard !batch.places.isEmpty else {
            reply(request, .ok, .statuses(batch.statuses))
            return
        }
        deletionBatches[ticket] = batch
    }

    private mutating func endDeletion(of number: UInt32, _ status: Status) {
        if clearing?.awaited.remove(number) != nil, status != .ok { clearing?.failed += 1 }
        guard let ticket = deletions.removeValue(forKey: number), var batch = deletionBatches[ticket] else { return }
        if let place = batch.places.removeValue(forKey: number) { batch.statuses[place] = status }
        if batch.places.isEmpty {
            deletionBatches[ticket] = nil
            reply(batch.request, .ok, .statuses(batch.statuses))
        } else {
            deletionBatches[ticket] = batch
        }
    }

    mutating func takeTicket() -> UInt64 {
        nextTicket += 1
        return nextTicket - 1
    }
}

/// A request to delete whose tombstones are on their way.
struct DeletionBatch {
    let request: RequestID
    var statuses: [Status]
    /// Which of the statuses an object's is.
    var places: [UInt32: Int] = [:]
}
