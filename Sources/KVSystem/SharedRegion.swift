// Memory that another process shares with this one by passing a descriptor, mapped so that the other cannot bring this
// one down by cutting its file short.

import CKernel

/// A watched mapping of another process' file.
///
/// The file is sealed against shrinking where the kernel lets us. Where it does not, a page that is gone is replaced by
/// zeros, and with it the whole region, in the moment in which somebody touches it; from then on the region is lost.
@safe
public final class SharedRegion: Sendable {
    /// The region as memory of one region, the bytes that were asked for; lives as long as somebody holds it.
    public let memory: BlockMemory
    /// Whether the file cannot shrink any more.
    public let isSealed: Bool
    private let watch: Watch

    private final class Watch: Sendable {
        let number: Int32
        init(_ number: Int32) { self.number = number }
        deinit { hf_region_unmap(number) }
        var isIntact: Bool { hf_region_is_lost(number) == 0 }
    }

    /// Maps the first `byteCount` bytes of a file, which stays open in the caller's hands.
    public init(descriptor: Int32, byteCount: Int) throws(SystemError) {
        var address: UnsafeMutableRawPointer?
        var mappedBytes = 0
        var sealed: Int32 = 0
        let result = unsafe hf_region_map(descriptor, UInt64(clamping: byteCount), &address, &mappedBytes, &sealed)
        let watch = Watch(try checked(result, "map \(byteCount) bytes of a shared region"))
        self.watch = watch
        isSealed = sealed != 0
        let bytes = unsafe UnsafeMutableRawBufferPointer(start: address, count: byteCount)
        // The mapping goes when the last holder of the memory or of the watch has let go.
        memory = unsafe BlockMemory(regions: [bytes], release: { _ = watch })
    }

    /// Whether all pages are still those of the file: ask after reading, before anybody may see what was read.
    public var isIntact: Bool { watch.isIntact }
    /// The same question, to be asked by somebody else.
    public var watcher: @Sendable () -> Bool { { [watch] in watch.isIntact } }
}
