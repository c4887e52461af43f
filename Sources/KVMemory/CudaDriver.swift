// One GPU by NVIDIA's driver, opened at run time: its memory, and node memory that it can reach. The copies are `CudaDevice`'s.

import CCuda
import CKernel
import KVModel
import KVSystem

/// A GPU of this machine. Everything in it happens in the device's primary context.
@safe
public final class CudaDriver: @unchecked Sendable {
    /// The GPU's name, as its driver has it.
    public let name: String
    /// Its place on the PCI bus, as the kernel writes it: `0000:3b:00.0`.
    public let pciAddress: String
    /// Its memory.
    public let byteCount: Int
    /// The driver; its functions may be called by any thread that entered.
    let raw: OpaquePointer

    /// Opens the driver and a GPU.
    ///
    /// - Parameters:
    ///   - number: The GPU's, as `CUDA_VISIBLE_DEVICES` leaves them.
    ///   - library: The driver's file; nil: where the loader finds it.
    public init(gpu number: Int = 0, library: String? = nil) throws(OperatorError) {
        var opened: OpaquePointer?
        var why = [CChar](repeating: 0, count: 512)
        let error = unsafe hf_cuda_open(library, Int32(clamping: number), &opened, &why, why.count)
        guard error == 0, let opened = unsafe opened else {
            let text = String(decoding: why.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            throw OperatorError(
                text, at: "GPU \(number)", remedy: "without a GPU that can be used its tier is left out")
        }
        unsafe raw = opened
        unsafe name = String(cString: hf_cuda_name(opened))
        unsafe pciAddress = String(cString: hf_cuda_pci(opened)).lowercased()
        byteCount = unsafe Int(clamping: hf_cuda_memory_bytes(opened))
    }

    deinit { unsafe hf_cuda_close(raw) }

    /// The NUMA node that it is attached to; nil: the machine does not say, as one of a single node.
    ///
    /// - Parameter sysfs: Where the kernel shows devices.
    public func memoryNode(sysfs: String = "/sys") -> Int? {
        Numa.node(ofDevice: "\(sysfs)/bus/pci/devices/\(pciAddress)")
    }

    /// The calling thread works with this GPU from now on.
    func enter() throws(OperatorError) { try check(unsafe hf_cuda_enter(raw), "enter the GPU's context") }

    /// Throws the driver's error, if there is one.
    func check(_ error: Int32, _ doing: @autoclosure () -> String) throws(OperatorError) {
        guard error != 0 else { return }
        throw OperatorError("cannot \(doing()): \(text(error))", at: name)
    }

    /// An error in the driver's words.
    func text(_ error: Int32) -> String { unsafe String(cString: hf_cuda_error(raw, error)) }

    /// A hook with which an arena's memory is registered, so that copies of it need no bounce. The arena's memory stays registered
    /// until the process ends, or the driver is closed.
    public var arenaHook: ArenaHook {
        ArenaHook("CUDA", scope: .whole) { [self] slice, memory throws(OperatorError) in
            try enter()
            let bytes = unsafe memory[slice]
            try check(unsafe hf_cuda_register(raw, bytes.baseAddress!, bytes.count), "register node memory")
        }
    }
}

/// Whose the slots of a GPU's tier are.
public enum CudaMemorySource: Sendable {
    /// New ones; an engine maps them by the device's descriptor.
    case made
    /// An engine's allocation of the virtual memory interface, by the descriptor it passed. All of it.
    case descriptor(Int32)
    /// An engine's `cudaMalloc` allocation: its 64-byte IPC handle, and where in it the slots begin.
    case handle([UInt8], offset: Int)
}

/// A GPU's memory that slots lie in.
@safe
final class CudaMemory: Sendable {
    let driver: CudaDriver
    let address: UInt64
    /// Ours to pass on; nil where an engine made the memory.
    let descriptor: Int32?
    private let memory: hf_cuda_memory

    init(_ driver: CudaDriver, byteCount: Int, _ source: CudaMemorySource) throws(OperatorError) {
        self.driver = driver
        try driver.enter()
        var memory = hf_cuda_memory()
        var descriptor: Int32 = -1
        switch source {
        case .made:
            let error = unsafe hf_cuda_make(driver.raw, UInt64(byteCount), &memory, &descriptor)
            try driver.check(error, "take \(ByteSize.text(byteCount)) of the GPU's memory")
        case .descriptor(let passed):
            let error = unsafe hf_cuda_import(driver.raw, passed, UInt64(byteCount), &memory)
            try driver.check(error, "map \(ByteSize.text(byteCount)) of an engine")
        case .handle(let bytes, let offset):
            guard bytes.count == 64, offset >= 0 else {
                throw OperatorError("a memory handle has 64 bytes, not \(bytes.count)", at: driver.name)
            }
            let error = unsafe hf_cuda_import_ipc(
                driver.raw, bytes, UInt64(offset), UInt64(byteCount), &memory)
            try driver.check(error, "map an engine's memory by its handle")
        }
        self.memory = memory
        address = memory.address
        self.descriptor = descriptor >= 0 ? descriptor : nil
    }

    deinit {
        var memory = memory
        if unsafe hf_cuda_enter(driver.raw) == 0 { unsafe hf_cuda_release(driver.raw, &memory) }
        if let descriptor { hf_close(descriptor) }
    }
}
