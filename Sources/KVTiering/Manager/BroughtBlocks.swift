// What the loads of one prompt came to, by position. Several jobs and several processes may load one prompt, in pieces and over
// each other: each token counts once, and what was served to one of them was served.

import KVModel

/// What loads brought of a prompt's blocks. A byte a block, up to the last one that was wanted.
struct BroughtBlocks {
    /// A class of the ledger and one; zero where nothing was wanted.
    private var marks: [UInt8] = []

    /// Whether no load wanted anything.
    var isEmpty: Bool { marks.isEmpty }
    /// One past the last block that was wanted.
    var end: Int32 { Int32(truncatingIfNeeded: marks.count) }

    /// What became of a block; nil when nobody wanted it.
    subscript(_ position: Int32) -> TokenClass? {
        let mark = marks[Int(position)]
        return mark == 0 ? nil : TokenClass(rawValue: mark - 1)
    }

    /// Notes what became of blocks. One that was served stays so.
    ///
    /// - Parameter isLate: Others have spoken of them before: what they said stays, unless these were served.
    mutating func note(_ range: Range<Int32>, as tokenClass: TokenClass, isLate: Bool = false) {
        guard !range.isEmpty else { return }
        while marks.count < Int(range.upperBound) { marks.append(0) }
        for position in range {
            if let said = self[position], said.isServed || (isLate && !tokenClass.isServed) { continue }
            marks[Int(position)] = tokenClass.rawValue + 1
        }
    }

    /// Forgets everything and keeps the memory.
    mutating func clear() { marks.removeAll(keepingCapacity: true) }
}
