// What a container may have: control groups of both versions, as the kernel writes them.

import KVSystem
import Testing

@Suite struct MemoryLimitTests {
    private func limit(_ groups: String, _ files: [String: String]) -> MemoryLimit? {
        MemoryLimit.tightest(groups: groups) { files[$0] }
    }

    private static let root = "/sys/fs/cgroup/"

    /// As a pod sees itself: its group is the root of what it sees.
    @Test func theLimitOfAContainerIsAtTheRootOfWhatItSees() {
        let found = limit(
            "0::/\n",
            [
                Self.root + "memory.max": "1073741824\n", Self.root + "memory.current": "734003200\n",
                Self.root + "memory.stat":
                    "anon 1000\nfile 209715200\ninactive_file 104857600\nactive_file 104857600\n",
            ])
        #expect(
            found == MemoryLimit(bytes: 1 << 30, leftBytes: (1 << 30) - 524_288_000, file: Self.root + "memory.max"))
    }

    @Test func theTightestOfAllGroupsAroundItCounts() {
        let files = [
            Self.root + "a/b/memory.max": "max\n", Self.root + "a/b/memory.current": "1\n",
            Self.root + "a/memory.max": "5000\n", Self.root + "a/memory.current": "1000\n",
            Self.root + "memory.max": "4500\n", Self.root + "memory.current": "1000\n",
        ]
        #expect(limit("0::/a/b\n", files)?.bytes == 4500)
        #expect(limit("0::/a/b\n", files)?.leftBytes == 3500)
        #expect(limit("0::/other\n", files)?.file == Self.root + "memory.max")
    }

    @Test func theFirstVersionHasAFolderOfItsOwn() {
        let folder = Self.root + "memory/docker/x/"
        let groups = "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n0::/system.slice\n"
        let files = [
            folder + "memory.limit_in_bytes": "2000\n", folder + "memory.usage_in_bytes": "2500\n",
            folder + "memory.stat": "inactive_file 7\ntotal_inactive_file 100\ntotal_active_file 200\n",
            Self.root + "memory/memory.limit_in_bytes": "9223372036854771712\n",
            Self.root + "memory/memory.usage_in_bytes": "1\n",
        ]
        #expect(limit(groups, files) == MemoryLimit(bytes: 2000, leftBytes: 0, file: folder + "memory.limit_in_bytes"))
    }

    @Test(arguments: ["", "nonsense", "0::", "0::/\n", "7:memory\n", "0::/../..\n"])
    func whereNothingIsSaidNothingHolds(groups: String) { #expect(limit(groups, [:]) == nil) }
}
