// The number formats of weights and KV.

/// How one number of a weight or of a KV entry is stored.
public enum NumberFormat: String, CaseIterable, Sendable {
    /// Two bytes.
    case bf16
    /// One byte.
    case fp8
    /// Half a byte; the scales beside it are left out.
    case fp4

    /// Bytes of one number.
    public var bytes: Double {
        switch self {
        case .bf16: 2
        case .fp8: 1
        case .fp4: 0.5
        }
    }

    /// The format of that name, as engines and model files spell it.
    public init?(named name: String) {
        switch name.lowercased() {
        case "bf16", "bfloat16", "fp16", "float16": self = .bf16
        case "fp8", "float8", "fp8_e4m3", "fp8_e5m2": self = .fp8
        case "fp4", "nvfp4", "mxfp4": self = .fp4
        default: return nil
        }
    }
}
