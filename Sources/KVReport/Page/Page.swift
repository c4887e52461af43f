// The page.

extension Comparison {
    /// The report as one page.
    public var page: String { "" }
}
