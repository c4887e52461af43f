// The bounds of a drive.

import KVModel

/// How much a drive has under way at once, and how long it waits. Every queue has its end here.
public struct FlashDriveConfiguration: Sendable, Equatable {
    /// Commands that may be unanswered; more are refused as `full`.
    public var commandCountMax: Int
    /// Transfers that may be with the device at once.
    public var transferCountMax: Int
    /// Of them, writes. The rest is kept for reads, so that a read never waits behind a device queue of writes.
    public var writeTransferCountMax: Int
    /// Bytes of one transfer, a multiple of 64 KiB.
    public var transferBytesMax: Int
    /// A read is sent while the device has fewer bytes of reads than these: enough to keep it busy. It works on all that it has
    /// at once, so with more of them the first of many reads would come hardly sooner than the last.
    public var readBytesMax: Int
    /// Reads sent in a row while writes wait.
    public var readRunMax: Int
    /// How long a command may take before it is given up.
    public var timeout: Duration
    /// Where the process kills itself, for the crash campaign.
    public var faultTrigger: FaultTrigger?

    /// A configuration of its parts.
    public init(
        commandCountMax: Int, transferCountMax: Int, writeTransferCountMax: Int, transferBytesMax: Int,
        readBytesMax: Int, readRunMax: Int, timeout: Duration, faultTrigger: FaultTrigger? = nil
    ) {
        precondition(commandCountMax >= 1 && commandCountMax <= 1 << 16, "1 to 65,536 commands under way")
        precondition(transferCountMax >= 1 && transferCountMax <= 4096, "1 to 4096 transfers under way")
        precondition(
            writeTransferCountMax >= 1 && writeTransferCountMax <= transferCountMax,
            "writes under way are some of the transfers under way")
        precondition(
            transferBytesMax >= FlashGeometry.extentUnit && transferBytesMax % FlashGeometry.extentUnit == 0
                && transferBytesMax <= Ring.bufferBytesMax, "transfers of 64 KiB to 1 GiB, in steps of 64 KiB")
        precondition(readBytesMax >= 1, "at least one read with the device")
        precondition(readRunMax >= 1, "at least one read in a row")
        precondition(timeout > .zero, "a timeout of no time")
        self.commandCountMax = commandCountMax
        self.transferCountMax = transferCountMax
        self.writeTransferCountMax = writeTransferCountMax
        self.transferBytesMax = transferBytesMax
        self.readBytesMax = readBytesMax
        self.readRunMax = readRunMax
        self.timeout = timeout
        self.faultTrigger = faultTrigger
    }

    /// What was measured to be good; the command shows it and takes other values.
    public static let standard = FlashDriveConfiguration(
        commandCountMax: 256, transferCountMax: 64, writeTransferCountMax: 32, transferBytesMax: 1 << 20,
        readBytesMax: 8 << 20, readRunMax: 64, timeout: Duration(seconds: 30))
}
