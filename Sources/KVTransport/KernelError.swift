// What the kernel says no with, by number, as far as sockets need it.

/// The error numbers that this target tells apart.
package enum KernelError {
    /// Nothing there, or no room (EAGAIN).
    package static let wouldBlock = 11
    /// No room for one more: too many open files, in the process or in the system, or no memory (EMFILE, ENFILE, ENOMEM,
    /// ENOBUFS).
    package static func isOutOfRoom(_ number: Int) -> Bool { [24, 23, 12, 105].contains(number) }
    /// No such file.
    package static let noSuchFile: Int32 = 2
    /// Nobody listens there.
    package static let connectionRefused: Int32 = 111
    /// No such host, as far as is known (EADDRNOTAVAIL).
    package static let addressNotAvailable: Int32 = 99
    /// The peer gave up before it was accepted.
    package static let connectionAborted = 103
}
