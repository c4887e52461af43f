// Numbers for the sessions of one lane. After 2^32 of them they begin again, and long sessions still have theirs.

/// Gives each session of a lane a number that no other living session of it has.
package struct SessionNumbers {
    private let first: UInt32
    private let step: UInt32
    private var next: UInt32

    /// The numbers `first`, `first + step` and so on, of which `next` is given next. A lane of several takes as many as there
    /// are for its step, so that a number's rest names its lane.
    package init(first: UInt32 = 1, step: UInt32 = 1, next: UInt32? = nil) {
        self.first = first
        self.step = step
        self.next = next ?? first
    }

    /// A number that is not taken. Some number must be free.
    package mutating func give(isTaken: (UInt32) -> Bool) -> UInt32 {
        while true {
            let number = next
            let (sum, isTooLarge) = next.addingReportingOverflow(step)
            next = isTooLarge ? first : sum
            if !isTaken(number) { return number }
        }
    }
}
