// How a reader gets a block: from the memory tier, or from a drive under a lease that keeps its extents.

import KVFlash
import KVModel
import KVSystem
import KVTransport

extension StoreDecisions {
    /// Readers that one object may have at its drive; more are told to come back.
    static var readersMax: UInt8 { 200 }

    mutating func get(_ request: RequestID, _ namespace: UInt16, _ name: ObjectName) {
        totals.gets += 1
        guard let number = present(namespace, name) else {
            reply(request, .absent)
            return
        }
        guard objects[number].readers < Self.readersMax, let index = newOperation(.get) else {
            reply(request, .busy)
            return
        }
        totals.getHits += 1
        use(number)
        operations[Int(index)].request = request
        operations[Int(index)].name = name
        operations[Int(index)].object = number
        operations[Int(index)].payloadBytes = Int(objects[number].payloadBytes)
        operations[Int(index)].deadline = now + settings.waitLimit
        objects[number].readers += 1
        startRead(index)
    }

    /// A client was given a payload that failed its check. It is read again from the drive, and quarantined if the drive
    /// has it wrong.
    mutating func reportCorrupt(_ request: RequestID, _ namespace: UInt16, _ name: ObjectName) {
        totals.corruptReports += 1
        guard let number = present(namespace, name) else {
            reply(request, .absent)
            return
        }
        guard objects[number].readers < Self.readersMax, let index = newOperation(.check) else {
            reply(request, .busy)
            return
        }
        // The copy in memory may be what is wrong.
        buffers.forget(number)
        operations[Int(index)].request = request
        operations[Int(index)].object = number
        operations[Int(index)].payloadBytes = Int(objects[number].payloadBytes)
        operations[Int(index)].deadline = now + settings.waitLimit
        objects[number].readers += 1
        startRead(index)
    }

    /// Sends what memory has, joins a read under way, or reads from the drive. The operation has a lease.
    mutating func startRead(_ index: UInt32) {
        let read = operations[Int(index)]
        if read.kind == .get {
            if let copy = buffers.copy(of: read.object) {
                totals.getHitsInMemory += 1
                sendPayload(index, from: copy)
                endLease(read.object)
                return
            }
            if let leader = readings[read.object] {
                operations[Int(index)].stage = .following
                operations[Int(index)].next = operations[Int(leader)].next
                operations[Int(leader)].next = index
                return
            }
        }
        guard let buffer = buffers.take(buffers.frameCount(for: read.payloadBytes)) else {
            operations[Int(index)].stage = .waiting
            waiting.append(index)
            return
        }
        operations[Int(index)].buffer = buffer
        operations[Int(index)].stage = .atDrive
        operations[Int(index)].next = ObjectRecord.none
        if read.kind == .get { readings[read.object] = index }
        send(tag(of: index), to: drive(of: read.object))
    }

    /// Gives a reader its payload: the buffer gets one more user until `sent`.
    private mutating func sendPayload(_ index: UInt32, from buffer: UInt32) {
        let read = operations[Int(index)]
        let record = objects[read.object]
        buffers.retain(buffer)
        operations[Int(index)].buffer = buffer
        operations[Int(index)].stage = .sending
        operations[Int(index)].next = ObjectRecord.none
        transfers[read.request] = index
        totals.getBytes += read.payloadBytes
        let checksum = checksums.objectChecksum(
            of: read.name, payloadBytes: read.payloadBytes, payloadChecksum: record.payloadChecksum)
        let metadata = ObjectMetadata(
            indexInChain: UInt32(record.depth),
            evictionClass: record.flags.contains(.isShared)
                ? ObjectMetadata.sharedPrefixClass : ObjectMetadata.perUserClass)
        let response = Response(.ok, .object(payloadBytes: read.payloadBytes, checksum: checksum, metadata))
        output.append(.session(.send(read.request, response, from: buffers.slice(buffer, read.payloadBytes))))
    }

    mutating func sent(_ request: RequestID, _ outcome: PayloadOutcome) {
        guard let index = transfers.removeValue(forKey: request) else {
            preconditionFailure("a payload was sent that no get waits for")
        }
        buffers.release(operations[Int(index)].buffer)
        roomCameFree = true
        endOperation(index)
    }

    // MARK: The drive's answer

