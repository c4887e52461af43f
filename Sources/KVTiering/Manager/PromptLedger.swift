// Where each prompt token came from: the tier that served it, or the cause for which it was computed. Each token is in
// exactly one class, so the classes add up to the prompt tokens.

import KVModel

/// The class of a prompt token.
public enum TokenClass: UInt8, Sendable, CaseIterable {
    /// Served from the engine's own memory, or from HBM slots.
    case hbm
    /// Served from node memory.
    case dram
    /// Served from local flash.
    case nvme
    /// Served from the shared store.
    case flash
    /// Computed: never computed before anywhere.
    case firstSeen
    /// Computed: it had been kept here and was evicted.
    case evicted
    /// Computed: it was refused when it asked to be kept.
    case refused
    /// Computed: others computed it, and it is in no place that this node can reach.
    case heldElsewhere
    /// Computed: it was there at look-up and gone when it was to be loaded.
    case lostAfterLookUp
    /// Computed: it was on its way, or another request was still computing it, and did not come in time.
    case late
    /// Computed: its bytes could not be proven right.
    case corrupt
    /// Computed: its namespace had no room left.
    case quota
    /// Computed: there is no tier to keep it in, or the one that may have it is away.
    case noTier
    /// Computed: loading it would have taken longer, or its engine did not ask for it.
    case recomputeCheaper
    /// Computed: the last token of a prompt always is.
    case alwaysComputed

    /// Whether a tier served it.
    public var isServed: Bool { rawValue <= TokenClass.flash.rawValue }
}

/// Prompt tokens by class.
public struct PromptLedger: Sendable, Equatable {
    private var counts = [Int](repeating: 0, count: TokenClass.allCases.count)
    /// Prompts booked.
    public private(set) var prompts = 0
    /// Prompt tokens of all prompts booked, counted apart from the classes.
    public private(set) var promptTokens = 0

    /// An empty ledger.
    public init() {}

    /// Tokens of a class.
    public subscript(_ tokenClass: TokenClass) -> Int { counts[Int(tokenClass.rawValue)] }

    /// Tokens of all classes: equals `promptTokens`.
    public var total: Int { counts.reduce(0, +) }

    /// Tokens that a tier served.
    public var served: Int { TokenClass.allCases.reduce(0) { $0 + ($1.isServed ? self[$1] : 0) } }

    mutating func book(_ tokens: Int, as tokenClass: TokenClass) { counts[Int(tokenClass.rawValue)] += tokens }

    /// Closes one prompt, whose tokens must all have been booked.
    mutating func close(tokens: Int) {
        prompts += 1
        promptTokens += tokens
        precondition(total == promptTokens, "a prompt token is in no class of the ledger, or in two")
    }
}

/// A run of a prompt's blocks of one class.
public struct BookedRun: Sendable, Equatable {
    /// The class of its tokens.
    public var tokenClass: TokenClass
    /// Tokens of the prompt before it.
    public var firstToken: Int32
    /// Tokens in it.
    public var tokens: Int32
}
