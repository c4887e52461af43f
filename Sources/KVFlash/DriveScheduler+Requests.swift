// Which request the device gets next.

import KVModel
import KVSystem

extension DriveScheduler {
    /// The ticket of the flush, of which one runs at a time, and of the discard.
    var flushTicket: UInt32 { UInt32(configuration.transferCountMax) }
    var discardTicket: UInt32 { flushTicket + 1 }

    /// How many requests may be with the device at once.
    package static func requestCountMax(_ configuration: FlashDriveConfiguration) -> Int {
        configuration.transferCountMax + 2
    }

    /// The next request for the device, nil when there is nothing that may be sent now.
    ///
    /// Reads go before writes: a waiting request feels a read, nobody feels a write. Bounded to `readRunMax` in a row, or
    /// a busy prefix starves admission. Headers go before data: their blocks are nearly there.
    package mutating func nextRequest(at now: Instant) -> DeviceRequest? {
        if let ticket = retries.popLast() { return transfers[Int(ticket)].request }
        if let flush = nextFlush(at: now) { return flush }
        guard !freeTickets.isEmpty else { return nil }
        let maySendWrite = writeTransfersOut < configuration.writeTransferCountMax
        let writeWaits = maySendWrite && (!headers.isEmpty || firstWrite != nil)
        if let number = reads.first, readBytesOut < configuration.readBytesMax,
            !writeWaits || readRun < configuration.readRunMax
        {
            readRun = writeWaits ? readRun + 1 : 0
            return dataRequest(number)
        }
        if writeWaits {
            readRun = 0
            if let number = headers.first {
                headers.removeFirst()
                return headerRequest(number)
            }
            if let number = firstWrite { return dataRequest(number) }
        }
        return nextDiscard(at: now)
    }

    /// The write whose turn it is. One whose extents the device is just discarding waits, to its deadline if need be, and
    /// holds up no other.
    private var firstWrite: UInt32? {
        guard discards.isUnderWay else { return writes.first }
        return writes.first { !discards.isUnderWay(operations[Int($0)].extents) }
    }

    private mutating func nextFlush(at now: Instant) -> DeviceRequest? {
        guard flushBegan == nil, !awaitingFlush.isEmpty else { return nil }
        swap(&awaitingFlush, &inFlush)
        flushBegan = now
        counters.flushes += 1
        return DeviceRequest(kind: .flush, ticket: flushTicket)
    }

    /// The next transfer of a command's data: as long as its extents lie side by side, the ring's buffer goes on, and
    /// the configuration allows.
    private mutating func dataRequest(_ number: UInt32) -> DeviceRequest {
        let operation = operations[Int(number)]
        let extentBytes = device.geometry.extentBytes
        var index = operation.bytesSent / extentBytes
        let within = operation.bytesSent % extentBytes
        let offset = device.geometry.offset(ofExtent: operation.extents[index]) + within
        var run = extentBytes - within
        while run < configuration.transferBytesMax, index + 1 < operation.extents.count,
            operation.extents[index + 1] == operation.extents[index] + 1
        {
            run += extentBytes
            index += 1
        }
        let place = operation.memory.offset + operation.bytesSent
        let inBuffer = Ring.bufferBytesMax - place % Ring.bufferBytesMax
        let count = min(
            min(run, configuration.transferBytesMax), min(operation.byteCount - operation.bytesSent, inBuffer))
        let kind: DeviceRequest.Kind = operation.kind == .read ? .read : .write
        operations[Int(number)].bytesSent += count
        if operation.bytesSent + count == operation.byteCount {
            if kind == .read { reads.removeFirst() } else { writes.remove(number) }
        }
        let slice = MemorySlice(region: operation.memory.region, offset: place, count: count)
        return send(kind, number, offset: offset, slice)
    }

    private mutating func headerRequest(_ number: UInt32) -> DeviceRequest {
        let offset = device.geometry.headerOffset(ofExtent: operations[Int(number)].extents[0])
        return send(.write, number, offset: offset, memory.headerPage(number))
    }

    private mutating func send(
        _ kind: DeviceRequest.Kind, _ number: UInt32, offset: Int, _ slice: MemorySlice
    ) -> DeviceRequest {
        guard let ticket = freeTickets.popLast() else { preconditionFailure("more transfers than were agreed") }
        let request = DeviceRequest(
            kind: kind, ticket: ticket, offset: offset, byteCount: slice.count, memory: slice)
        transfers[Int(ticket)] = Transfer(operation: number, request: request)
        operations[Int(number)].transfersOut += 1
        if kind == .write { writeTransfersOut += 1 } else { readBytesOut += request.byteCount }
        return request
    }

    /// Trims go out when there is nothing else to do, or when many wait; one at a time.
    private mutating func nextDiscard(at now: Instant) -> DeviceRequest? {
        guard operationCount == 0 || discards.isLong else { return nil }
        guard let run = discards.begin(at: now) else { return nil }
        counters.discards += 1
        return DeviceRequest(
            kind: .discard, ticket: discardTicket, offset: device.geometry.offset(ofExtent: run.first),
            byteCount: run.count * device.geometry.extentBytes, discardWay: discards.way)
    }
}
