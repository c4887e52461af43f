// A JSON or CSV number kept exactly as it was written, so that a time in seconds with seven digits becomes the same
// nanoseconds on every machine and a 64-bit id loses nothing.

/// `digits` × 10^`exponent`, negated if `isNegative`.
struct DecimalNumber: Equatable {
    var isNegative = false
    var digits: UInt64 = 0
    var exponent = 0
    /// Digits beyond the nineteenth were dropped and were not all zero.
    var isTruncated = false

    var isBelowZero: Bool { isNegative && digits != 0 }

    /// The value if it is a whole number from 0 to 2⁶⁴ − 1.
    var wholeNumber: UInt64? {
        if digits == 0 { return 0 }
        if isNegative || isTruncated { return nil }
        var value = digits
        if exponent >= 0 {
            if exponent > 19 { return nil }
            for _ in 0..<exponent {
                let (product, overflow) = value.multipliedReportingOverflow(by: 10)
                if overflow { return nil }
                value = product
            }
            return value
        }
        if exponent < -19 { return nil }
        for _ in 0..<(-exponent) {
            if value % 10 != 0 { return nil }
            value /= 10
        }
        return value
    }

    /// The value × 10^`power`, rounded to the nearest whole number (halves up), if it is from 0 to 2⁶³ − 1.
    func scaled(byPowerOfTen power: Int) -> Int64? {
        if digits == 0 { return 0 }
        if isNegative { return nil }
        let shift = exponent + power
        if shift > 19 { return nil }
        if shift < -20 { return 0 }
        var value = digits
        if shift >= 0 {
            for _ in 0..<shift {
                let (product, overflow) = value.multipliedReportingOverflow(by: 10)
                if overflow { return nil }
                value = product
            }
        } else {
            for _ in 1..<(-shift) { value /= 10 }
            value = value / 10 + (value % 10 >= 5 ? 1 : 0)
        }
        return Int64(exactly: value)
    }
}
