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

    /// A failed call.
    public init(number: Int32, doing: String) {
        self.number = number
        self.doing = doing
    }

    /// The kernel's own words for the number.
    public var reason: String { unsafe String(cString: strerror(number)) }

    /// `cannot open /dev/nvme0n1: Permission denied`.
    public var description: String { "cannot \(doing): \(reason)" }
}

/// The result of a call of the C doors, or its error: they return values >= 0, or -errno.
@inlinable
public func checked<Result: SignedInteger>(
    _ result: Result, _ doing: @autoclosure () -> String
) throws(SystemError) -> Result {
    guard result >= 0 else { throw SystemError(number: Int32(clamping: 0 - result), doing: doing()) }
    return result
}
