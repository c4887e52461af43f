// What an agent is made of, piece by piece: node memory, the device, the drive. Each is made or says to an operator why not.

import KVFlash
import KVMemory
import KVModel
import KVSystem
import KVTiering
import KVTransport
import Logging

/// Makes a part of the agent. What keeps it from being there is said at that part's name.
func making<Part>(_ name: String, _ make: () throws -> Part) throws(OperatorError) -> Part {
    do { return try make() } catch let error as OperatorError { throw error } catch {
        throw OperatorError("\(error)", at: name)
    }
}

extension AgentSettings {
    /// Blocks that node memory has room for.
    var slotCount: Int { (tiering.dram?.bytes ?? 0) / tiering.blockBytes }
}

extension StoreAccess {
    /// The same with a client that takes all requests which the decisions may have open.
    func withRoom(for limits: AgentLimits) -> StoreAccess {
        var access = self
        access.client.inFlightMax = max(client.inFlightMax, limits.getsMax + limits.putsMax + 64)
        return access
    }
}

extension Agent {
    /// Refuses what no agent could be made of.
    static func check(_ settings: AgentSettings) throws(OperatorError) {
        let tiering = settings.tiering
        guard tiering.dram != nil else {
            throw OperatorError("an agent needs node memory", at: "dram", remedy: "give it at least two blocks")
        }
        guard tiering.blockBytes > 0, tiering.blockBytes % 4096 == 0 else {
            throw OperatorError("blocks have \(tiering.blockBytes) bytes, not a multiple of 4 KiB", at: "blockBytes")
        }
        guard tiering.limits.sliceBlocks <= 65_535, tiering.limits.transfersMax < 1 << 22 else {
            throw OperatorError("transfers of more than 65,535 blocks, or more than 4 million of them", at: "limits")
        }
        guard tiering.hbmBytes == 0 || settings.device != nil else {
            throw OperatorError("slots of no device", at: "hbm", remedy: "name a device")
        }
    }

    /// The memory of the slots: what was given, if it is large enough, or the agent's own.
    static func memory(_ settings: AgentSettings) throws -> BlockMemory {
        let byteCount = settings.slotCount * settings.tiering.blockBytes
        guard let given = settings.memory else { return try BlockMemory(byteCount: byteCount) }
        let count = unsafe given.regions[0].count
        guard count >= byteCount else {
            let needed = settings.tiering.dram?.bytes ?? 0
            throw OperatorError(
                "the arena has \(ByteSize.text(count)), node memory needs \(ByteSize.text(needed))", at: "dram")
        }
        return given
    }

    /// The device whose slots are the agent's. Nil: it has none.
    static func device(
        _ settings: AgentSettings, _ memory: BlockMemory, _ sink: @escaping @Sendable (DeviceCopies) -> Void
    ) throws(OperatorError) -> (any DeviceMemory)? {
        let count = settings.tiering.hbmBytes / settings.tiering.blockBytes
        guard count > 0, let device = settings.device else { return nil }
        return try device.make(settings.tiering.blockBytes, count, memory, sink)
    }

    /// Formats and opens the drive, and makes the tier as large as its slots come to. Nil: it has none.
    static func open(
        _ local: LocalFlash?, _ tiering: inout TieringConfiguration, _ memory: BlockMemory, _ limits: AgentLimits,
        _ sink: @escaping @Sendable (FlashEvent) -> Void
    ) throws(OperatorError) -> (drive: any Drive, slots: FlashSlots)? {
        guard let local else {
            tiering.nvme = nil
            return nil
        }
        let perSlot = (tiering.blockBytes + local.extentBytes - 1) / local.extentBytes
        do {
            // Our own drive of an earlier run is ours to overwrite.
            let isOurs = (try? FlashDevice.inspect(path: local.path))?.identity.store == Self.driveOwner
            let identity = DriveIdentity(drive: try FlashUUID.random(), store: Self.driveOwner, number: 0, count: 1)
            try FlashDevice.format(
                path: local.path, byteCount: local.byteCount, extentBytes: local.extentBytes, identity: identity,
                force: local.force || isOurs)
            let device = try FlashDevice(path: local.path)
            let count = device.geometry.extentCount / perSlot
            guard count > 0, perSlot <= ExtentList.countMax else {
                throw OperatorError("it has no room for a block of \(tiering.blockBytes) bytes", at: local.path)
            }
            tiering.nvme?.bytes = count * tiering.blockBytes
            var configuration = FlashDriveConfiguration.standard
            configuration.commandCountMax = limits.flashReadsMax + limits.flashWritesMax
            let drive = try local.makeDrive(device, memory, configuration, sink)
            return (drive, FlashSlots(count: count, extentsPerSlot: perSlot, extentBytes: local.extentBytes))
        } catch let error as FlashError {
            throw error.operatorError
        } catch let error as OperatorError { throw error } catch {
            throw OperatorError("\(error)", at: local.path)
        }
    }

    /// What agents' drives name as their store, so that the next agent knows them for its own.
    static let driveOwner = FlashUUID(0x686f_6c64_6661_7374, 0x6167_656e_7400_0001)

    /// Brings the pages of node memory in, those of the first slots first, while the agent serves already. A save into pages
    /// that nobody ever touched waits for the kernel to find and clear them, many times as long as its copy takes.
    static func populate(_ memory: BlockMemory, _ inbox: AgentInbox, _ logger: Logger) {
        let byteCount = unsafe memory.regions[0].count
        var pace = PopulationPace()
        do throws(SystemError) {
            let isWanted = { !inbox.wantsStop.load(ordering: .acquiring) }
            guard try memory.populate(MemorySlice(offset: 0, count: byteCount), at: &pace, while: isWanted) else {
                return
            }
        } catch {
            return logger.warning("node memory is not brought in beforehand: \(error)")
        }
        logger.info("all pages of node memory are there", metadata: ["bytes": "\(ByteSize.text(byteCount))"])
    }
}
