// A scenario as it was written: a tree of keys and words, each with the place it came from, so that an error can
// point at a line. It knows nothing of what the keys mean; `Scenario+Reading.swift` does.

import KVModel
import Yams

/// One value of a scenario file, with the file and line (or the option) it was written at.
struct ScenarioTree {
    /// What stands there.
    enum Content {
        case word(String)
        case list([ScenarioTree])
        /// Keys in the order they were written.
        case block([(key: String, tree: ScenarioTree)])
    }

    var content: Content
    /// `file.yaml:12`, or `--set a.b`.
    var place: String

    /// Reads YAML text; `file` is its name in errors.
    init(yaml text: String, file: String) throws(OperatorError) {
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch let error as YamlError {
            throw OperatorError("not readable as YAML: \(Self.oneLine(error))", at: file)
        } catch {
            throw OperatorError("not readable as YAML: \(error)", at: file)
        }
        guard let root else { throw OperatorError("the scenario is empty", at: file) }
        var valuesLeft = Self.valuesMax
        self = try ScenarioTree(node: root, file: file, &valuesLeft)
        guard case .block = content else {
            throw OperatorError("a scenario is a list of `key: value` lines", at: place)
        }
    }

    /// The default scenario has some hundred values. A few lines of aliases of aliases can stand for billions.
    private static let valuesMax = 10_000

    private init(node: Node, file: String, _ valuesLeft: inout Int) throws(OperatorError) {
        place = "\(file):\(node.mark?.line ?? 1)"
        valuesLeft -= 1
        guard valuesLeft >= 0 else {
            throw OperatorError(
                "a scenario of more than \(Self.valuesMax) values", at: place, remedy: "write no aliases")
        }
        switch node {
        case .scalar(let scalar):
            content = .word(scalar.string)
        case .sequence(let sequence):
            var items: [ScenarioTree] = []
            for item in sequence { items.append(try ScenarioTree(node: item, file: file, &valuesLeft)) }
            content = .list(items)
        case .mapping(let mapping):
            var pairs: [(key: String, tree: ScenarioTree)] = []
            for (key, value) in mapping {
                guard let word = key.string else {
                    throw OperatorError("a key must be one word", at: "\(file):\(key.mark?.line ?? 1)")
                }
                guard !pairs.contains(where: { $0.key == word }) else {
                    throw OperatorError("the key `\(word)` stands here twice", at: "\(file):\(key.mark?.line ?? 1)")
                }
                pairs.append((word, try ScenarioTree(node: value, file: file, &valuesLeft)))
            }
            content = .block(pairs)
        case .alias:
            throw OperatorError("aliases are not used in scenarios", at: place, remedy: "write the value out")
        }
    }

    private init(word: String, place: String) {
        content = .word(word)
        self.place = place
    }

    private static func oneLine(_ error: YamlError) -> String {
        String(describing: error).split(separator: "\n").first.map(String.init) ?? "unknown fault"
    }
}

extension ScenarioTree {
    /// The value of a key of this block.
    subscript(key: String) -> ScenarioTree? {
        guard case .block(let pairs) = content else { return nil }
        return pairs.first { $0.key == key }?.tree
    }

    /// Lays `other` over this tree: what it states replaces what stands here, key by key. A key that does not stand
    /// here is unknown, and a block is not replaced by a word.
    mutating func overlay(_ other: ScenarioTree, path: String = "") throws(OperatorError) {
        switch (content, other.content) {
        case (.block(var mine), .block(let theirs)):
            for (key, tree) in theirs {
                guard let index = mine.firstIndex(where: { $0.key == key }) else {
                    throw Self.unknownKey(key, path: path, known: mine.map(\.key), place: tree.place)
                }
                try mine[index].tree.overlay(tree, path: path.isEmpty ? key : "\(path).\(key)")
            }
            content = .block(mine)
        case (.block(let mine), _):
            throw OperatorError(
                "`\(path)` is a block, not one value", at: other.place,
                remedy: "its keys are \(mine.map(\.key).joined(separator: ", "))")
        case (.word, .block(let theirs)), (.list, .block(let theirs)):
            let first = theirs.first?.key ?? ""
            throw OperatorError("`\(path)` is one value, so `\(path).\(first)` means nothing", at: other.place)
        default:
            self = other
        }
    }

    /// Sets one value by its dotted path, as `--set path=value` asks.
    mutating func set(_ path: String, to word: String) throws(OperatorError) {
        let place = "--set \(path)"
        var value: ScenarioTree
        if word.hasPrefix("[") {
            value =
                try ScenarioTree(yaml: "list: \(word)", file: place)["list"] ?? ScenarioTree(word: word, place: place)
            value.place = place
        } else {
            value = ScenarioTree(word: word, place: place)
        }
        for key in path.split(separator: ".", omittingEmptySubsequences: false).reversed() {
            value = ScenarioTree(content: .block([(String(key), value)]), place: place)
        }
        try overlay(value)
    }

    private init(content: Content, place: String) {
        self.content = content
        self.place = place
    }

    private static func unknownKey(_ key: String, path: String, known: [String], place: String) -> OperatorError {
        let whole = path.isEmpty ? key : "\(path).\(key)"
        return OperatorError(
            "the scenario has no key `\(whole)`", at: place,
            remedy: "known here: \(known.joined(separator: ", "))")
    }

    /// The tree as YAML, so that a record can carry the scenario it ran with, overrides applied.
    func yaml(indent: String = "") -> String {
        switch content {
        case .word(let word):
            return Self.quoted(word)
        case .list(let items):
            return "[" + items.map { $0.yaml() }.joined(separator: ", ") + "]"
        case .block(let pairs):
            var text = ""
            for (key, tree) in pairs {
                if case .block = tree.content {
                    text += "\(indent)\(key):\n" + tree.yaml(indent: indent + "  ")
                } else {
                    text += "\(indent)\(key): \(tree.yaml())\n"
                }
            }
            return text
        }
    }

    /// A word that YAML would read as something else than the same plain word is put in quotes.
    private static func quoted(_ word: String) -> String {
        let plain = word.allSatisfy { $0.isLetter || $0.isNumber || " .-+/%_".contains($0) }
        if plain, !word.isEmpty, word.first != " ", word.last != " ", word.first != "-" { return word }
        return "\"" + word.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }
}
