// Sizes come in whole pages and whole extents.

extension Int {
    /// The least multiple of a size that is not below this count. Neither is negative.
    @inlinable
    public func roundedUp(toMultipleOf size: Int) -> Int { (self + size - 1) / size * size }
}
