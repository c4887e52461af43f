// How much memory this process can have: the machine's, and what a container's control group allows of it. The kernel says the
// first to everybody in a container, and kills whoever takes more than the second.

import Foundation

/// What a control group allows its processes together.
public struct MemoryLimit: Equatable, Sendable {
    /// Bytes altogether.
    public var bytes: Int
    /// Of those, bytes that nobody has, or that hold nothing but copies of files.
    public var leftBytes: Int
    /// The file in which the limit stands.
    public var file: String

    /// A limit as it stands in a file.
    public init(bytes: Int, leftBytes: Int, file: String) {
        self.bytes = bytes
        self.leftBytes = leftBytes
        self.file = file
    }

    /// The tightest limit of this process now; nil: none holds.
    public static var now: MemoryLimit? {
        tightest(groups: kernelText("/proc/self/cgroup") ?? "", read: kernelText)
    }

    /// The limit with the fewest bytes left, of a process's groups and of those around them.
    ///
    /// A container often sees its own group where the root of all is elsewhere: files that are not there are passed over.
    ///
    /// - Parameters:
    ///   - groups: `/proc/self/cgroup`: lines of `number:controllers:path`; version 2 has number 0 and no controllers.
    ///   - read: The text of a file; nil: it is not there.
    package static func tightest(groups: String, read: (String) -> String?) -> MemoryLimit? {
        var tightest: MemoryLimit?
        for line in groups.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let isFirst = parts[1].split(separator: ",").contains("memory")
            guard isFirst || (parts[0] == "0" && parts[1].isEmpty) else { continue }
            var path = parts[2].split(separator: "/")
            while true {
                let folder = (isFirst ? "/sys/fs/cgroup/memory/" : "/sys/fs/cgroup/") + path.map { $0 + "/" }.joined()
                if let found = limit(in: folder, isFirst: isFirst, read),
                    found.leftBytes < tightest?.leftBytes ?? .max
                {
                    tightest = found
                }
                if path.popLast() == nil { break }
            }
        }
        return tightest
    }

    /// The limit of one group.
    private static func limit(in folder: String, isFirst: Bool, _ read: (String) -> String?) -> MemoryLimit? {
        let file = folder + (isFirst ? "memory.limit_in_bytes" : "memory.max")
        func number(_ text: String?) -> Int? {
            text.flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        }
        // Version 2 says "max" where there is none; version 1 says the largest number of pages.
        guard let bytes = number(read(file)), bytes < 1 << 60,
            let used = number(read(folder + (isFirst ? "memory.usage_in_bytes" : "memory.current")))
        else { return nil }
        let prefix = isFirst ? "total_" : ""
        let files = ["inactive_file", "active_file"].reduce(0) { sum, name in
            let line = (read(folder + "memory.stat") ?? "").split(separator: "\n").first {
                $0.hasPrefix("\(prefix)\(name) ")
            }
            return sum + (number(line?.split(separator: " ").last.map(String.init)) ?? 0)
        }
        return MemoryLimit(bytes: bytes, leftBytes: max(0, bytes - max(0, used - files)), file: file)
    }
}

/// Bytes that this process could have now without others losing theirs: the machine's, or its control group's if fewer.
public var availableMemoryBytes: Int {
    min(kernelNumber("MemAvailable", in: "/proc/meminfo").map { $0 * 1024 } ?? .max, MemoryLimit.now?.leftBytes ?? .max)
}

/// Bytes of reserved huge pages that nobody has. No control group counts them as its memory.
public var reservedHugeBytes: Int {
    (kernelNumber("HugePages_Free", in: "/proc/meminfo") ?? 0)
        * (kernelNumber("Hugepagesize", in: "/proc/meminfo") ?? 0) * 1024
}

/// How many files this process may have open; nil: no limit.
public var openFilesMax: Int? {
    let line = (kernelText("/proc/self/limits") ?? "").split(separator: "\n").first { $0.hasPrefix("Max open files") }
    return line?.dropFirst("Max open files".count).split(separator: " ").first.flatMap { Int($0) }
}

private func kernelText(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }

/// The number behind `name:` in a file of such lines.
private func kernelNumber(_ name: String, in path: String) -> Int? {
    let line = (kernelText(path) ?? "").split(separator: "\n").first { $0.hasPrefix(name + ":") }
    return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }
}