    mutating func read(_ index: UInt32, _ outcome: FlashOutcome) {
        let read = operations[Int(index)]
        switch outcome {
        case .done:
            let record = objects[read.object]
            if read.kind != .get || record.flags.contains(.isUnverified) {
                operations[Int(index)].stage = .verifying
                output.append(
                    .verify(
                        tag: tag(of: index), buffers.slice(read.buffer, read.payloadBytes),
                        expected: record.payloadChecksum))
            } else {
                deliver(index)
            }
        case .failed(let number):
            note("drive \(drive(of: read.object)) failed a read (error \(number)); the block is given up")
            damage(read.object)
            endRead(index, .failed)
        case .readOnly:
            endRead(index, .failed)
        case .overdue:
            // The drive may still write into the buffer, and still reads the extents: both stay leased.
            let followers = read.next
            operations[Int(index)].stage = .overdue
            operations[Int(index)].next = ObjectRecord.none
            if readings[read.object] == index { readings[read.object] = nil }
            if read.kind != .scrub { reply(read.request, .failed, why: "the drive did not answer in time") }
            endFollowers(followers, .failed)
        }
    }

    /// An overdue read let go of buffer and extents.
    mutating func releasedRead(_ index: UInt32) {
        let read = operations[Int(index)]
        buffers.release(read.buffer)
        roomCameFree = true
        endOperation(index)
        if read.kind == .scrub { endScrubbing(read.object) }
        endLease(read.object)
    }

    mutating func verified(_ tag: UInt64, _ isWhole: Bool) {
        let index = operation(of: tag)
        let read = operations[Int(index)]
        precondition(read.stage == .verifying, "a checksum was taken that nobody waits for")
        if isWhole {
            objects[read.object].flags.remove(.isUnverified)
            if read.kind == .scrub {
                totals.scrubbed += 1
                totals.scrubbedBytes += read.payloadBytes
            }
            if read.kind == .get { deliver(index) } else { endRead(index, .ok) }
            return
        }
        note("the payload of block \(name(of: read.object).key.text) is wrong on its drive; it is quarantined")
        totals.damagedFound += 1
        damage(read.object)
        endRead(index, .corrupt)
    }

    /// The payload is in the buffer and good: it goes to the reader, to those that joined, and stays as a copy.
    private mutating func deliver(_ index: UInt32) {
        let read = operations[Int(index)]
        readings[read.object] = nil
        if objects[read.object].state == .present, buffers.copy(of: read.object) == nil {
            buffers.becomeCopy(read.buffer, of: read.object)
        }
        sendPayload(index, from: read.buffer)
        var follower = read.next
        while follower != ObjectRecord.none {
            let next = operations[Int(follower)].next
            sendPayload(follower, from: read.buffer)
            endLease(read.object)
            follower = next
        }
        buffers.release(read.buffer)  // The read's own use; each sender has one.
        endLease(read.object)
    }

    /// A read ends without a payload for anybody.
    private mutating func endRead(_ index: UInt32, _ status: Status) {
        let read = operations[Int(index)]
        if readings[read.object] == index { readings[read.object] = nil }
        buffers.release(read.buffer)
        roomCameFree = true
        endOperation(index)
        if read.kind == .scrub { endScrubbing(read.object) } else { reply(read.request, status) }
        endFollowers(read.kind == .get ? read.next : ObjectRecord.none, status)
        endLease(read.object)
    }

    private mutating func endFollowers(_ first: UInt32, _ status: Status) {
        var follower = first
        while follower != ObjectRecord.none {
            let operation = operations[Int(follower)]
            endOperation(follower)
            reply(operation.request, status)
            endLease(operation.object)
            follower = operation.next
        }
    }

    /// One reader less at an object's extents.
    mutating func endLease(_ number: UInt32) {
        precondition(objects[number].readers > 0, "a lease ends that nobody had")
        objects[number].readers -= 1
        free(number)
    }

    // MARK: Use

    /// A block was read or offered again.
    mutating func use(_ number: UInt32) {
        let rested = second &- objects[number].touched
        objects[number].uses = ranking.uses(objects[number].uses, againAfter: rested)
        objects[number].touched = second
    }
}

/// 16 hex digits.
func hexadecimal(_ word: UInt64) -> String {
    let digits = String(word, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
