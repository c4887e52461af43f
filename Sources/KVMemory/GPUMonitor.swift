// What the GPUs of this machine do, by NVIDIA's management library, opened at run time: a machine without one says so in a sentence.

import CCuda
import KVModel

/// The GPUs of this machine, looked at from outside.
@safe
public final class GPUMonitor: @unchecked Sendable {
    /// What GPUs did in the last moments, all together.
    public struct Use: Sendable, Equatable {
        /// GPUs that answered.
        public var gpus = 0
        /// The mean of their shares of time in which a kernel ran, 0 to 1.
        public var busy = 0.0
        /// The mean of their shares of time in which memory was read or written, 0 to 1.
        public var memoryBusy = 0.0
        /// Watts of all of them that tell.
        public var watts = 0.0

        /// A use of its parts.
        public init(gpus: Int = 0, busy: Double = 0, memoryBusy: Double = 0, watts: Double = 0) {
            (self.gpus, self.busy, self.memoryBusy, self.watts) = (gpus, busy, memoryBusy, watts)
        }
    }

    /// The GPUs looked at, by their names.
    public let names: [String]
    private let numbers: Range<Int>
    private let raw: OpaquePointer

    /// Opens the library.
    ///
    /// - Parameters:
    ///   - number: The one GPU to look at; nil: all.
    ///   - library: The library's file; nil: where the loader finds it.
    public init(gpu number: Int? = nil, library: String? = nil) throws(OperatorError) {
        var opened: OpaquePointer?
        var why = [CChar](repeating: 0, count: 512)
        let error = unsafe hf_nvml_open(library, &opened, &why, why.count)
        guard error == 0, let opened = unsafe opened else {
            let text = String(decoding: why.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            throw OperatorError(text, at: "GPU use")
        }
        let count = unsafe Int(hf_nvml_count(opened))
        let all = 0..<count
        guard !all.isEmpty, number.map({ all.contains($0) }) ?? true else {
            unsafe hf_nvml_close(opened)
            throw OperatorError("there is no such GPU: there are \(all.count)", at: "GPU use")
        }
        unsafe raw = opened
        numbers = number.map { $0..<($0 + 1) } ?? all
        names = numbers.map { number in
            var name = [CChar](repeating: 0, count: 96)
            unsafe hf_nvml_name(opened, Int32(number), &name, name.count)
            return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        }
    }

    deinit { unsafe hf_nvml_close(raw) }

    /// What they do now; nil: none of them says. By one thread at a time.
    public func look() -> Use? {
        var use = Use()
        for number in numbers {
            var (busy, memory, milliwatts): (UInt32, UInt32, UInt32) = (0, 0, 0)
            guard unsafe hf_nvml_use(raw, Int32(number), &busy, &memory, &milliwatts) == 0 else { continue }
            use.gpus += 1
            use.busy += Double(busy) / 100
            use.memoryBusy += Double(memory) / 100
            use.watts += Double(milliwatts) / 1000
        }
        guard use.gpus > 0 else { return nil }
        use.busy /= Double(use.gpus)
        use.memoryBusy /= Double(use.gpus)
        return use
    }
}
