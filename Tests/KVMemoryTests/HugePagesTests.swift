// The kernel's two rules for huge pages that nobody reserved, read from files that look like its own.

import Foundation
import KVMemory
import Testing

@Suite struct HugePagesTests {
    @Test func memoryFilesFollowARuleOfTheirOwn() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let rules = folder.appendingPathComponent("kernel/mm/transparent_hugepage")
        try FileManager.default.createDirectory(at: rules, withIntermediateDirectories: true)
        func write(_ name: String, _ text: String) throws {
            try text.write(to: rules.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }
        // As most machines come: an agent's memory file gets ordinary pages although huge ones are on.
        try write("enabled", "always [madvise] never\n")
        try write("shmem_enabled", "always within_size advise [never] deny force\n")
        #expect(TransparentHugePages.areGiven(to: .ordinary, sysfs: folder.path))
        #expect(!TransparentHugePages.areGiven(to: .file, sysfs: folder.path))
        #expect(TransparentHugePages.rule(for: .file, sysfs: folder.path) == "never")
        for rule in ["always", "within_size", "advise", "force"] {
            try write("shmem_enabled", "never [\(rule)] deny\n")
            #expect(TransparentHugePages.areGiven(to: .file, sysfs: folder.path), "\(rule)")
        }
        try write("shmem_enabled", "always [deny]\n")
        #expect(!TransparentHugePages.areGiven(to: .file, sysfs: folder.path))
        #expect(!TransparentHugePages.areGiven(to: .file, sysfs: folder.path + "/nowhere"))
    }
}
