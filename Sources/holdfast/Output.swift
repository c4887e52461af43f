// Standard output: what a verb found. A result that cannot be written is a failure like any other.

import Glibc
import KVModel
import KVSettings

/// Writes text and `terminator` to standard output. It stands in the place of Swift's own `print`, which passes over a full disk in
/// silence; Foundation's handle traps at one.
func print(_ text: String, terminator: String = "\n") throws(OperatorError) {
    guard writeAll(Array((text + terminator).utf8), to: STDOUT_FILENO) else {
        throw OperatorError(
            "the result cannot be written: \(unsafe String(cString: strerror(errno)))", at: "standard output")
    }
}
