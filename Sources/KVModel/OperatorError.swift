// The one error a person reads.

/// Something the operator gave us is wrong or missing: a file, an option, a configuration, a machine.
///
/// One sentence each, without a final full stop: what is wrong, where, and what to do. The command prints it on
/// standard error and ends with exit code 1.
public struct OperatorError: Error, Equatable, CustomStringConvertible {
    /// What is wrong: "input_length is negative (−5)".
    public var what: String
    /// Where: a file and line, an option, a configuration key. Empty when `what` says it.
    public var place: String
    /// What to do about it. Empty when `what` makes it plain.
    public var remedy: String

    /// An error that says what, where, and what to do.
    public init(_ what: String, at place: String = "", remedy: String = "") {
        self.what = what
        self.place = place
        self.remedy = remedy
    }

    /// The same error, its place found inside a wider one.
    public func under(_ wider: String) -> OperatorError {
        OperatorError(what, at: place.isEmpty ? wider : "\(wider): \(place)", remedy: remedy)
    }

    /// `place: what; remedy`.
    public var description: String {
        (place.isEmpty ? "" : "\(place): ") + what + (remedy.isEmpty ? "" : "; \(remedy)")
    }
}
