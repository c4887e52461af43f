// A memory file of this process' own, mapped: the best pages that the machine has for it, near to what uses it.

import CKernel
import CNuma
import KVModel
import KVSystem

/// Maps when made, unmaps and closes when let go.
@safe
final class SharedMapping: @unchecked Sendable {
    let descriptor: Int32
    let bytes: UnsafeMutableRawBufferPointer
    let pages: ArenaPages
    static let hugePageBytes = 2 << 20

    /// Nothing is faulted in but the first page, which shows what kind it is.
    init(_ configuration: ArenaConfiguration, byteCount: Int) throws(OperatorError) {
        let place = "memory of \(ByteSize.text(byteCount))"
        try Self.checkRoom(configuration, byteCount, place)
        let isReserved = configuration.wantsHugePages && Self.hasReserved(byteCount, node: configuration.node)
        do {
            if isReserved, let mapping = unsafe try? Self.map(configuration.name, byteCount, isReserved: true) {
                unsafe (descriptor, bytes) = (mapping.descriptor, mapping.bytes)
            } else {
                try Self.checkAvailable(byteCount, place)
                let mapping = unsafe try Self.map(configuration.name, byteCount, isReserved: false)
                unsafe (descriptor, bytes) = (mapping.descriptor, mapping.bytes)
                if configuration.wantsHugePages { _ = unsafe hf_advise_huge(mapping.bytes.baseAddress!, byteCount) }
            }
        } catch let error as OperatorError { throw error } catch {
            throw OperatorError("\(error)", at: place, remedy: "ask for less, or free memory")
        }
        let start = unsafe bytes.baseAddress!
        do throws(SystemError) {
            if let node = configuration.node {
                _ = try checked(
                    unsafe hf_numa_bind(start, byteCount, Int32(node)), "bind memory to NUMA node \(node)")
            }
            let first = min(byteCount, Self.hugePageBytes)
            _ = try checked(unsafe hf_populate(start, first), "get the first pages")
        } catch {
            unsafe hf_unmap(start, byteCount)
            hf_close(descriptor)
            throw OperatorError("\(error)", at: place, remedy: "ask for less, or free memory")
        }
        let isHuge = unsafe hf_huge_bytes_at(start) > 0
        pages = isHuge ? (isReserved ? .reservedHuge : .transparentHuge) : .ordinary
    }

    deinit {
        _ = unsafe hf_unmap(bytes.baseAddress!, bytes.count)
        hf_close(descriptor)
    }

    /// Pins the pages of a part: those that are there, and each of the others when it comes.
    func pin(_ part: MemorySlice) throws(SystemError) {
        let result = unsafe hf_pin(bytes.baseAddress! + part.offset, part.count)
        _ = try checked(result, "pin \(ByteSize.text(part.count)) more")
    }

    private static func map(
        _ name: String, _ byteCount: Int, isReserved: Bool
    ) throws(SystemError) -> (descriptor: Int32, bytes: UnsafeMutableRawBufferPointer) {
        let descriptor = try checked(
            unsafe hf_memory_file(name, Int64(byteCount), isReserved ? HF_MEMORY_HUGE_PAGES : 0), "make a memory file")
        var address: UnsafeMutableRawPointer?
        let result = unsafe hf_map_shared_aligned(descriptor, byteCount, &address)
        if result < 0 { hf_close(descriptor) }
        _ = try checked(result, "map a memory file")
        return unsafe (descriptor, UnsafeMutableRawBufferPointer(start: address, count: byteCount))
    }

    private static func hasReserved(_ byteCount: Int, node: Int?) -> Bool {
        hf_numa_free_huge_pages(node.map { Int32($0) } ?? -1) * Int64(hugePageBytes) >= Int64(byteCount)
    }

    private static func checkRoom(
        _ configuration: ArenaConfiguration, _ byteCount: Int, _ place: String
    ) throws(OperatorError) {
        guard let node = configuration.node else { return }
        guard let memory = Numa.memory(ofNode: node) else {
            let known = Numa.nodes.map(String.init).joined(separator: ", ")
            throw OperatorError("NUMA node \(node) has no memory", at: place, remedy: "there are: \(known)")
        }
        guard byteCount <= memory.total else {
            throw OperatorError(
                "NUMA node \(node) has \(ByteSize.text(memory.total)) altogether", at: place, remedy: "ask for less")
        }
    }

    private static func checkAvailable(_ byteCount: Int, _ place: String) throws(OperatorError) {
        let available = availableMemoryBytes
        guard byteCount <= available else {
            throw OperatorError(
                "this process can have \(ByteSize.text(available)) (machine and control group)", at: place,
                remedy: "ask for less, or free memory")
        }
    }
}
