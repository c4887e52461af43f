// What an agent is made of. Every value was chosen by somebody above: files, options and defaults are the command's.

import KVFlash
import KVMemory
import KVModel
import KVSystem
import KVTiering
import KVTransport

/// Everything an agent must be told.
public struct AgentSettings {
    /// The decisions. `blockBytes` is the longest payload, a multiple of 4 KiB; the bytes of local flash are replaced by
    /// what its slots come to.
    public var tiering: TieringConfiguration
    /// Memory whose first region holds the slots of node memory. Nil: private memory of the agent's own.
    public var memory: BlockMemory?
    /// The device whose slots are the tier above node memory. Needs `tiering.hbmBytes`.
    public var device: DeviceAccess?
    /// The drive of local flash. Needs `tiering.nvme`.
    public var localFlash: LocalFlash?
    /// The shared store. Needs `tiering.hasStore`.
    public var store: StoreAccess?
    /// Where time comes from.
    public var clock = AgentClock.monotonic
    /// What the planner is told of paths.
    public var links: AgentLinks
    /// Where every input is written down.
    public var journal: JournalSettings?
    /// The ends of queues and tables.
    public var limits = AgentLimits()

    /// An agent of node memory alone; the rest is set by name.
    public init(tiering: TieringConfiguration, links: AgentLinks) {
        self.tiering = tiering
        self.links = links
    }
}

/// Makes the device whose slots are the agent's.
public struct DeviceAccess: Sendable {
    /// Makes a device of so many slots beside node memory; what it was given comes back through the last argument.
    public typealias DeviceMaker =
        @Sendable (
            _ slotBytes: Int, _ slotCount: Int, _ host: BlockMemory, _ sink: @escaping @Sendable (DeviceCopies) -> Void
        ) throws(OperatorError) -> any DeviceMemory

    /// Makes it; tests put a faulty one around it.
    public var make: DeviceMaker

    /// A device made as given.
    public init(make: @escaping DeviceMaker) { self.make = make }

    /// Ordinary memory in place of a GPU's.
    public static let emulated = DeviceAccess {
        (slotBytes, slotCount, host, sink) throws(OperatorError) in
        try EmulatedDevice(slotBytes: slotBytes, slotCount: slotCount, host: host, sink: sink)
    }

    /// A GPU.
    public static func cuda(_ driver: CudaDriver) -> DeviceAccess {
        DeviceAccess { (slotBytes, slotCount, host, sink) throws(OperatorError) in
            try CudaDevice(driver, slotBytes: slotBytes, slotCount: slotCount, host: host, sink: sink)
        }
    }
}

/// Where an agent's time comes from.
public enum AgentClock: Sendable {
    /// The machine's clock.
    case monotonic
    /// Lock step: each message brings its time, and is taken when everything before it has come to rest. What the
    /// decisions have to do in between they do at its own time.
    case given
}

/// What the planner is told of paths.
public enum AgentLinks: Sendable {
    /// What was seen of late; until bytes have moved, this.
    case measured(first: LinkView)
    /// Always this: from a profile, in lock step.
    case given(LinkView)

    var first: LinkView {
        switch self {
        case .measured(let view), .given(let view): view
        }
    }
}

/// A drive, or a file, for blocks of this node. It is formatted at start: nothing on it outlives the agent.
public struct LocalFlash: Sendable {
    /// A block device or a file; a missing file is made.
    public var path: String
    /// Bytes it may use in all, of which a small part is not for blocks. Nil: the whole device.
    public var byteCount: Int?
    /// Bytes of an extent: a multiple of 64 KiB, at best that of a block.
    public var extentBytes: Int
    /// Whether data that is not ours may be overwritten.
    public var force: Bool
    /// Makes the drive; tests put a faulty one around it.
    public var makeDrive: DriveMaker

    /// Makes a drive of an opened device.
    public typealias DriveMaker =
        @Sendable (FlashDevice, BlockMemory, FlashDriveConfiguration, @escaping @Sendable (FlashEvent) -> Void)
        throws(FlashError) -> any Drive

    /// A drive at a path.
    public init(
        path: String, byteCount: Int?, extentBytes: Int, force: Bool = false,
        makeDrive: @escaping DriveMaker = { (device, memory, drive, sink) throws(FlashError) in
            try FlashDrive(device, memory: memory, configuration: drive, sink: sink)
        }
    ) {
        self.path = path
        self.byteCount = byteCount
        self.extentBytes = extentBytes
        self.force = force
        self.makeDrive = makeDrive
    }
}

/// How the shared store is reached.
public struct StoreAccess: Sendable {
    /// The client: ways, tenant, key, breaker.
    public var client: StoreClientConfiguration
    /// The namespace of all blocks. Nil: that of the first engine.
    public var namespace: String?
    /// Bytes of a block's payload, where a slot is rounded up from them. Nil: those of a slot.
    public var payloadBytes: Int?
    /// How long a question may take, and a block in either direction; the decisions' own deadlines are shorter.
    public var questionLimit = Duration(seconds: 1)
    /// See `questionLimit`.
    public var transferLimit = Duration(seconds: 10)

    /// A store reached as given.
    public init(client: StoreClientConfiguration, namespace: String? = nil) {
        self.client = client
        self.namespace = namespace
    }
}

/// The ends of an agent's queues and tables.
public struct AgentLimits: Sendable {
    /// Engines at once.
    public var enginesMax = 64
    /// Requests and jobs that one engine may have open.
    public var openPerEngineMax = 4608
    /// Requests and jobs of all engines.
    public var openMax = 16_384
    /// Blocks in one chain.
    public var chainBlocksMax = 65_536
    /// Keys and places, together, of what one engine has open: each takes 24 to 44 bytes until its request or job has ended.
    public var openItemsPerEngineMax = 4 << 20
    /// Those of all engines.
    public var openItemsMax = 8 << 20
    /// Hints under way.
    public var hintsMax = 256
    /// Messages that may wait.
    public var messagesMax = 8192
    /// Keys and places of messages that wait: a burst of saves of long chains, a third of a second of work. Hints get a quarter of it.
    public var messageItemsMax = 4 << 20
    /// Conversations with a number.
    public var sessionsMax = 65_536
    /// Full names remembered.
    public var namesMax = 1 << 20
    /// How long the agent's thread stays awake for an engine's next word, where that pays; zero: not at all.
    public var watch = Duration(nanoseconds: 50_000)
    /// The nice value that its thread asks for: below 0 it goes before what else would run.
    public var nice = 0
    /// Threads that copy, and pieces of work that wait for each.
    public var copyWorkers = 2
    /// See `copyWorkers`.
    public var copyDepth = 4
    /// Bytes of a piece of copying at most; at least one block.
    public var copyBytesMax = 4 << 20
    /// Reads of local flash under way, and writes.
    public var flashReadsMax = 64
    /// See `flashReadsMax`.
    public var flashWritesMax = 32
    /// Blocks that come from the store at once, and that go there.
    public var getsMax = 64
    /// See `getsMax`.
    public var putsMax = 32
    /// Leases and reservations of all engines, and of one.
    public var loansMax = 4096
    /// See `loansMax`.
    public var loansPerEngineMax = 1024
    /// How long a lease or a reservation may last. What is held longer comes back without being asked for.
    public var loanLimit = Duration(seconds: 60)

    /// The defaults.
    public init() {}
}
