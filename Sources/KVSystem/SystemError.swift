// One function turns what the kernel returns into an error.

#if canImport(Glibc)
    import Glibc
#endif

/// A call to the kernel failed.
public struct SystemError: Error, Equatable, CustomStringConvertible {
    /// The error number, positive (`ENOSPC`, `EIO`, …).
    public var number: Int32
    /// What was being done, as a verb phrase: "open /dev/nvme0n1".
    public var doing: String
    /// What is said in place of both, where they tell too little: "no such host store".
    public var words: String?

    /// A failed call.
    public init(number: Int32, doing: String) {
        self.number = number
        self.doing = doing
    }

    /// A failure that is not the kernel's, under the number that is nearest to it.
    public init(number: Int32, saying words: String) {
        self.number = number
        doing = ""
        self.words = words
    }

    /// The kernel's own words for the number.
    public var reason: String { unsafe String(cString: strerror(number)) }

    /// `cannot open /dev/nvme0n1: Permission denied`.
    public var description: String { words ?? "cannot \(doing): \(reason)" }
}

/// The result of a call of the C doors, or its error: they return values >= 0, or -errno.
@inlinable
public func checked<Result: SignedInteger>(
    _ result: Result, _ doing: @autoclosure () -> String
) throws(SystemError) -> Result {
    guard result >= 0 else { throw SystemError(number: Int32(clamping: 0 - result), doing: doing()) }
    return result
}
