// The serving model against measured points: predictions, errors by group, and the gate over the reliable ones.

import KVModel

/// Predictions for a file of measured points.
public struct ModelCheck: Sendable {
    /// Points that ran, in the file's order.
    public let predictions: [PointPrediction]
    /// Points that did not, with reasons.
    public let skipped: [SkippedPoint]
    /// Errors by group, kind and reliability, in order of first appearance.
    public let groups: [Group]
    /// Errors over the serving runs (closed and open loop) of reliability A: what the gate looks at.
    public let reliable: Errors

    /// Mean and 90th percentile of absolute relative errors; nil where nothing was compared.
    public struct Errors: Sendable, Equatable {
        /// Points in it.
        public var count: Int
        /// Of the mean time to the first token.
        public var timeToFirstTokenMean: Double?
        /// Of the mean time to the first token.
        public var timeToFirstTokenP90: Double?
        /// Of the time per further token.
        public var timePerTokenMean: Double?
        /// Of the time per further token.
        public var timePerTokenP90: Double?
    }

    /// Points that belong together.
    public struct Group: Sendable, Equatable {
        /// The group's name in the file.
        public var name: String
        /// Kind of its points.
        public var kind: MeasuredPoint.Kind
        /// Reliability of its points.
        public var reliability: String
        /// Their errors.
        public var errors: Errors
    }

    /// Mean errors that the reliable points must stay below.
    public static let gate = (timeToFirstToken: 0.18, timePerToken: 0.10)
    /// Mean errors that published configurations were reproduced within.
    public static let aim = (timeToFirstToken: 0.11, timePerToken: 0.05)

    /// Runs every point. One that cannot run, for whatever reason, is skipped with it.
    public init(_ points: [MeasuredPoint], catalogue: Catalogue) {
        let predictor = PointPredictor(catalogue: catalogue)
        var predictions: [PointPrediction] = []
        var skipped: [SkippedPoint] = []
        for point in points {
            switch predictor.predict(point) {
            case .predicted(let prediction): predictions.append(prediction)
            case .skipped(let point): skipped.append(point)
            }
        }
        self.predictions = predictions
        self.skipped = skipped
        groups = Self.groups(of: predictions)
        reliable = Errors(
            predictions.filter {
                $0.point.reliability == "A" && ($0.kind == .closedLoop || $0.kind == .openLoop)
            })
    }

    /// Whether the reliable points stay below the gate; true where there are none.
    public var passesGate: Bool {
        (reliable.timeToFirstTokenMean ?? 0) <= Self.gate.timeToFirstToken
            && (reliable.timePerTokenMean ?? 0) <= Self.gate.timePerToken
    }

    private static func groups(of predictions: [PointPrediction]) -> [Group] {
        var members: [(key: [String], kind: MeasuredPoint.Kind, list: [PointPrediction])] = []
        for prediction in predictions {
            let key = [prediction.point.group, prediction.kind.rawValue, prediction.point.reliability]
            if let index = members.firstIndex(where: { $0.key == key }) {
                members[index].list.append(prediction)
            } else {
                members.append((key, prediction.kind, [prediction]))
            }
        }
        return members.map {
            Group(name: $0.key[0], kind: $0.kind, reliability: $0.key[2], errors: Errors($0.list))
        }
    }
}

extension ModelCheck.Errors {
    fileprivate init(_ predictions: [PointPrediction]) {
        let first = predictions.compactMap(\.timeToFirstTokenError).sorted()
        let further = predictions.compactMap(\.timePerTokenError).sorted()
        count = predictions.count
        timeToFirstTokenMean = mean(first)
        timeToFirstTokenP90 = percentile90(first)
        timePerTokenMean = mean(further)
        timePerTokenP90 = percentile90(further)
    }
}

private func mean(_ values: [Double]) -> Double? {
    values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
}

/// The 90th percentile of sorted values, between two of them by linear interpolation.
private func percentile90(_ sorted: [Double]) -> Double? {
    guard let last = sorted.last else { return nil }
    let rank = 0.9 * Double(sorted.count - 1)
    let below = Int(rank)
    let low = sorted[below]
    let high = below + 1 < sorted.count ? sorted[below + 1] : last
    return low + (high - low) * (rank - Double(below))
}

extension ModelCheck {
    /// `{"groups": […], "points": […], "skipped": […]}`; errors as fractions, absent figures null.
    public var json: JSONValue {
        .object([
            "groups": .list(groups.map(\.json)),
            "points": .list(predictions.map(\.json)),
            "skipped": .list(skipped.map(\.json)),
        ])
    }
}

extension ModelCheck.Group {
    fileprivate var json: JSONValue {
        .object([
            "group": .text(name), "kind": .text(kind.rawValue), "reliability": .text(reliability),
            "count": .integer(Int64(errors.count)), "ttftMeanError": JSONValue(errors.timeToFirstTokenMean),
            "ttftP90Error": JSONValue(errors.timeToFirstTokenP90),
            "tpotMeanError": JSONValue(errors.timePerTokenMean), "tpotP90Error": JSONValue(errors.timePerTokenP90),
        ])
    }
}

extension PointPrediction {
    /// The point's own fields and the predictions; a break-even point has its rate besides.
    fileprivate var json: JSONValue {
        var fields = point.fields
        fields["predictedTTFTMeanMs"] = JSONValue(timeToFirstTokenMilliseconds)
        fields["predictedTPOTMs"] = JSONValue(timePerTokenMilliseconds)
        if let gigabytesPerSecond { fields["predictedGBps"] = .number(gigabytesPerSecond) }
        return .object(fields)
    }
}

extension SkippedPoint {
    fileprivate var json: JSONValue {
        var fields = point.fields
        fields["reason"] = .text(reason)
        return .object(fields)
    }
}
