// How a person says how large a cache is: in blocks, or as a share of the blocks the trace holds.

import KVModel

/// A capacity as it was asked for.
public enum CacheOnlyCapacity: Sendable, Equatable {
    /// So many blocks.
    case blocks(Int)
    /// So many per cent of the trace's unique blocks.
    case percent(Double)

    /// Reads `N` or `N%`. `option` names the place in the error.
    public init(parsing text: String, option: String) throws(OperatorError) {
        let asks = "give a number of blocks (20000) or a share of the trace's unique blocks (5%)"
        let isShare = text.last == "%"
        let number = isShare ? text.dropLast() : text[...]
        let digits = number.allSatisfy { $0.isASCII && ($0.isNumber || $0 == "." || $0 == "-" || $0 == "+") }
        guard digits, let value = Double(number), value.isFinite else {
            throw OperatorError("'\(text)' is not a capacity", at: option, remedy: asks)
        }
        guard value > 0 else {
            throw OperatorError("a cache of \(text) holds nothing", at: option, remedy: "give a number above 0")
        }
        if isShare {
            guard value <= 10_000 else {
                throw OperatorError("\(text) is more than a hundred times the trace", at: option, remedy: asks)
            }
            self = .percent(value)
        } else {
            guard value == value.rounded() else {
                throw OperatorError("\(text) is not a whole number of blocks", at: option, remedy: asks)
            }
            guard value <= Double(Self.blocksMax) else {
                throw OperatorError(
                    "\(text) blocks are more than can be numbered", at: option,
                    remedy: "give at most \(Self.blocksMax), or a share (5%)")
            }
            self = .blocks(Int(value))
        }
    }

    /// Block numbers are 32 bits wide.
    private static let blocksMax = Int(UInt32.max) - 1

    /// Reads a comma list.
    public static func list(parsing text: String, option: String) throws(OperatorError) -> [CacheOnlyCapacity] {
        var list: [CacheOnlyCapacity] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            // "10,000" is ten and nothing to a list, and ten thousand to who wrote it.
            guard part.count < 2 || part.first != "0" || !part.allSatisfy(\.isNumber) else {
                throw OperatorError(
                    "'\(part)' in '\(text)' is not a size of its own, and a comma stands between sizes", at: option,
                    remedy: "write numbers without commas: 10000")
            }
            list.append(try CacheOnlyCapacity(parsing: part.filter { $0 != " " }, option: option))
        }
        return list
    }

    /// The capacity in blocks: `max(1, floor(share × unique))`.
    public func blocks(of uniqueBlockCount: Int) -> Int {
        switch self {
        case .blocks(let count): count
        case .percent(let percent): max(1, Self.floor(percent, of: uniqueBlockCount))
        }
    }

    /// As the decimal says it that was written: 2.3 % of 3,000 are 69, though no binary fraction is 2.3. To a millionth of a
    /// per cent.
    private static func floor(_ percent: Double, of count: Int) -> Int {
        let millionths = UInt64((percent * 1e6).rounded())
        let (high, low) = millionths.multipliedFullWidth(by: UInt64(count))
        return Int(UInt64(100_000_000).dividingFullWidth((high, low)).quotient)
    }
}
