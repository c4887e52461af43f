// The names by which options, scenarios and reports call a policy.

import KVModel

/// A policy, or a ceiling, by its name.
public enum PolicyName: String, Sendable, CaseIterable, Codable {
    /// Least recently used.
    case lru
    /// First in, first out.
    case fifo
    /// Least frequently used since admission.
    case lfu
    /// Three FIFO queues.
    case s3fifo
    /// One FIFO queue and a hand.
    case sieve
    /// Adaptive replacement.
    case arc
    /// Our default: hits expected for the space and time a block takes, with refusal of what is worth less.
    case holdfast
    /// The ceiling of any cache of the same size: it knows the future.
    case clairvoyant
    /// The ceiling of any size: nothing is ever evicted.
    case infinite

    /// The policies that can run a tier: all but the ceilings.
    public static var deployable: [PolicyName] { allCases.filter { $0 != .clairvoyant && $0 != .infinite } }

    /// A fresh policy for a tier of `capacity` blocks, or `nil` for the clairvoyant ceiling, which needs the whole
    /// trace. Only an owner that gives block numbers to new keys asks for `reportsForgotten`, and then empties
    /// `takeForgotten` from time to time. One that serves asks for `isSteady`: no single access then costs much more than
    /// others.
    public func makePolicy(
        capacity: Int, reportsForgotten: Bool = false, isSteady: Bool = false
    ) -> (any TierPolicy)? {
        switch self {
        case .lru: LRUPolicy(capacity: capacity)
        case .fifo: FIFOPolicy(capacity: capacity)
        case .lfu: LFUPolicy(capacity: capacity)
        case .s3fifo: S3FIFOPolicy(capacity: capacity, reportsForgotten: reportsForgotten)
        case .sieve: SIEVEPolicy(capacity: capacity)
        case .arc: ARCPolicy(capacity: capacity, reportsForgotten: reportsForgotten)
        case .holdfast: HoldfastPolicy(capacity: capacity, reportsForgotten: reportsForgotten, isSteady: isSteady)
        case .clairvoyant: nil
        case .infinite: InfinitePolicy()
        }
    }
}
