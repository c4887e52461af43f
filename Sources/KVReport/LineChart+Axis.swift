// Axes with ticks at round numbers. Places on logarithmic axes use the logarithm that is the same on every machine.

import KVModel

extension LineChart.Axis {
    /// Equal factors, ticks at 1, 3, 10, …; the ends are moved outwards to such a number.
    static func logarithmic(_ title: String, from: Double, to: Double, label: (Double) -> String) -> LineChart.Axis {
        let from = within(1e-12...1e24, from)
        let to = max(from, within(1e-12...1e24, to))
        var values: [Double] = []
        var power = 1.0
        while power > from { power /= 10 }
        while power * 10 <= from { power *= 10 }
        // 37 decades at most, so this ends.
        while power <= to * 10 {
            values += [power, power * 3]
            power *= 10
        }
        // 0.3 must not read 0.30000000000000004.
        values = values.map { significant($0, 2).value }
        let first = values.lastIndex { $0 <= from * 1.000_001 } ?? 0
        let last = values.firstIndex { $0 >= to * 0.999_999 } ?? values.count - 1
        let kept = Array(values[first...max(first + 1, last)])
        let decades = kept.count / 2
        let ticks = kept.map { value in
            let leads = significant(value, 2).text.contains { $0 == "1" }
            return LineChart.Tick(value: value, label: label(value), isMajor: leads)
        }
        return LineChart.Axis(
            title: title, lower: kept[0], upper: kept[kept.count - 1], isLogarithmic: true,
            ticks: decades > 4
                ? ticks.filter(\.isMajor).enumerated().map { index, tick in
                    LineChart.Tick(value: tick.value, label: tick.label, isMajor: decades <= 5 || index % 2 == 0)
                } : ticks)
    }

    /// Equal factors, ticks at powers of two; at most 16 of them, however far apart the ends are.
    static func powersOfTwo(_ title: String, from: Double, to: Double) -> LineChart.Axis {
        let from = within(1e-9...1e15, from)
        let to = max(from, within(1e-9...1e15, to))
        var lower = 1.0
        while lower > from { lower /= 2 }
        while lower * 2 <= from { lower *= 2 }
        var values = [lower, lower * 2]
        while values[values.count - 1] < to { values.append(values[values.count - 1] * 2) }
        let step = (values.count + 15) / 16
        let ticks = stride(from: 0, to: values.count, by: step).map { index in
            LineChart.Tick(
                value: values[index], label: brief(values[index]), isMajor: (index / step) % 2 == 0)
        }
        return LineChart.Axis(
            title: title, lower: lower, upper: values[values.count - 1], isLogarithmic: true, ticks: ticks)
    }

    /// A number as a tick has room for: 0.5, 256, 3.8e-6.
    private static func brief(_ value: Double) -> String {
        if (1e-3..<1e5).contains(value) { return Printed.number(value, .given).text }
        var (digits, exponent) = (value, 0)
        while digits >= 10 { (digits, exponent) = (digits / 10, exponent + 1) }
        while digits < 1 { (digits, exponent) = (digits * 10, exponent - 1) }
        return "\(significant(digits, 2).text)e\(exponent)"
    }

    /// Shares from a lower end to 100 %.
    static func percent(_ title: String, from lower: Double) -> LineChart.Axis {
        let step = lower > 0.5 ? 0.1 : lower > 0 ? 0.2 : 0.25
        var ticks: [LineChart.Tick] = []
        var value = lower
        while value <= 1.000_001 {
            ticks.append(LineChart.Tick(value: value, label: fixed(value * 100, decimals: 0) + thinSpace + "%"))
            value += step
        }
        return LineChart.Axis(title: title, lower: lower, upper: 1, isLogarithmic: false, ticks: ticks)
    }

    /// Equal steps from zero, about five ticks at round numbers.
    static func linear(_ title: String, to upper: Double, label: (Double) -> String) -> LineChart.Axis {
        let upper = within(0...1e24, upper)
        let rough = max(upper, 1e-9) / 4
        var step = 1.0
        while step > rough { step /= 10 }
        while step * 10 <= rough { step *= 10 }
        for factor in [5.0, 2.0] where step * factor <= rough {
            step *= factor
            break
        }
        var ticks: [LineChart.Tick] = []
        var value = 0.0
        while value <= upper * 1.000_001 {
            ticks.append(LineChart.Tick(value: value, label: label(value), isMajor: ticks.count % 2 == 0))
            value += step
        }
        return LineChart.Axis(title: title, lower: 0, upper: upper, isLogarithmic: false, ticks: ticks)
    }

    /// A value moved to the nearer end of a range; what is no number, to its lower end. An axis drawn from any input then has
    /// ends in order and at least one tick.
    private static func within(_ range: ClosedRange<Double>, _ value: Double) -> Double {
        value.isNaN ? range.lowerBound : min(max(value, range.lowerBound), range.upperBound)
    }

    /// Where a value lies, 0 at the start and 1 at the end; values outside are moved to the nearer end.
    func place(_ value: Double) -> Double {
        guard upper > lower, !value.isNaN else { return 0 }
        let clamped = min(max(value, lower), upper)
        if isLogarithmic {
            return (naturalLogarithm(clamped) - naturalLogarithm(lower))
                / (naturalLogarithm(upper) - naturalLogarithm(lower))
        }
        return (clamped - lower) / (upper - lower)
    }
}
