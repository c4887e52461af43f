// Opens an RDMA device and owns what is made on it: protection domains, registered memory, completion queues. Each of
// them is released exactly once, in the order in which they depend on each other. Not for moving bytes: `VerbsChannel`.

import CVerbs
import Glibc
import KVModel
import KVSystem
import Synchronization

/// Which device and port carries the bytes. Without a name or an address, the first that has an active port.
public struct VerbsPlace: Sendable, Equatable {
    /// The device's name, `mlx5_0`; nil for any.
    public var device: String?
    /// The address of the port, as text; nil for the best it has (RoCE v2 with IPv4 first).
    public var address: String?

    /// A place by name, by address, by both or by neither.
    public init(device: String? = nil, address: String? = nil) {
        self.device = device
        self.address = address
    }
}

/// What a port is and can do.
public struct VerbsPort: Sendable, Equatable {
    /// The device's name.
    public var device: String
    /// Number of the port on its device.
    public var port: Int
    /// The global identifier, 16 bytes; an IPv4 address is its last four.
    public var address: [UInt8]
    /// InfiniBand's short address; 0 on Ethernet.
    public var localIdentifier: UInt32
    /// Bytes of a packet on the wire.
    public var mtuBytes: Int
    /// The longest message.
    public var messageBytesMax: Int
    /// Outstanding READs that one queue pair may ask for.
    public var readsAsInitiatorMax: Int
    /// Outstanding READs that one queue pair serves.
    public var readsAsResponderMax: Int
    /// Work requests that one queue pair holds.
    public var sendDepthMax: Int
    /// Completions that one queue holds.
    public var completionsMax: Int

    /// `10.77.0.1`, or the identifier in hexadecimal groups.
    public var addressText: String {
        if address.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF] {
            return address.suffix(4).map { String($0) }.joined(separator: ".")
        }
        return stride(from: 0, to: 16, by: 2)
            .map { String(UInt32(address[$0]) << 8 | UInt32(address[$0 + 1]), radix: 16) }.joined(separator: ":")
    }
}

/// How many of each verbs object are alive in this process: what leaks is seen here.
public struct VerbsLiveObjects: Sendable, Equatable {
    /// Open devices.
    public var devices: Int
    /// Protection domains.
    public var domains: Int
    /// Registered regions.
    public var regions: Int
    /// Completion queues.
    public var completionQueues: Int
    /// Queue pairs.
    public var pairs: Int

    /// Now.
    public static var now: VerbsLiveObjects {
        VerbsLiveObjects(
            devices: VerbsAccount.devices.load(ordering: .relaxed),
            domains: VerbsAccount.domains.load(ordering: .relaxed),
            regions: VerbsAccount.regions.load(ordering: .relaxed),
            completionQueues: VerbsAccount.completionQueues.load(ordering: .relaxed),
            pairs: VerbsAccount.pairs.load(ordering: .relaxed))
    }
}

enum VerbsAccount {
    static let devices = Atomic<Int>(0)
    static let domains = Atomic<Int>(0)
    static let regions = Atomic<Int>(0)
    static let completionQueues = Atomic<Int>(0)
    static let pairs = Atomic<Int>(0)

    static func add(_ change: Int, to counter: borrowing Atomic<Int>) { counter.add(change, ordering: .relaxed) }
}

/// An open device with one chosen port. libibverbs allows any thread to make and release objects on it.
@safe
public final class VerbsDevice: @unchecked Sendable {
    let handle: OpaquePointer
    /// The port that was chosen.
    public let port: VerbsPort

