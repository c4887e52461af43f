// Who may use a store: names and keys, in a file that only its owner can change and nobody else but a group of this process can
// read.

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
        var status = stat()
        // What cannot be asked was a pipe that is gone: nobody reads it any more.
        let isAsked = unsafe stat(file, &status) == 0
        guard
            !isAsked
                || Self.areKept(
                    mode: status.st_mode, owner: status.st_uid, group: status.st_gid, user: geteuid(),
                    groups: Self.groups)
        else {
            throw OperatorError(
                "holds keys and others than its owner can read it", at: file,
                remedy:
                    "chmod 600 \(file); a group of this user may read it (640, 440) where it is root's or this user's")
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

    /// Whether keys in a file are a secret: nobody but its owner may touch it; or, where that is root or this user, a group that
    /// this user is in may read it, too. So Kubernetes mounts a secret for a pod with an `fsGroup`: root's, 0440.
    package static func areKept(mode: UInt32, owner: UInt32, group: UInt32, user: UInt32, groups: [UInt32]) -> Bool {
        if mode & 0o077 == 0 { return true }
        guard mode & 0o037 == 0 else { return false }
        return (owner == 0 || owner == user) && groups.contains(group)
    }

    /// The groups of this process; Linux knows 65,536 at most.
    private static var groups: [UInt32] {
        var others = [gid_t](repeating: 0, count: 65_536)
        let count = unsafe getgroups(Int32(others.count), &others)
        return [getegid()] + others.prefix(max(0, Int(count)))
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
