// How commands and the events that end them are put together.

import KVTiering

/// An effect by the number that the decisions gave it.
package enum EffectName: Equatable {
    case transfer(TransferNumber)
    case question(TransferNumber)
    case offer(TransferNumber)

    /// The effect that a command begins.
    package init?(_ command: Command) {
        switch command {
        case .transfer(let order): self = .transfer(order.transfer)
        case .askStore(let question): self = .question(question.question)
        case .offer(let offer): self = .offer(offer.offer)
        default: return nil
        }
    }

    /// The effect that an event ends.
    package init?(_ event: Event) {
        switch event {
        case .transferEnded(let end): self = .transfer(end.transfer)
        case .storeAnswered(let answer): self = .question(answer.question)
        case .storeWants(let want): self = .offer(want.offer)
        default: return nil
        }
    }
}
