// What an operator says about a service: a YAML file, and options that overrule it, by the same names. Every setting is
// documented once, in a list; the file that `--print-config` writes is made of it.

import KVModel
import Yams

/// A setting as people see it.
public struct Setting: Sendable {
    /// In files and options (`nvmeSize`, `--nvme-size`).
    public var name: String
    /// What it means, for the documented file.
    public var meaning: String
    /// Its default as a file writes it.
    public var standard: String

    /// A setting of its parts.
    public init(_ name: String, _ meaning: String, _ standard: String) {
        self.name = name
        self.meaning = meaning
        self.standard = standard
    }
}

/// The settings of a service, each of which has a name.
public protocol NamedSettings {
    /// Every setting, in the order of the documented file.
    static var all: [Setting] { get }
    /// What the documented file begins with: whose settings they are, and what checks them.
    static var heading: String { get }
    /// Takes one setting, one of `all`, by its name. What does not fit is an error that says what would.
    mutating func take(_ value: SettingValue) throws(OperatorError)
}

extension NamedSettings {
    /// Takes one setting by its name; an unknown one is refused with the nearest.
    /// - Parameters:
    ///   - words: Its value, or the values of a list.
    ///   - place: A file and line, or an option.
    public mutating func set(_ name: String, _ words: [String], at place: String) throws(OperatorError) {
        guard Self.all.contains(where: { $0.name == name }) else {
            let remedy =
                nearestName(to: name, among: Self.all.map(\.name)).map { "the nearest is `\($0)`" }
                ?? "--print-config lists them"
            throw OperatorError("there is no setting `\(name)`", at: place, remedy: remedy)
        }
        try take(SettingValue(name: name, words: words, place: place))
    }

    /// Takes all settings of a YAML file.
    public mutating func read(file: String) throws(OperatorError) {
        try read(yaml: try NamedFile(file).text(), file: file)
    }

    /// Takes all settings of a YAML text.
    public mutating func read(yaml text: String, file: String) throws(OperatorError) {
        let node: Node?
        do { node = try compose(yaml: text) } catch { throw OperatorError(yaml: error, at: file) }
        guard let node else { return }
        guard let mapping = node.mapping else {
            throw OperatorError("holds no settings", at: file, remedy: "write `name: value` lines")
        }
        for (key, value) in mapping {
            let place = key.mark.map { "\(file):\($0.line)" } ?? file
            guard let name = key.string else { throw OperatorError("a name of a setting is text", at: place) }
            let words = value.sequence.map { $0.compactMap(\.scalar?.string) } ?? value.scalar.map { [$0.string] }
            guard let words else { throw OperatorError("`\(name)` is a value or a list of values", at: place) }
            try set(name, words, at: place)
        }
    }

    /// A file of all settings with what they mean and their defaults.
    public static var documented: String {
        "# \(heading) What is left out keeps its default.\n\n"
            + all.map { "# \($0.meaning)\n\($0.name): \($0.standard)\n" }.joined(separator: "\n")
    }
}
