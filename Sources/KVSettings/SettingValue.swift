// One setting of a file or of the command line, read as what it must be: what does not fit is named, with what would.

import KVModel

/// The words of one setting and what they may mean.
public struct SettingValue {
    /// The setting's name.
    public var name: String
    /// What was given for it: one word, or those of a list.
    public var words: [String]
    /// Where: a file and line, or an option.
    public var place: String

    /// A value of its parts.
    public init(name: String, words: [String], place: String) {
        self.name = name
        self.words = words
        self.place = place
    }

    /// Its one word.
    public func word() throws(OperatorError) -> String {
        guard words.count == 1 else { throw OperatorError("`\(name)` is one value", at: place) }
        return words[0]
    }

    /// Bytes, with a unit or without, within a range.
    public func bytes(_ range: ClosedRange<Int>) throws(OperatorError) -> Int {
        let value = try ByteSize.read(try word(), name: name, at: place)
        guard range.contains(value) else {
            let (low, high) = (ByteSize.text(range.lowerBound), ByteSize.text(range.upperBound))
            throw OperatorError("`\(name)` is \(ByteSize.text(value)), not from \(low) to \(high)", at: place)
        }
        return value
    }

    /// A whole number within a range.
    public func whole(_ range: ClosedRange<Int>) throws(OperatorError) -> Int {
        guard let value = Int(try word()), range.contains(value) else {
            throw OperatorError(
                "`\(name)` is `\(words[0])`, not a whole number from \(range.lowerBound) to \(range.upperBound)",
                at: place)
        }
        return value
    }

    /// A number within a range, in the unit of the setting.
    public func number(_ range: ClosedRange<Double>) throws(OperatorError) -> Double {
        guard let value = Double(try word()), range.contains(value) else {
            throw OperatorError(
                "`\(name)` is `\(words[0])`, not a number from \(range.lowerBound) to \(range.upperBound)", at: place)
        }
        return value
    }

    /// Numbers of 32 bits, any count of them.
    public func numbers() throws(OperatorError) -> [UInt32] {
        var numbers: [UInt32] = []
        for word in words {
            guard let number = UInt32(word) else {
                throw OperatorError("`\(name)` holds `\(word)`, which is no number", at: place)
            }
            numbers.append(number)
        }
        return numbers
    }

    /// `true` or `false`.
    public func flag() throws(OperatorError) -> Bool {
        guard let flag = Bool(try word()) else {
            throw OperatorError("`\(name)` is `\(words[0])`, not true or false", at: place)
        }
        return flag
    }

    /// One of some names.
    public func choice<Choice: RawRepresentable>(_ choices: [Choice]) throws(OperatorError) -> Choice
    where Choice.RawValue == String {
        guard let choice = Choice(rawValue: try word()) else {
            let names = choices.map(\.rawValue)
            throw OperatorError(
                "`\(name)` is `\(words[0])`, not \(names.dropLast().joined(separator: ", ")) or \(names.last ?? "")",
                at: place)
        }
        return choice
    }
}
