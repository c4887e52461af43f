// What a process holds of the machine, and whether that stays flat over a long run.

import Foundation

/// Memory and descriptors of a process, now.
struct Footprint {
    /// Bytes resident.
    let bytes: Int
    /// Open descriptors; -1 when the process is gone.
    let descriptors: Int

    init(of process: Int32) {
        let statm = (try? String(contentsOfFile: "/proc/\(process)/statm", encoding: .utf8)) ?? ""
        bytes = (statm.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
        descriptors = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count) ?? -1
    }
}

/// The memory of a process over a run, in samples evenly apart.
struct MemoryCourse {
    /// Memory may grow by so much between the second quarter of the run and its last: allocators keep pages.
    private static let growthMax = 16 << 20
    private let first: Int
    private var samples: [Int] = []

    init(from first: Footprint) { self.first = first.bytes }

    mutating func add(_ footprint: Footprint) { samples.append(footprint.bytes) }

    /// The most of the second quarter, when all is warm, and of the last.
    private var early: Int { samples[(samples.count / 4)..<max(samples.count / 4 + 1, samples.count / 2)].max() ?? 0 }
    private var late: Int { samples[(3 * samples.count / 4)...].max() ?? 0 }

    var isFlat: Bool { late <= early + Self.growthMax }

    var words: String {
        "memory: \(first >> 20) MiB at the start, at most \(early >> 20) MiB in the second quarter, \(late >> 20) MiB in "
            + "the last"
    }
}
