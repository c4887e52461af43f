// One entry of a catalogue file while it is read: keys and values, and where they stand, so that an error can say it.

import KVModel
import Yams

/// A value of a catalogue file.
indirect enum CatalogueValue: Sendable {
    case text(String)
    case list([CatalogueValue])
    case mapping([(key: String, value: CatalogueValue)])

    /// The built-in catalogue has some thousand values. A few lines of aliases of aliases can stand for billions.
    private static let valuesMax = 100_000

    /// A file's value, unless it stands for more than any catalogue has.
    init(_ node: Node, at place: String) throws(OperatorError) {
        var valuesLeft = Self.valuesMax
        try self.init(node, at: place, &valuesLeft)
    }

    private init(_ node: Node, at place: String, _ valuesLeft: inout Int) throws(OperatorError) {
        valuesLeft -= 1
        guard valuesLeft >= 0 else {
            throw OperatorError(
                "a catalogue of more than \(Self.valuesMax) values", at: place,
                remedy: "write no aliases")
        }
        if let sequence = node.sequence {
            var list: [Self] = []
            for value in sequence { list.append(try Self(value, at: place, &valuesLeft)) }
            self = .list(list)
        } else if let mapping = node.mapping {
            var pairs: [(key: String, value: Self)] = []
            for (key, value) in mapping {
                pairs.append((key.scalar?.string ?? "", try Self(value, at: place, &valuesLeft)))
            }
            self = .mapping(pairs)
        } else {
            self = .text(node.scalar?.string ?? "")
        }
    }

    var text: String? { if case .text(let text) = self { text } else { nil } }
    var list: [CatalogueValue]? { if case .list(let list) = self { list } else { nil } }
    var mapping: [(key: String, value: CatalogueValue)]? { if case .mapping(let pairs) = self { pairs } else { nil } }
}

/// The keys and values of one model, GPU or engine.
struct CatalogueEntry: Sendable {
    var name: String
    /// File and entry, for errors.
    var place: String
    /// Value and file of each key.
    var values: [String: (value: CatalogueValue, place: String)]

