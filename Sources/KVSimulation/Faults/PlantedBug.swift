// Bugs that are planted on purpose, to prove that the checkers see them. Each is a way in which decisions or their
// border to the devices were once wrong in some cache; none of them is in the product.

import KVModel
import KVTiering

/// A bug to plant between a node's decisions and its world.
public enum PlantedBug: String, Sendable, CaseIterable {
    /// A cancelled transfer's slots are free at once, though bytes still move.
    case slotFreedEarly
    /// Saved blocks can be found before their bytes have come.
    case visibleTooSoon
    /// The end of a write to a lower tier is never heard of: its blocks stay leased.
    case lostLease
    /// Deadlines are not met on time.
    case forgottenDeadline
    /// A slot number is kept beyond its block: a load reads the slot next to its own.
    case staleSlot
    /// The tiers are taken to be one block larger than they are.
    case budgetOffByOne
    /// Pins are granted and forgotten.
    case pinIgnored
    /// Blocks whose bytes were wrong count as arrived.
    case corruptionBelieved
    /// Blocks that were gone from the store count as arrived.
    case absenceBelieved
    /// The engine is promised one block more than came.
    case readyTooLong
    /// Now and then a request is not told that its load ended.
    case requestForgotten
    /// Places promised by the store are not given back.
    case promiseForgotten
    /// Now and then a prompt is not booked.
    case promptUnbooked
    /// The decisions take slots back that an engine still reads.
    case loanEndedEarly
    /// Slots that an engine gave back, or held too long, are not taken back.
    case loanForgotten
    /// Slots of the device are given away while their engine still reads them.
    case lentSlotForgotten
    /// After a crash the new agent goes on with the dead one's memory of what is where.
    case survivedCrash
}

/// Plants one bug.
struct Saboteur {
    let bug: PlantedBug?
    private var chances = 0

    init(_ bug: PlantedBug?) { self.bug = bug }

    /// Whether it is this bug's turn: every `interval`-th chance.
    mutating func strikes(_ bug: PlantedBug, every interval: Int = 1) -> Bool {
        guard self.bug == bug else { return false }
        chances += 1
        return chances % interval == 0
    }

    /// What the decisions hear instead of an event; nil: nothing.
    mutating func twist(_ event: Event) -> Event? {
        switch event {
        case .transferEnded(var end):
            switch bug {
            case .corruptionBelieved: end.lost.removeAll { $0.cause == .corrupt }
            case .absenceBelieved: end.lost.removeAll { $0.cause == .absent }
            default: return event
            }
            return .transferEnded(end)
        case .computed:
            return strikes(.promptUnbooked, every: 5) ? nil : event
        default: return event
        }
    }
}

extension FaultyWorld {
    /// What the world hears instead of a command; nil: nothing.
    mutating func sabotage(_ command: Command) -> Command? {
        guard saboteur.bug != nil else { return command }
        switch command {
        case .cancel(let transfer) where saboteur.strikes(.slotFreedEarly):
            orphan(transfer, .cancelled)
            return nil
        case .transfer(var order)
        where order.kind == .load && order.to == .hbm && saboteur.strikes(.staleSlot, every: 4):
            order.moves[0].source = (order.moves[0].source + 1) % SlotIndex(shape.dramBlocks)
            return .transfer(order)
        case .transfer(let order) where order.kind == .save && saboteur.bug == .visibleTooSoon:
            begin(order)
            orphan(order.transfer, .done)
            return nil
        case .ready(var ready) where ready.end > ready.first && saboteur.strikes(.readyTooLong):
            ready.end += 1
            return .ready(ready)
        case .ready where saboteur.strikes(.requestForgotten, every: 7):
            return nil
        case .withdraw where saboteur.bug == .promiseForgotten:
            return nil
        default: return command
        }
    }

    /// The decisions hear of an end that has not come; the bytes go on moving.
    private mutating func orphan(_ transfer: TransferNumber, _ outcome: TransferEnd.Outcome) {
        guard let slot = nodes[node].flights.removeValue(forKey: transfer) else { return }
        flights[slot].isOrphan = true
        tell(node, .transferEnded(TransferEnd(transfer: transfer, outcome: outcome)), at: clock)
    }

    /// Whether the end of a flight is kept from its node.
    mutating func losesEnd(_ flight: Flight) -> Bool {
        (flight.order.kind == .demote || flight.order.kind == .spill) && saboteur.strikes(.lostLease, every: 9)
    }
}
