// Who may use a store: names and keys, in a file that only its owner can read.

import CKernel
import Foundation
import KVModel
import KVSettings
import Yams

/// A tenant of a store.
public struct Tenant: Sendable, Equatable {
    /// Its key, at least 16 bytes.
    public var secret: [UInt8]
    /// Whether it may administer.
    public var isOperator: Bool

    /// A tenant of its parts.
    public init(secret: [UInt8], isOperator: Bool) {
        self.secret = secret
        self.isOperator = isOperator
    }
}

/// All tenants of a store.
public struct Tenants: Sendable {
    /// By name.
    public var byName: [String: Tenant]

    /// These tenants.
    public init(byName: [String: Tenant]) { self.byName = byName }

    /// Names of those who may administer.
    public var operators: Set<String> { Set(byName.filter { $0.value.isOperator }.keys) }

    /// Reads `name: {key: HEX, operator: true}` lines.
    public init(file: String) throws(OperatorError) {
        let text = try NamedFile(file).text()
        let mode = (try? FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int) ?? 0o600
        guard mode & 0o077 == 0 else {
            throw OperatorError(
                "holds keys and others than its owner can read it", at: file, remedy: "chmod 600 \(file)")
        }
        let mapping: Node.Mapping
        do { mapping = try compose(yaml: text)?.mapping ?? [:] } catch {
            throw OperatorError(yaml: error, at: file)
        }
        byName = [:]
        for (key, value) in mapping {
            let place = key.mark.map { "\(file):\($0.line)" } ?? file
            guard let name = key.string, let fields = value.mapping else {
                throw OperatorError("a tenant is `name: {key: …, operator: false}`", at: place)
            }
            for field in fields.keys where field.string != "key" && field.string != "operator" {
                throw OperatorError("a tenant has no `\(field.string ?? "")`, only `key` and `operator`", at: place)
            }
            guard let hex = fields["key"]?.scalar?.string, let secret = bytes(hex: hex), secret.count >= 16 else {
                throw OperatorError("the key of `\(name)` is not at least 32 hexadecimal digits", at: place)
            }
            byName[name] = Tenant(secret: secret, isOperator: fields["operator"]?.bool ?? false)
        }
        guard !byName.isEmpty else { throw OperatorError("names no tenant", at: file) }
    }

    /// Makes a file with one tenant, `local`, who may do everything and whose key nobody knows yet.
    public static func make(file: String) throws(OperatorError) {
        var secret = [UInt8](repeating: 0, count: 32)
        let filled = unsafe secret.withUnsafeMutableBytes { unsafe hf_random($0.baseAddress!, $0.count) }
        guard filled == 0 else { throw OperatorError("the kernel gives no random bytes") }
        let text = """
            # Tenants of this store. Whoever has a key can read and write the blocks of its tenant.
            local: {key: \(hexText(secret)), operator: true}

            """
        try NamedFile(file).write(Array(text.utf8), permissions: 0o600)
    }
}

/// Bytes of hexadecimal digits, or nil.
public func bytes(hex: String) -> [UInt8]? {
    let digits = hex.map(\.hexDigitValue)
    guard digits.count % 2 == 0, !digits.contains(nil) else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0]! << 4 | digits[$0 + 1]!) }
}

/// Hexadecimal digits of bytes.
public func hexText(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef")
    return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
}
