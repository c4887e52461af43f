// Whether the kernel gives transparent huge pages, which it decides for ordinary memory and for memory files apart.

import Foundation

/// The kernel's rule for pages of 2 MiB that nobody reserved.
public enum TransparentHugePages {
    /// What memory lies in.
    public enum Kind: Sendable {
        /// A process's own.
        case ordinary
        /// A memory file, like an arena's, which engines map.
        case file

        /// The file under `/sys` that says when the kernel gives them.
        public var ruleFile: String {
            switch self {
            case .ordinary: "/kernel/mm/transparent_hugepage/enabled"
            case .file: "/kernel/mm/transparent_hugepage/shmem_enabled"
            }
        }

        /// The rules under which memory that asks for them gets them.
        var givingRules: Set<String> {
            switch self {
            case .ordinary: ["always", "madvise"]
            // within_size: where the file is large enough, which an arena is.
            case .file: ["always", "within_size", "advise", "force"]
            }
        }
    }

    /// The kernel's rule, like `madvise`; nil: it has none.
    ///
    /// - Parameter sysfs: Where the kernel shows itself.
    public static func rule(for kind: Kind, sysfs: String = "/sys") -> String? {
        guard let text = try? String(contentsOfFile: sysfs + kind.ruleFile, encoding: .utf8),
            let word = text.split(whereSeparator: \.isWhitespace).first(where: { $0.hasPrefix("[") })
        else { return nil }
        return String(word.dropFirst().prefix { $0 != "]" })
    }

    /// Whether memory that asks for them gets them.
    public static func areGiven(to kind: Kind, sysfs: String = "/sys") -> Bool {
        rule(for: kind, sysfs: sysfs).map { kind.givingRules.contains($0) } ?? false
    }
}
