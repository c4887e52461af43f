// The models, GPUs and engines that can be named: data with sources, built in, extended by a file of the user's.

import KVModel
import Yams

/// Models, GPUs and engines by name. Names are compared without regard to case.
///
/// The built-in entries are the YAML files beside this one, embedded in the binary. A user's file has the same form
/// (`models:`, `gpus:`, `engines:`, each a list of entries): an entry with a known `name` replaces only the keys it
/// gives, a new one must be complete, or name the entry that it is `basedOn`.
public struct Catalogue: Sendable {
    /// The entries of the three lists, in the order they were first given.
    public private(set) var models: [ModelShape] = []
    /// The GPUs.
    public private(set) var gpus: [GPU] = []
    /// The engines.
    public private(set) var engines: [EngineConstants] = []

    /// The entries as given, so that a later file can change single keys.
    private var given: [Section: [CatalogueEntry]] = [:]

    /// The entries that come with the binary.
    public static let builtIn: Catalogue = {
        var catalogue = Catalogue()
        do {
            try catalogue.extend(with: text(PackageResources.models_yaml), at: "built-in models.yaml")
            try catalogue.extend(with: text(PackageResources.gpus_yaml), at: "built-in gpus.yaml")
            try catalogue.extend(with: text(PackageResources.engines_yaml), at: "built-in engines.yaml")
        } catch {
            preconditionFailure("the built-in catalogue is wrong: \(error)")
        }
        return catalogue
    }()

    private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    /// A catalogue without entries.
    public init() {}

    /// Adds the entries of a YAML text, or changes known ones. `place` names the file in errors.
    ///
    /// Throws for text that is not YAML, an unknown key, a missing or unusable value; the catalogue is then unchanged.
    public mutating func extend(with text: String, at place: String) throws(OperatorError) {
        var changed = self
        for (section, entries) in try CatalogueEntry.sections(of: text, at: place) {
            for entry in entries { try changed.take(entry, in: section) }
        }
        self = changed
    }

    private mutating func take(_ entry: CatalogueEntry, in section: Section) throws(OperatorError) {
        var entries = given[section, default: []]
        var whole = entry
        let known = entries.firstIndex { $0.name.lowercased() == entry.name.lowercased() }
        if let base = try entry.base {
            guard let parent = entries.first(where: { $0.name.lowercased() == base.lowercased() }) else {
                throw OperatorError(
                    "basedOn names the unknown entry '\(base)'", at: entry.place,
                    remedy: "known: \(entries.map(\.name).joined(separator: ", "))")
            }
            whole = parent.overlaid(with: entry)
        } else if let known {
            whole = entries[known].overlaid(with: entry)
        }
        switch section {
        case .models: replace(&models, at: known, with: try ModelShape(whole))
        case .gpus: replace(&gpus, at: known, with: try GPU(whole))
        case .engines: replace(&engines, at: known, with: try EngineConstants(whole))
        }
        replace(&entries, at: known, with: whole)
        given[section] = entries
    }

    private func replace<Entry>(_ list: inout [Entry], at index: Int?, with entry: Entry) {
        if let index { list[index] = entry } else { list.append(entry) }
    }

    /// The model of that name or alias; an error lists the known ones.
    public func model(named name: String) throws(OperatorError) -> ModelShape {
        try find(name, in: models, kind: "model") { [$0.name] + $0.aliases }
    }

    /// The GPU of that name or alias; an error lists the known ones.
    public func gpu(named name: String) throws(OperatorError) -> GPU {
        try find(name, in: gpus, kind: "GPU") { [$0.name] + $0.aliases }
    }

    /// The engine of that name or alias; an error lists the known ones.
    public func engine(named name: String) throws(OperatorError) -> EngineConstants {
        try find(name, in: engines, kind: "engine") { [$0.name] + $0.aliases }
    }

    private func find<Entry>(
        _ name: String, in list: [Entry], kind: String, names: (Entry) -> [String]
    ) throws(OperatorError) -> Entry {
        let wanted = name.lowercased()
        // The last one wins, so that a user's alias goes before a built-in one.
        if let entry = list.last(where: { names($0).contains { $0.lowercased() == wanted } }) { return entry }
        throw OperatorError(
            "unknown \(kind) '\(name)'",
            remedy: "known: \(list.map { names($0)[0] }.joined(separator: ", ")); others come from a catalogue file")
    }

    /// The three lists of a catalogue file.
    enum Section: String, CaseIterable {
        case models, gpus, engines
    }
}
