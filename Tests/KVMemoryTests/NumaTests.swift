// Memory lies on the node that was named. Machines with one node skip what needs two, and say so; `Tools/vm-lab` has two.
// One at a time: an arena takes huge pages that another's test has reserved.

import Foundation
import KVMemory
import KVModel
import KVSystem
import Testing

@Suite(.serialized) struct NumaTests {
    private static let nodes = Numa.nodes

    @Test func thereIsANodeAndItHasMemory() throws {
        let node = try #require(Self.nodes.first)
        let memory = try #require(Numa.memory(ofNode: node))
        #expect(memory.total > memory.free && memory.free > 0)
    }

    @Test func aNodeThatIsNotThereIsAnErrorThatNamesThoseThatAre() {
        var configuration = ArenaConfiguration(slotBytes: 4096, slotCount: 16)
        configuration.node = 4711
        let error = #expect(throws: OperatorError.self) { _ = try MemoryArena(configuration) }
        #expect(error?.what == "NUMA node 4711 has no memory")
        #expect(error?.remedy == "there are: \(Self.nodes.map(String.init).joined(separator: ", "))")
    }

    @Test func moreThanTheNodeHasIsRefusedBeforeAnyOfItIsTaken() throws {
        let node = try #require(Self.nodes.first)
        let total = try #require(Numa.memory(ofNode: node)).total
        var configuration = ArenaConfiguration(slotBytes: 1 << 20, slotCount: total / (1 << 20) + 1)
        configuration.node = node
        let error = #expect(throws: OperatorError.self) { _ = try MemoryArena(configuration) }
        #expect(error?.what.hasPrefix("NUMA node \(node) has") == true)
    }

    @Test func aDevicesFolderNamesItsNodeOrNone() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString)")
        try FileManager.default.createDirectory(
            at: folder.appendingPathComponent("nic/device"), withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func write(_ text: String, _ name: String) throws {
            try Data(text.utf8).write(to: folder.appendingPathComponent(name))
        }
        #expect(Numa.node(ofDevice: folder.appendingPathComponent("nic").path) == nil)
        try write("1\n", "nic/device/numa_node")
        #expect(Numa.node(ofDevice: folder.appendingPathComponent("nic").path) == 1)
        // A PCI function has the file itself; −1 is the kernel's word for "not known".
        try write("0\n", "numa_node")
        #expect(Numa.node(ofDevice: folder.path) == 0)
        try write("-1\n", "numa_node")
        #expect(Numa.node(ofDevice: folder.path) == nil)
    }

    @Test(.enabled(if: nodes.count >= 2, "one NUMA node: run it by Tools/test-verbs, in the lab"))
    func everyPageLiesOnTheNodeThatWasNamedWhoeverTouchesIt() throws {
        for node in Self.nodes {
            var configuration = ArenaConfiguration(slotBytes: 256 << 10, slotCount: 64)
            configuration.chunkBytes = 2 << 20
            configuration.node = node
            let arena = try MemoryArena(configuration)
            for slot in stride(from: 0, to: arena.slotCount, by: 3) {
                unsafe arena.memory[arena.slice(slot, 1)][0] = 1
            }
            for offset in stride(from: 0, to: arena.byteCount, by: 4096) {
                let page = MemorySlice(offset: offset, count: 1)
                #expect(try Numa.node(of: page, in: arena.memory) == node)
            }
        }
    }

    @Test(.enabled(if: nodes.count >= 2, "one NUMA node: run it by Tools/test-verbs, in the lab"))
    func reservedHugePagesAreUsedWhereTheNodeHasEnough() throws {
        for node in Self.nodes {
            let path = "/sys/devices/system/node/node\(node)/hugepages/hugepages-2048kB/nr_hugepages"
            try Data("8".utf8).write(to: URL(fileURLWithPath: path))
            defer { try? Data("0".utf8).write(to: URL(fileURLWithPath: path)) }
            let reserved = try String(contentsOfFile: path, encoding: .utf8)
            try #require(reserved == "8\n", "node \(node) has no room for eight huge pages")
            var configuration = ArenaConfiguration(slotBytes: 1 << 20, slotCount: 16)
            configuration.node = node
            let arena = try MemoryArena(configuration)
            #expect(arena.status.pages == .reservedHuge)
            for slot in 0..<16 {
                unsafe arena.memory[arena.slice(slot, 1)][0] = 1
                #expect(try Numa.node(of: arena.slice(slot, 1), in: arena.memory) == node)
            }
            // They are all taken: the next arena gets other pages, and is as usable.
            let next = try MemoryArena(configuration)
            #expect(next.status.pages != .reservedHuge)
            unsafe next.memory[next.slice(15, 1)][0] = 1
        }
    }
}
