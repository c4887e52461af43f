// What a device is like, asked without taking it: for whoever decides whether to use it.

import CKernel

/// How a device or file takes transfers.
public struct DeviceTraits: Sendable, Equatable {
    /// Whether transfers go past the page cache.
    public let isDirect: Bool
    /// Whether what was written must be flushed to be durable.
    public let hasVolatileCache: Bool
    /// Whether another process has it, or it is mounted.
    public let isInUse: Bool
    /// Whether it is a raw block device.
    public let isBlockDevice: Bool
    /// Its bytes.
    public let byteCount: Int

    /// Opens it as a drive would, looks, and closes it. A store that starts in that moment tries again.
    public init(path: String) throws(FlashError) {
        let file: DeviceFile
        do {
            file = try DeviceFile(path: path, access: .exclusive)
            isInUse = false
        } catch .busy {
            file = try DeviceFile(path: path, access: .readOnly)
            isInUse = true
        }
        isDirect = file.isDirect
        hasVolatileCache = hf_has_volatile_cache(file.descriptor) != 0
        isBlockDevice = file.isBlockDevice
        byteCount = file.byteCount
    }
}
