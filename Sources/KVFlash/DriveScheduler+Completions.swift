// What follows from the end of a request.

import KVModel
import KVSystem

extension DriveScheduler {
    /// How often a transfer is sent again that the kernel interrupted.
    private static let attemptsMax = 8
    // Error numbers of the kernel.
    private static let interrupted: Int32 = 4
    private static let inputOutput: Int32 = 5
    private static let tryAgain: Int32 = 11

    /// Goes on from the end of a request.
    package mutating func complete(_ completion: DeviceCompletion) {
        switch completion.ticket {
        case flushTicket: flushEnded(completion.result)
        case discardTicket: discards.end(result: completion.result)
        default: transferEnded(completion.ticket, completion.result)
        }
    }

    private mutating func transferEnded(_ ticket: UInt32, _ result: Int32) {
        let transfer = transfers[Int(ticket)]
        let number = transfer.operation
        let isWanted = !operations[Int(number)].isOverdue && operations[Int(number)].failure == nil
        var error: Int32 = 0
        if result == -Self.interrupted || result == -Self.tryAgain {
            if isWanted, transfer.attempts < Self.attemptsMax { return sendAgain(ticket, after: 0) }
            error = -result
        } else if result < 0 {
            error = -result
        } else if result < transfer.request.byteCount {
            // A part is an ordinary answer as long as the rest may start between two sectors.
            if isWanted, result > 0, result % 512 == 0 { return sendAgain(ticket, after: Int(result)) }
            error = Self.inputOutput
        }
        freeTickets.append(ticket)
        operations[Int(number)].transfersOut -= 1
        if transfer.request.kind == .write {
            writeTransfersOut -= 1
        } else {
            readBytesOut -= transfer.request.byteCount
        }
        settle(number, error)
    }

    /// Sends the rest of a transfer, `done` bytes of which have travelled.
    private mutating func sendAgain(_ ticket: UInt32, after done: Int) {
        var request = transfers[Int(ticket)].request
        if request.kind == .read { readBytesOut -= done }
        request.offset += done
        request.byteCount -= done
        request.memory.offset += done
        request.memory.count -= done
        transfers[Int(ticket)].request = request
        transfers[Int(ticket)].attempts = done > 0 ? 0 : transfers[Int(ticket)].attempts + 1
        retries.append(ticket)
    }

    /// Goes on with a command of which a transfer has ended.
    private mutating func settle(_ number: UInt32, _ error: Int32) {
        let operation = operations[Int(number)]
        if operation.isOverdue {
            guard operation.transfersOut == 0 else { return }
            operations[Int(number)].phase = .free
            freeOperations.append(number)
            events.append(.released(tag: operation.tag))
            return
        }
        if error != 0 { return fail(number, .failed(error)) }
        if let failure = operation.failure {
            if operation.transfersOut == 0 { answer(number, failure) }
            return
        }
        if operation.phase == .data, operation.transfersOut > 0 || operation.bytesSent < operation.byteCount {
            if operation.kind == .write { onFaultPoint?(.dataHalfWritten) }
            return
        }
        switch operation.kind {
        case .read, .volatileWrite: answer(number, .done)
        case .write:
            onFaultPoint?(operation.phase == .data ? .dataWritten : .headerWritten)
            needFlush(number)
        case .erase:
            onFaultPoint?(.tombstoneWritten)
            needFlush(number)
        }
    }

    private mutating func needFlush(_ number: UInt32) {
        operations[Int(number)].phase = operations[Int(number)].phase == .data ? .dataFlush : .headerFlush
        if device.hasVolatileCache { awaitingFlush.append(number) } else { isDurable(number) }
    }

    private mutating func flushEnded(_ result: Int32) {
        flushBegan = nil
        // A flush that was interrupted has flushed nothing; its commands wait for the next one.
        if result == -Self.interrupted || result == -Self.tryAgain, !flushIsOverdue {
            awaitingFlush.append(contentsOf: inFlush)
            inFlush.removeAll(keepingCapacity: true)
            return
        }
        if result < 0 { return becomeReadOnly(-result) }
        while let number = inFlush.popLast() { isDurable(number) }
    }

    /// What a command wrote last is durable.
    private mutating func isDurable(_ number: UInt32) {
        switch (operations[Int(number)].phase, operations[Int(number)].kind) {
        case (.dataFlush, _):
            onFaultPoint?(.dataFlushed)
            operations[Int(number)].phase = .header
            headers.append(number)
        case (_, .erase):
            onFaultPoint?(.tombstoneFlushed)
            answer(number, .done)
        default:
            onFaultPoint?(.headerFlushed)
            answer(number, .done)
        }
    }
}
