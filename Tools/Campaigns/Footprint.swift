// What a process holds of the machine, and whether that stays flat over a long run.

import Foundation
import KVModel
import KVSystem

/// Bytes of memory that a process holds; 0 when it is gone.
func residentBytes(of process: Int32) -> Int {
    let statm = (try? String(contentsOfFile: "/proc/\(process)/statm", encoding: .utf8)) ?? ""
    return (statm.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
}

/// What a process has open, and whether it has no more of it in the end.
struct OpenDescriptors {
    private let process: Int32
    let atFirst: Int
    private(set) var names: [String]

    init(of process: Int32) {
        self.process = process
        names = Self.names(of: process)
        atFirst = names.count
    }

    /// Looks again until there are no more than at first: who closes a connection does not wait until the other end has
    /// heard of it, and the connection to a store that was silent is made anew before the old one is given up.
    mutating func awaitFirst(within limit: Duration) -> Bool {
        let deadline = MonotonicClock.now + limit
        repeat {
            names = Self.names(of: process)
            if names.count <= atFirst { return true }
            usleep(100_000)
        } while MonotonicClock.now < deadline
        return false
    }

    /// The number of them, then and now, and by name if there are more.
    var words: String {
        let more = names.count > atFirst ? ": \(names.joined(separator: " "))" : ""
        return "descriptors: \(atFirst), \(names.count)\(more)"
    }

    private static func names(of process: Int32) -> [String] {
        let folder = "/proc/\(process)/fd/"
        let numbers = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return numbers.sorted().map { number in
            "\(number)=" + ((try? FileManager.default.destinationOfSymbolicLink(atPath: folder + number)) ?? "?")
        }
    }
}

/// The memory of a process over a run, in samples evenly apart.
struct MemoryCourse {
    /// Memory may grow by so much between the second quarter of the run and its last: allocators keep pages.
    private static let growthMax = 16 << 20
    private let first: Int
    private var samples: [Int] = []

    private let process: Int32

    init(of process: Int32) {
        self.process = process
        first = residentBytes(of: process)
    }

    mutating func sample() { samples.append(residentBytes(of: process)) }

    /// The most of the second quarter, when all is warm, and of the last.
    private var early: Int { samples[(samples.count / 4)..<max(samples.count / 4 + 1, samples.count / 2)].max() ?? 0 }
    private var late: Int { samples[(3 * samples.count / 4)...].max() ?? 0 }

    var isFlat: Bool { late <= early + Self.growthMax }

    var words: String {
        "memory: \(first >> 20) MiB at the start, at most \(early >> 20) MiB in the second quarter, \(late >> 20) MiB in "
            + "the last"
    }
}
