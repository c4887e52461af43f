// One question, one sentence, one picture, one table, as values. The printers (terminal, JSON, page) read these and
// nothing else, so they cannot disagree.

import Foundation

/// One question about the records, answered.
public struct Section: Sendable, Equatable {
    /// A short name, used as an anchor and in JSON: `tokens`.
    public var id: String
    /// 1 to 9.
    public var number: Int
    /// The question, in plain words.
    public var question: String
    /// The answers, one a record.
    public var conclusions: [Conclusion]
    /// Where the section's numbers come from, in words for the right edge of a terminal line.
    public var provenance: String
    /// What a reader must know to read the pictures.
    public var explanation: Prose
    /// The pictures, with their tables.
    public var figures: [Figure]
    /// Paragraphs after the pictures.
    public var remarks: [Prose] = []
    /// Lists of names and values after the remarks: prices, configuration.
    public var listings: [Listing] = []
    /// What must hold, and whether it did.
    public var checks: [CheckLine] = []
    /// Tables that belong to no picture.
    public var tables: [Table] = []
}

/// The answer to a section's question for one record.
public struct Conclusion: Sendable, Equatable {
    /// The record's key.
    public var record: String
    /// Which case of the section's rules spoke: `t.main`.
    public var rule: String
    /// What it said.
    public var sentence: String
    /// The keys of the report's `summary` that the sentence rests on.
    public var figures: [String]

    /// An answer; each of its sentences gets a capital letter, whatever name or number it begins with.
    init(record: String, rule: String, sentence: String, figures: [String] = []) {
        self.record = record
        self.rule = rule
        self.sentence = sentence.components(separatedBy: ". ").map { $0.prefix(1).uppercased() + $0.dropFirst() }
            .joined(separator: ". ")
        self.figures = figures
    }
}

/// A picture, its caption, and the table behind it.
public struct Figure: Sendable, Equatable {
    /// What the picture shows, in a few words.
    public var title: String
    /// How to read it.
    public var caption: Prose
    /// The picture.
    public var chart: Chart
    /// The same numbers, and more of them.
    public var table: Table?
    /// What the terminal shows of this figure.
    public var terminal: TerminalShape
    /// Whether the page may set this figure beside the next one.
    public var isHalfWidth = false

    /// What the terminal shows of a figure.
    public enum TerminalShape: Sendable { case chart, table, both, nothing }
}

/// Rows and columns of text, three digits each.
public struct Table: Sendable, Equatable {
    /// Named by its content: "latency percentiles and goodput".
    public var title: String
    /// The head of the first column.
    public var corner: String
    /// The heads of the other columns.
    public var columns: [String]
    /// The rows.
    public var rows: [Row]
    /// Columns, by index, that the terminal leaves out for want of room.
    public var onlyOnPage: Set<Int> = []
    /// Whether the columns are steps of one quantity, so that leaving out every second one keeps the picture.
    public var isSeries = false
    /// What a reader must know to read it.
    public var note: String = ""

    /// A row: whose it is, its head and its cells.
    public struct Row: Sendable, Equatable {
        /// The system, where the row belongs to one.
        public var mark: SystemMark?
        /// The head.
        public var name: String
        /// One text a column.
        public var cells: [String]
    }
}

/// Names and values in two columns.
public struct Listing: Sendable, Equatable {
    /// What is listed.
    public var title: String
    /// The entries.
    public var entries: [Entry]

    /// A name, its value, and what to type to change it.
    public struct Entry: Sendable, Equatable {
        /// The name.
        public var name: String
        /// The value.
        public var value: String
        /// The argument that changes it, or the whole of a shortened value.
        public var argument: String = ""
        /// The value's whole text where `value` shortens it.
        public var whole: String = ""
    }
}

/// Something that must hold, and whether it did.
public struct CheckLine: Sendable, Equatable {
    /// Whether it held.
    public var passed: Bool
    /// What must hold, with both sides.
    public var text: String
}

/// How a system is drawn everywhere: its letter and its weight.
public struct SystemMark: Sendable, Equatable, Hashable {
    /// One letter or digit.
    public var key: String
    /// Its weight in pictures.
    public var role: Role

    /// What a system is in a comparison.
    public enum Role: Sendable, Equatable, Hashable {
        /// A record given, counted from 0.
        case run(Int)
        /// The baseline that gains are stated against.
        case reference
        /// Another baseline.
        case baseline
        /// What no cache could beat.
        case ceiling
    }

    /// Whether this is one of the records given.
    public var isRun: Bool { if case .run = role { true } else { false } }
}

extension Comparison {
    /// A section whose data the records lack: one line that says what is missing and what would supply it.
    func absent(_ id: String, _ number: Int, _ question: String, rule: String, _ what: String) -> Section {
        Section(
            id: id, number: number, question: question,
            conclusions: runs.map {
                Conclusion(record: $0.key, rule: "\(rule).missing", sentence: "Not in this record: \(what).")
            },
            provenance: "not in this record", explanation: "", figures: [])
    }
}
