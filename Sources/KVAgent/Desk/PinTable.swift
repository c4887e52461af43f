// Which of the decisions' pins is which engine's, and by what ticket it asked for it.

import KVModel
import KVTiering

/// Pins by the engine's ticket. They outlive their engines, until they expire: that is what they are for.
struct PinTable {
    private struct Entry {
        var engine: EngineNumber
        var ticket: EngineTicket
        var expires: Instant
    }

    private static let countMax = 4096
    private var entries: [UInt32: Entry] = [:]
    private var next: UInt32 = 0

    var count: Int { entries.count }

    mutating func open(
        _ engine: EngineNumber, _ ticket: EngineTicket, expires: Instant, at now: Instant
    ) -> UInt32? {
        if entries.count >= Self.countMax { entries = entries.filter { $0.value.expires > now } }
        guard entries.count < Self.countMax else { return nil }
        while entries[next] != nil { next &+= 1 }
        let pin = next
        next &+= 1
        entries[pin] = Entry(engine: engine, ticket: ticket, expires: expires)
        return pin
    }

    /// Whose pin was answered; one that was not granted is forgotten.
    mutating func answered(_ answer: PinAnswer) -> (EngineNumber, EngineTicket)? {
        guard let entry = entries[answer.pin] else { return nil }
        if answer.outcome != .granted { entries[answer.pin] = nil }
        return (entry.engine, entry.ticket)
    }

    /// Takes a pin back by its ticket.
    mutating func take(_ engine: EngineNumber, _ ticket: EngineTicket) -> UInt32? {
        guard let pin = entries.first(where: { $0.value.engine == engine && $0.value.ticket == ticket })?.key else {
            return nil
        }
        entries[pin] = nil
        return pin
    }
}
