// When conversations come back: per class of ended turn, how often and after how long, learned online. It answers
// with windows, not points, because gaps are predictable within a factor of two only about half of the time.

import KVModel

/// What is known of a turn that ended.
package struct TurnClass: Equatable {
    /// Why it ended.
    package var reason: StopReason
    /// Its place in the conversation: first, second to fourth, later.
    var stage: UInt8
    /// How long the client waited before it: under 10 s, under 60 s, longer, or not known.
    var rhythm: UInt8

    package init(reason: StopReason, turn: Int32, gapBefore: Double?) {
        self.reason = reason
        stage = turn <= 0 ? 0 : turn < 4 ? 1 : 2
        rhythm = gapBefore.map { $0 < 10 ? 0 : $0 < 60 ? 1 : 2 } ?? 3
    }

    /// Its place among all classes.
    var index: Int { (Int(reason.rawValue) * 3 + Int(stage)) * 4 + Int(rhythm) }
    /// All classes.
    static let count = 36
    /// The place of its coarse class: the reason alone.
    var coarseIndex: Int { TurnClass.count + Int(reason.rawValue) }
}

/// When the next turn is expected.
package struct ReturnWindow: Equatable {
    /// By the word of somebody who knows the client: he is believed within a factor of two.
    package static func told(_ after: Duration) -> ReturnWindow {
        ReturnWindow(probability: 1, opens: after.seconds / 2, closes: after.seconds * 2)
    }

    /// Chance that there is a next turn at all.
    package var probability: Double
    /// Seconds after the end by which a tenth of those that come back are there.
    package var opens: Double
    /// Seconds after the end by which nine tenths of those that come back are there.
    package var closes: Double
}

/// Histograms of return times per class of turn.
package struct ReturnPredictor {
    /// Bins of √2 from a quarter of a second on: the last is open, at about 3 hours.
    static let binCount = 32
    private struct Histogram {
        var ended = 0
        var returned = 0
        var bins = [Int](repeating: 0, count: ReturnPredictor.binCount)
    }
    private var histograms = [Histogram](repeating: Histogram(), count: TurnClass.count + 3)

    package init() {}

    /// Turns of a class that must have ended before it is believed.
    package static let evidence = 20

    /// A turn of this class ended. Those that still wait count as not back, so early estimates are low, not high.
    package mutating func turnEnded(_ turn: TurnClass) {
        for index in [turn.index, turn.coarseIndex] { histograms[index].ended += 1 }
    }

    /// The conversation of such a turn came back after `gap` seconds.
    package mutating func returned(_ turn: TurnClass, gap: Double) {
        for index in [turn.index, turn.coarseIndex] {
            histograms[index].returned += 1
            histograms[index].bins[Self.bin(of: gap)] += 1
        }
    }

    /// When turns of this class come back, or `nil` while too little is known.
    package func window(_ turn: TurnClass) -> ReturnWindow? {
        for index in [turn.index, turn.coarseIndex] {
            let histogram = histograms[index]
            guard histogram.ended >= Self.evidence, histogram.returned > 0 else { continue }
            return ReturnWindow(
                probability: Double(histogram.returned) / Double(histogram.ended),
                opens: Self.lowerEdge(bin(histogram, quantile: 1)),
                closes: Self.lowerEdge(bin(histogram, quantile: 9) + 1))
        }
        return nil
    }

    /// The bin in which the given tenth of the returns is reached.
    private func bin(_ histogram: Histogram, quantile tenths: Int) -> Int {
        var sum = 0
        for bin in 0..<Self.binCount {
            sum += histogram.bins[bin]
            if 10 * sum >= tenths * histogram.returned { return bin }
        }
        return Self.binCount - 1
    }

    /// The bin of a gap.
    static func bin(of gap: Double) -> Int {
        var bin = 0
        while bin < binCount - 1, gap >= lowerEdge(bin + 1) { bin += 1 }
        return bin
    }

    /// Where a bin begins: 0, then ¼ s · (1, 1.5, 2, 3, 4, 6, …).
    static func lowerEdge(_ bin: Int) -> Double {
        if bin == 0 { return 0 }
        let octave = Double(sign: .plus, exponent: (bin - 1) / 2, significand: 0.25)
        return bin % 2 == 1 ? octave : octave * 1.5
    }
}
