// What the `holdfast` policy knows of a request when it comes: whether it continues another, how far along that
// conversation is, its rhythm, and how popular its blocks are.

import KVModel

/// The ages by which comings back are counted: two bins to a doubling, from half a second to about nine hours.
enum AgeBins {
    static let count = 34
    /// The age at which a tail leaves each bin, in seconds: 0.5, 0.75, 1, 1.5, …; the last bin is open.
    static let upperEdges: [Double] = {
        var edges: [Double] = []
        var edge = 0.5
        while edges.count < count - 1 {
            edges.append(edge)
            edges.append(edge * 1.5)
            edge *= 2
        }
        return Array(edges.prefix(count - 1))
    }()
    /// Widths in seconds. The open bin's is nominal.
    static let widths: [Double] = (0..<count).map { bin in
        bin == 0 ? upperEdges[0] : bin < count - 1 ? upperEdges[bin] - upperEdges[bin - 1] : upperEdges[bin - 1]
    }
    static let middles: [Double] = (0..<count).map { bin in
        bin == 0
            ? upperEdges[0] / 2
            : bin < count - 1 ? (upperEdges[bin] + upperEdges[bin - 1]) / 2 : upperEdges[bin - 1] * 1.25
    }

    /// The bin of an age in seconds.
    static func bin(of age: Double) -> Int {
        var bin = 0
        while bin < count - 1, age >= upperEdges[bin] { bin += 1 }
        return bin
    }
}

/// How much a block is used, in levels that rise towards the root.
///
/// Levels 0–2 are a conversation's own blocks: used once, two or three times, or more. The others are *shared*: at
/// them or below them several requests went on in different ways (a system prompt, a template, a document). These do
/// not come back when one conversation goes on but as often as their users do, so they are judged by their tempo.
enum Popularity {
    /// From so many requests that left the known tree at a block on, it and all above are shared.
    static let branchesOfShared: UInt8 = 3
    /// With fewer uses there is no tempo yet.
    static let usesOfShared: UInt16 = 8
    static let ownLevels = 3
    /// Mean times between uses: below 4 s, then a tempo for every factor of four up to three hours and more.
    static let tempos = 7
    static let levels = ownLevels + tempos
    /// Shared blocks of one tempo are alike, whatever their age, so their class needs less evidence than others to
    /// differ from the crowd.
    static let sharedEvidence = 1.0 / 16
    /// The mean runs over this many uses.
    static let window: UInt16 = 64

    @inline(__always)
    static func level(of block: KnownBlock, isShared: Bool) -> Int {
        guard isShared, block.uses >= usesOfShared else { return block.uses < 4 ? (block.uses < 2 ? 0 : 1) : 2 }
        let octave = block.gap < 1 ? 0 : Int(block.gap.exponent)
        return levels - 1 - min(octave / 2, tempos - 1)
    }
}

/// How far a turn is, as far as it was told.
enum Stage: Int32, CaseIterable {
    case running, askedForTool, waitsForPerson, ended

    init(_ reason: StopReason) {
        switch reason {
        case .toolUse: self = .askedForTool
        case .endTurn: self = .waitsForPerson
        case .unknown, .branchEnded: self = .ended
        }
    }
}

/// What was known of a path before the request.
struct Past {
    /// Its leading blocks that had an owner.
    var seen = 0
    /// Its leading blocks that many requests went on from in different ways.
    var shared = 0
    /// Of the owner of the deepest of these: path length, turn, arrival.
    var ownerLength = 0
    var ownerTurn: Int32 = 0
    var ownerArrival = 0.0
    /// And the mean of its conversation's gaps, negative if it began one.
    var ownerPace = -1.0
}

/// What a request is.
struct RequestNature {
    /// 0–4: continues another, at turn 2, 3–4, 5–8, 9–31, 32 and more. 5: starts from a known template. 6, 7: fresh,
    /// shorter or longer than usual.
    var chain: Int
    /// The `chain` of what starts from a known template.
    static let template = 5
    /// 0–2: how slowly its conversation goes on, in thirds of all that do; 3–5: the same where the turn added far more than
    /// turns do. 0 otherwise.
    var rhythm: Int
    var turn: Int32
    /// The running mean of its conversation's gaps, in bins of age; negative before there was one.
    var pace = -1.0
}

/// Running knowledge of all requests.
struct HoldfastTraffic {
    private(set) var requests = 0
    private var meanLength = 0.0
    /// How slowly conversations went on, by bins, a count a turn.
    private var gaps = [Int](repeating: 0, count: AgeBins.count)
    private var gapCount = 0
    /// Blocks that a turn adds to its conversation, on average.
    private var meanGrowth = 0.0
    /// Blocks of all requests that were known before, and those of requests that went on right where another ended.
    private var knownBlocks = 0
    private var continuedBlocks = 0