    /// The entries of a catalogue text, section by section.
    static func sections(of text: String, at place: String) throws(OperatorError) -> [(Catalogue.Section, [Self])] {
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            throw OperatorError("not readable as YAML: \(error)", at: place)
        }
        guard let root, let mapping = try CatalogueValue(root, at: place).mapping else {
            throw OperatorError("not a catalogue", at: place, remedy: "expected the lists models:, gpus: or engines:")
        }
        var sections: [(Catalogue.Section, [Self])] = []
        for (key, value) in mapping {
            guard let section = Catalogue.Section(rawValue: key) else {
                throw OperatorError("unknown key '\(key)'", at: place, remedy: "known keys: models, gpus, engines")
            }
            guard let list = value.list else {
                throw OperatorError("\(section.rawValue) is not a list", at: place)
            }
            var entries: [Self] = []
            for (index, value) in list.enumerated() {
                entries.append(try Self(value, at: "\(place): \(section.rawValue)[\(index)]"))
            }
            sections.append((section, entries))
        }
        return sections
    }

    private init(_ value: CatalogueValue, at place: String) throws(OperatorError) {
        guard let mapping = value.mapping else { throw OperatorError("not a mapping of keys to values", at: place) }
        guard let name = mapping.first(where: { $0.key == "name" })?.value.text, !name.isEmpty else {
            throw OperatorError("has no name", at: place)
        }
        self.name = name
        self.place = "\(place) (\(name))"
        values = [:]
        for (key, value) in mapping { values[key] = (value, self.place) }
    }

    /// The entry that this one copies first, if any.
    var base: String? {
        get throws(OperatorError) { values["basedOn"] == nil ? nil : try text("basedOn") }
    }

    /// This entry with the keys of another in place of its own. Aliases are not inherited by an entry of another name.
    func overlaid(with other: Self) -> Self {
        var result = self
        if other.name.lowercased() != name.lowercased() { result.values["aliases"] = nil }
        result.values.merge(other.values) { $1 }
        result.values["basedOn"] = nil
        result.name = other.name
        result.place = other.place
        return result
    }

    /// Refuses a key that is not among `known` (`name`, `aliases` and `source` always are).
    func allow(_ known: [String]) throws(OperatorError) {
        let all = ["name", "aliases", "source", "basedOn"] + known
        for key in values.keys.sorted() where !all.contains(key) {
            throw OperatorError(
                "unknown key '\(key)'", at: values[key]?.place ?? place,
                remedy: "known keys: \(all.joined(separator: ", "))")
        }
    }

    func error(_ key: String, _ what: String) -> OperatorError {
        OperatorError("\(key) \(what)", at: values[key]?.place ?? place)
    }

    func has(_ key: String) -> Bool { values[key] != nil }

    func text(_ key: String) throws(OperatorError) -> String {
        guard let value = values[key]?.value else { throw error(key, "is missing") }
        guard let text = value.text else { throw error(key, "is not a text") }
        return text
    }

    func texts(_ key: String) throws(OperatorError) -> [String] {
        guard let value = values[key]?.value else { return [] }
        guard let list = value.list else { throw error(key, "is not a list") }
        var texts: [String] = []
        for item in list {
            guard let text = item.text else { throw error(key, "has an item that is not a text") }
            texts.append(text)
        }
        return texts
    }

    /// A finite number in a range.
    func number(_ key: String, in range: ClosedRange<Double>) throws(OperatorError) -> Double {
        guard let value = values[key]?.value else { throw error(key, "is missing") }
        return try number(value, key, range)
    }

    private func number(_ value: CatalogueValue, _ key: String, _ range: ClosedRange<Double>) throws(OperatorError)
        -> Double
    {
        guard let text = value.text, let number = Double(text), number.isFinite else {
            throw error(key, "is not a number")
        }
        guard range.contains(number) else {
            throw error(key, "is \(text), outside \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A whole number in a range; `missing` where the key is absent, an error if that is nil.
    func count(_ key: String, in range: ClosedRange<Int>, missing: Int? = nil) throws(OperatorError) -> Int {
        guard let value = values[key]?.value else {
            if let missing { return missing }
            throw error(key, "is missing")
        }
        guard let text = value.text, let count = Int(text) else { throw error(key, "is not a whole number") }
        guard range.contains(count) else {
            throw error(key, "is \(count), outside \(range.lowerBound) to \(range.upperBound)")
        }
        return count
    }

    func flag(_ key: String, missing: Bool) throws(OperatorError) -> Bool {
        guard let value = values[key]?.value else { return missing }
        switch value.text {
        case "true": return true
        case "false": return false
        default: throw error(key, "is neither true nor false")
        }
    }

    /// Numbers by name: `{bf16: 0.8, fp8: 0.6}`.
    func numbers<Name>(
        _ key: String, in range: ClosedRange<Double>, name: (String) -> Name?, names: String
    ) throws(OperatorError) -> [Name: Double] {
        guard let value = values[key]?.value else { throw error(key, "is missing") }
        guard let mapping = value.mapping else { throw error(key, "is not a mapping of \(names) to numbers") }
        var numbers: [Name: Double] = [:]
        for (spelled, item) in mapping {
            guard let name = name(spelled) else {
                throw error(key, "has the unknown key '\(spelled)', not one of \(names)")
            }
            numbers[name] = try number(item, "\(key).\(spelled)", range)
        }
        return numbers
    }

    /// A list of exactly so many numbers.
    func numbers(_ key: String, count: Int, in range: ClosedRange<Double>) throws(OperatorError) -> [Double] {
        guard let list = values[key]?.value.list, list.count == count else {
            throw error(key, "is not a list of \(count) numbers")
        }
        var numbers: [Double] = []
        for item in list { numbers.append(try number(item, key, range)) }
        return numbers
    }
}
