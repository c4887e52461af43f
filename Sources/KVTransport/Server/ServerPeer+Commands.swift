// What the store says to a session, and the ends of payloads.

import KVModel
import KVSystem

extension ServerPeer {
    /// Does what the store wants.
    package func perform(_ command: SessionCommand) {
        switch command {
        case .receive(let request, let slice): receive(request.number, slice)
        case .reply(let request, let response): reply(request.number, response)
        case .send(let request, let response, let slice): send(request.number, response, slice)
        case .notify(_, let notification): notify(notification)
        case .disconnect(_, let reason): disconnect(reason)
        }
    }

    /// The end of a put's payload. The checksum is that of what came.
    package func pulled(_ number: UInt32, checksum: UInt64) {
        guard var exchange = exchanges[number] else { preconditionFailure("a payload of no request") }
        precondition(exchange.stage == .pulls, "a payload that nobody asked for")
        exchange.stage = .waits
        exchanges[number] = exchange
        received(number, exchange, checksum: checksum)
    }

    private func received(_ number: UInt32, _ exchange: Exchange, checksum: UInt64) {
        let isRight = checksum == exchange.checksum
        if isRight { setting.counters.payloadsReceived += 1 } else { setting.counters.payloadsCorrupt += 1 }
        _ = setting.host.deliver(.received(RequestID(session: id, number: number), isRight ? .whole : .corrupt))
    }

    /// The end of a get's payload: the buffer is the store's again.
    package func pushed(_ number: UInt32) {
        guard exchanges[number] != nil else { preconditionFailure("a payload of no request") }
        pushingCount -= 1
        setting.counters.payloadsSent += 1
        _ = setting.host.deliver(.sent(RequestID(session: id, number: number), .whole))
        end(number)
    }

    private func receive(_ number: UInt32, _ slice: MemorySlice) {
        guard let exchange = exchanges[number] else { preconditionFailure("the store receives for no request") }
        precondition(slice.count == exchange.payloadBytes, "the store receives into a slice of another length")
        let checksum = BlockChecksum.begin(exchange.name, payloadBytes: exchange.payloadBytes)
        // Nothing comes for a payload of no bytes: the carrier is not asked for it.
        if exchange.payloadBytes == 0 { return received(number, exchange, checksum: checksum.value) }
        precondition(exchange.stage == .awaitsPayload, "the store receives a payload that is not awaited")
        if connectionIsGone {
            exchanges.change(number) { $0.stage = .waits }
            _ = setting.host.deliver(.received(RequestID(session: id, number: number), .aborted))
            return
        }
        exchanges.change(number) { $0.stage = .pulls }
        carrier.pull(into: slice, from: exchange.slot, checksum: checksum, number: number)
    }

    private func reply(_ number: UInt32, _ response: Response) {
        guard let exchange = exchanges[number] else { preconditionFailure("the store answers no request") }
        precondition(exchange.stage != .pulls, "the store answers a put before its payload has ended")
        precondition(exchange.stage != .pushes, "the store answers a get twice")
        if connectionIsGone {
            exchanges[number] = nil
            return endIfNothingWaits()
        }
        if exchange.stage == .awaitsPayload { carrier.skip(number: number) }
        if let target = exchange.cancels, hold(number, response, untilEndOf: target) { return }
        transmit(number, exchange.operation, response)
        end(number)
    }

    private func send(_ number: UInt32, _ response: Response, _ slice: MemorySlice) {
        guard let exchange = exchanges[number] else { preconditionFailure("the store answers no request") }
        precondition(exchange.operation == .get, "only a get is answered with a payload")
        guard case .object(let payloadBytes, _, _) = response.body, payloadBytes == slice.count else {
            preconditionFailure("the store sends a slice of another length than its answer says")
        }
        let request = RequestID(session: id, number: number)
        if connectionIsGone {
            exchanges[number] = nil
            _ = setting.host.deliver(.sent(request, .aborted))
            return endIfNothingWaits()
        }
        guard slice.count <= Int(exchange.slot.byteCount) else {
            transmit(
                number, .get,
                .because(
                    .invalid, "the object has \(slice.count) bytes, the slot room for \(exchange.slot.byteCount)"))
            _ = setting.host.deliver(.sent(request, .aborted))
            return end(number)
        }
        exchanges.change(number) { $0.stage = .pushes }
        pushingCount += 1
        let header = response.header(
            .get, number: number, payloadBytes: slice.count, isInSlot: carrier.isOneSided)
        carrier.push(
            header, body: { response.writeBody(to: &$0) }, from: slice, to: exchange.slot, number: number)
    }

    /// A subscriber that does not keep up loses the stream, not the store's memory: it is told once.
    private func notify(_ notification: Notification) {
        guard case .open = phase, !connectionIsGone else { return }
        let namespace = notification.namespace
        if carrier.queuedBytes > setting.limits.outputBytesMax / 2 {
            setting.counters.notificationsDropped += 1
            guard overflowed.insert(namespace).inserted else { return }
            return carrier.transmit(Notification.overflow(namespace).header) { _ in }
        }
        overflowed.remove(namespace)
        carrier.transmit(notification.header) { notification.writeBody(to: &$0) }
    }

    private func disconnect(_ reason: String) {
        guard case .open = phase, !connectionIsGone else { return }
        carrier.transmit(FrameHeader(.goodbye)) { $0.raw(reason.utf8.prefix(WireLimit.textBytesMax)) }
        phase = .ending
        carrier.finish()
    }

    /// Keeps the acknowledgement of a cancel until the request it cancels has been answered. Several cancels of one
    /// request form a chain. Cancels that cancel each other would make it a ring, in which each waits for the other: the one
    /// that would close it is acknowledged at once.
    private func hold(_ number: UInt32, _ response: Response, untilEndOf target: UInt32) -> Bool {
        guard exchanges[target] != nil else { return false }
        let last = lastHeld(behind: target)
        guard last != lastHeld(behind: number) else { return false }
        exchanges.change(last) { $0.acknowledge = number }
        exchanges.change(number) { $0.stage = .held }
        exchanges.change(number) { $0.heldResponse = response }
        return true
    }

    /// The end of the chain of acknowledgements that wait for a request: itself, where none does.
    private func lastHeld(behind number: UInt32) -> UInt32 {
        var last = number
        while let next = exchanges[last]?.acknowledge { last = next }
        return last
    }

    /// Forgets a request that was answered, and acknowledges its cancel.
    private func end(_ number: UInt32) {
        var next: UInt32? = number
        while let ended = next {
            guard let exchange = exchanges.removeValue(forKey: ended) else { break }
            if let held = exchange.heldResponse { transmit(ended, exchange.operation, held) }
            next = exchange.acknowledge
        }
    }

    private func transmit(_ number: UInt32, _ operation: Operation, _ answer: Response) {
        let response = answer.fitting
        let header = response.header(operation, number: number, payloadBytes: 0, isInSlot: false)
        carrier.transmit(header) { response.writeBody(to: &$0) }
    }
}