    static let chains = 8
    static let gapClasses = 3
    static let rhythms = 2 * gapClasses
    /// A turn that adds more than so many times what turns add *leaps*: somebody went on from a text that others have read,
    /// or has put another one in. Early in a conversation few come back after that.
    static let leap = 2.0
    /// Before so many turns nobody knows what they add.
    static let leastGaps = 8
    /// A conversation's pace is the running mean of its gaps: the last counts a third.
    static let paceStep = 1.0 / 3
    /// A mean that is more than a fifth into a bin counts as the next one: who is thought quicker than he is, is given up early.
    static let paceRounding = 0.8
    /// From this turn on it is a conversation, whatever it adds.
    static let turnOfLeapless: Int32 = 32

    /// The age in seconds that two thirds of the gaps do not exceed.
    var longGap: Double { AgeBins.upperEdges[min(gapBounds.upper, AgeBins.count - 2)] }

    /// The last bins of the first and second third of all gaps.
    private var gapBounds: (lower: Int, upper: Int) {
        guard gapCount >= 30 else { return (8, 14) }
        var sum = 0
        var lower = -1
        for bin in 0..<AgeBins.count {
            sum += gaps[bin]
            if lower < 0, 3 * sum >= gapCount { lower = bin }
            if 3 * sum >= 2 * gapCount { return (lower, bin) }
        }
        return (lower, AgeBins.count - 1)
    }

    /// Whether what comes again is mostly conversations that go on.
    var isConversational: Bool { 2 * continuedBlocks >= knownBlocks }

    /// Whether what comes again are beginnings that many requests share, and not conversations that go on.
    var looksLikeTemplates: Bool {
        let shared = knownBlocks - continuedBlocks
        return shared >= continuedBlocks && 16 * Double(shared) > meanLength * Double(requests)
    }

    mutating func classify(length: Int, past: Past, clock: Double) -> RequestNature {
        defer {
            requests += 1
            meanLength += (Double(length) - meanLength) / Double(min(requests, 1000))
        }
        count(past)
        if continues(length: length, past: past) {
            let turn = past.ownerTurn + 1
            let gap = Double(AgeBins.bin(of: clock - past.ownerArrival))
            let pace = past.ownerPace < 0 ? gap : past.ownerPace + (gap - past.ownerPace) * Self.paceStep
            let bin = min(Int(max(gap, pace) + Self.paceRounding), AgeBins.count - 1)
            let bounds = gapBounds
            gaps[bin] += 1
            gapCount += 1
            let third = bin <= bounds.lower ? 0 : bin <= bounds.upper ? 1 : 2
            let rhythm = leaps(by: length - past.seen, at: turn) ? Self.gapClasses + third : third
            let chain = turn <= 2 ? 0 : turn <= 4 ? 1 : turn <= 8 ? 2 : turn <= 31 ? 3 : 4
            return RequestNature(chain: chain, rhythm: rhythm, turn: turn, pace: pace)
        }
        if past.seen >= 3 { return RequestNature(chain: RequestNature.template, rhythm: 0, turn: 1) }
        return RequestNature(chain: Double(length) <= meanLength ? 6 : 7, rhythm: 0, turn: 1)
    }

    /// Whether a turn that adds `growth` blocks leaps; it counts in the mean from then on. It is in `gapCount` already.
    private mutating func leaps(by growth: Int, at turn: Int32) -> Bool {
        let isKnown = gapCount > Self.leastGaps
        defer { meanGrowth += (Double(growth) - meanGrowth) / Double(min(gapCount, 1000)) }
        return isKnown && turn < Self.turnOfLeapless && Double(growth) > Self.leap * meanGrowth
    }

    private mutating func count(_ past: Past) {
        knownBlocks += past.seen
        // All of the other but its last block, which may be partial.
        guard past.seen > past.shared, past.seen + 1 >= past.ownerLength else { return }
        guard past.seen >= 3 || past.ownerLength <= 2 else { return }
        continuedBlocks += past.seen
    }

    /// Whether the request goes on where another ended: half of it was known, and the owner of the deepest known
    /// block has little more than that.
    private func continues(length: Int, past: Past) -> Bool {
        guard past.seen > past.shared, 2 * past.seen >= length else { return false }
        guard past.seen + 1 + past.ownerLength / 4 >= past.ownerLength else { return false }
        return past.seen >= 3 || past.ownerLength <= 2
    }
}
