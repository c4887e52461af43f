// What can be wrong with one line of a trace. The reader turns the first into an error that names file and line,
// counts them, or collects them, as it was asked to.

import KVModel

/// Why a line of a trace was refused.
struct LineProblem: Error, Equatable {
    var kind: TraceProblemKind
    /// What is wrong, for a person, without file and line.
    var what: String
    /// What to do about it; empty when `what` makes it plain.
    var remedy = ""

    init(_ kind: TraceProblemKind, _ what: String, remedy: String = "") {
        self.kind = kind
        self.what = what
        self.remedy = remedy
    }
}

/// The kinds of problems that lines of a trace have, as `trace check` counts them.
public enum TraceProblemKind: String, Sendable, CaseIterable {
    /// The line is not the JSON object or CSV row that the format wants.
    case syntax = "syntax"
    /// Text that is not UTF-8.
    case encoding = "not UTF-8"
    /// The line is longer than any request can be.
    case lineTooLong = "line too long"
    /// A field that every request needs is not there.
    case missingField = "missing field"
    /// A field is there twice.
    case repeatedField = "repeated field"
    /// A field holds another type than the format wants.
    case wrongType = "wrong type"
    /// A number is negative, fractional or too large.
    case outOfRange = "number out of range"
    /// The number of blocks contradicts the prompt's length.
    case blockCount = "block count"
    /// The request is earlier than the one before it.
    case timeOrder = "time order"
    /// A block id stands for two different prefixes.
    case parentChange = "id names two prefixes"
    /// A conversation's turn comes before an earlier one.
    case turnOrder = "turn order"
}