    /// The names of all devices; empty where this machine has none.
    public static var names: [String] {
        (0..<max(0, hf_rdma_device_count())).compactMap { number in
            var name = [CChar](repeating: 0, count: 64)
            guard unsafe hf_rdma_device_name(number, &name, name.count) == 0 else { return nil }
            return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    /// Opens a device.
    ///
    /// - Throws: One sentence that says whether the kernel, the device or the port is missing.
    public init(_ place: VerbsPlace) throws(OperatorError) {
        var handle: OpaquePointer?
        let result = unsafe withOptionalCString(place.device) { name in
            unsafe withOptionalCString(place.address) { unsafe hf_rdma_open(name, $0, &handle) }
        }
        guard result == 0, let handle = unsafe handle else { throw Self.reason(result, place) }
        unsafe self.handle = unsafe handle
        var about = hf_rdma_port()
        unsafe hf_rdma_describe(handle, &about)
        port = VerbsPort(about)
        VerbsAccount.add(1, to: VerbsAccount.devices)
    }

    deinit {
        unsafe hf_rdma_close(handle)
        VerbsAccount.add(-1, to: VerbsAccount.devices)
    }

    private static func reason(_ result: Int32, _ place: VerbsPlace) -> OperatorError {
        let names = Self.names
        let there = names.isEmpty ? "this machine has no RDMA device" : "there are \(names.joined(separator: ", "))"
        let wanted = [place.device.map { "device \($0)" }, place.address.map { "address \($0)" }]
            .compactMap(\.self).joined(separator: ", ")
        switch -result {
        case ENOSYS:
            return OperatorError(
                "this machine's kernel has no RDMA", at: wanted,
                remedy: "load the driver of the adapter (and ib_uverbs), or use TCP")
        case ENODEV:
            return OperatorError(
                "no such RDMA device: \(there)", at: wanted, remedy: "name one that is there, or use TCP")
        case ENETDOWN:
            return OperatorError(
                "no active port of an RDMA device has a usable address\(place.address == nil ? "" : " like this")",
                at: wanted, remedy: "check `rdma link` and the address of its network interface; RoCE must be v2")
        case EINVAL:
            return OperatorError("this is no IPv4 or IPv6 address", at: wanted)
        default:
            return OperatorError(SystemError(number: -result, doing: "open an RDMA device").description, at: wanted)
        }
    }

    /// What happened to the device since the last call, without waiting.
    package func nextEvent() -> VerbsDeviceEvent? {
        var pair: UInt32 = 0
        switch unsafe hf_rdma_next_event(handle, &pair) {
        case 1: return .deviceFailed
        case 2: return .portDown
        case 3: return .portUp
        case 4: return .pairFailed(pair)
        case 5: return .completionsOverflowed
        case 6: return .other
        default: return nil
        }
    }

    /// Readable when `nextEvent` has something.
    package var eventDescriptor: Int32 { unsafe hf_rdma_event_descriptor(handle) }
}

/// What a device says on its own.
package enum VerbsDeviceEvent: Equatable {
    case deviceFailed, portDown, portUp, completionsOverflowed, other
    case pairFailed(UInt32)
}

extension VerbsPort {
    fileprivate init(_ about: hf_rdma_port) {
        device = unsafe withUnsafeBytes(of: about.name) {
            unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        port = Int(about.port)
        address = unsafe withUnsafeBytes(of: about.address) { unsafe [UInt8]($0) }
        localIdentifier = about.local_identifier
        mtuBytes = Int(about.mtu_bytes)
        messageBytesMax = Int(about.message_bytes_max)
        readsAsInitiatorMax = Int(about.reads_as_initiator_max)
        readsAsResponderMax = Int(about.reads_as_responder_max)
        sendDepthMax = Int(about.send_depth_max)
        completionsMax = Int(about.completions_max)
    }
}

/// What a region lets others do with it.
package struct VerbsAccess: OptionSet, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// This machine's adapter may write to it.
    package static let local = VerbsAccess(rawValue: 1)
    /// The peer may read it.
    package static let peerReads = VerbsAccess(rawValue: 2)
    /// The peer may write to it.
    package static let peerWrites = VerbsAccess(rawValue: 4)
}

/// A protection domain. Keys of one domain are void on the queue pairs of another, so each store that a client talks to
/// has its own.
@safe
package final class VerbsDomain: @unchecked Sendable {
    let handle: OpaquePointer
    package let device: VerbsDevice

    package init(_ device: VerbsDevice) throws(SystemError) {
        var handle: OpaquePointer?
        _ = try checked(unsafe hf_rdma_domain_create(device.handle, &handle), "make an RDMA protection domain")
        unsafe self.handle = unsafe handle!
        self.device = device
        VerbsAccount.add(1, to: VerbsAccount.domains)
    }

    deinit {
        // Everything made in it holds it, so it cannot be busy; if the adapter says so, the count shows it.
        if unsafe hf_rdma_domain_destroy(handle) == 0 { VerbsAccount.add(-1, to: VerbsAccount.domains) }
    }
}

/// Registered memory. It outlives every work request that names it: channels hold it until they are drained.
@safe
package final class VerbsRegion: @unchecked Sendable {
    private let handle: OpaquePointer
    private let domain: VerbsDomain
    private let owner: AnyObject?
    package let localKey: UInt32
    package let remoteKey: UInt32

    /// Registers memory that lives as long as `owner`.
    package convenience init(
        _ domain: VerbsDomain, _ bytes: UnsafeMutableRawBufferPointer, _ access: VerbsAccess, keeping owner: AnyObject?
    ) throws(SystemError) {
        var handle: OpaquePointer?
        _ = try checked(
            unsafe hf_rdma_register(domain.handle, bytes.baseAddress, bytes.count, access.rawValue, &handle),
            "register \(bytes.count) bytes with \(domain.device.port.device)")
        unsafe self.init(domain, handle!, owner)
    }

    /// Registers memory of a GPU that its driver exported as the dma-buf `descriptor`: the adapter then reads and
    /// writes it without the processor. `address` is what the peer will name its first byte by.
    package convenience init(
        _ domain: VerbsDomain, dmaBuffer descriptor: Int32, offset: Int, byteCount: Int, address: UInt64,
        _ access: VerbsAccess
    ) throws(SystemError) {
        var handle: OpaquePointer?
        _ = try checked(
            unsafe hf_rdma_register_dmabuf(
                domain.handle, descriptor, UInt64(offset), byteCount, address, access.rawValue, &handle),
            "register \(byteCount) bytes of GPU memory with \(domain.device.port.device)")
        unsafe self.init(domain, handle!, nil)
    }

    private init(_ domain: VerbsDomain, _ handle: OpaquePointer, _ owner: AnyObject?) {
        unsafe self.handle = unsafe handle
        self.domain = domain
        self.owner = owner
        localKey = unsafe hf_rdma_local_key(handle)
        remoteKey = unsafe hf_rdma_remote_key(handle)
        VerbsAccount.add(1, to: VerbsAccount.regions)
    }

    deinit {
        if unsafe hf_rdma_deregister(handle) == 0 { VerbsAccount.add(-1, to: VerbsAccount.regions) }
    }
}

/// The end of one work request.
package struct VerbsCompletion {
    let raw: hf_rdma_completion
    /// The queue pair it was posted to.
    package var pair: UInt32 { raw.pair }
    /// Whether it was done; else libibverbs' status.
    package var status: UInt32 { raw.status }
    /// Whether a message came, and nothing of ours went.
    package var isReceive: Bool { raw.id & VerbsChannel.receiveMark != 0 }
}

/// A completion queue with its event channel, polled by one thread.
@safe
package final class VerbsCompletions: @unchecked Sendable {
    let handle: OpaquePointer
    package let device: VerbsDevice
    /// Completions it has room for.
    package let capacity: Int
    /// Readable after `arm` and a completion.
    package let descriptor: Int32
    private var batch = [hf_rdma_completion](repeating: hf_rdma_completion(), count: 32)
    /// The error that `arm` ends with in place of the adapter's answer; 0: the adapter is asked. For tests, which have no adapter
    /// that breaks.
    package let armFault = Atomic<Int32>(0)

    package init(_ device: VerbsDevice, capacity: Int) throws(SystemError) {
        var handle: OpaquePointer?
        _ = try checked(
            unsafe hf_rdma_completions_create(device.handle, Int32(clamping: capacity), &handle),
            "make an RDMA completion queue of \(capacity) entries")
        unsafe self.handle = unsafe handle!
        self.device = device
        self.capacity = capacity
        descriptor = unsafe hf_rdma_completions_descriptor(handle!)
        VerbsAccount.add(1, to: VerbsAccount.completionQueues)
    }

    deinit {
        if unsafe hf_rdma_completions_destroy(handle) == 0 {
            VerbsAccount.add(-1, to: VerbsAccount.completionQueues)
        }
    }

    /// Takes what has completed, at most 32 at a time; returns how many there were.
    package func take(_ body: (VerbsCompletion) -> Void) throws(SystemError) -> Int {
        let count = Int(
            try checked(
                unsafe hf_rdma_poll(handle, &batch, Int32(batch.count)), "poll an RDMA completion queue"))
        for index in 0..<count { body(VerbsCompletion(raw: batch[index])) }
        return count
    }

    /// Asks for the descriptor to become readable at the next completion. Poll once more before sleeping.
    package func arm() throws(SystemError) {
        let fault = armFault.load(ordering: .relaxed)
        let result = fault == 0 ? unsafe hf_rdma_completions_arm(handle) : -fault
        _ = try checked(result, "arm an RDMA completion queue")
    }

    /// Takes what made the descriptor readable.
    package func clear() { _ = unsafe hf_rdma_completions_clear(handle) }
}

/// Calls with a C string, or with a null pointer for nil.
private func withOptionalCString<Result>(_ text: String?, _ body: (UnsafePointer<CChar>?) -> Result) -> Result {
    guard let text else { return body(nil) }
    return unsafe text.withCString { unsafe body($0) }
}
