// Keys are promises between machines, versions and languages: the vectors were computed once, by the Python twin, and are never
// computed anew. A change here breaks every block ever stored.

import Foundation
import KVIdentity
import KVModel
import Testing

private struct Vectors: Decodable {
    struct Namespace: Decodable {
        var fields: [String: String]
        var digest: String
    }
    struct Block: Decodable {
        var namespace: Int
        var body: String
        var parent: String?
        var tokens: [UInt32]?
        var lora: String?
        var media: [String]?
        var hash: String?
        var key: String
    }
    var namespaces: [Namespace]
    var blocks: [Block]
}

private func bytes(_ hex: String) -> [UInt8] {
    let digits = hex.map { UInt8($0.hexDigitValue ?? 0) }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

private func hex(_ bytes: [UInt8]) -> String { bytes.map { String(format: "%02x", $0) }.joined() }

@Suite struct IdentityTests {
    private let vectors: Vectors

    init() throws {
        vectors = try JSONDecoder().decode(Vectors.self, from: Data(PackageResources.identity_vectors_json))
    }

    @Test func namespaceDigestsAgreeWithTheVectors() throws {
        #expect(vectors.namespaces.count == 3)
        for vector in vectors.namespaces {
            #expect(hex(try NamespaceIdentity(fields: vector.fields).digest) == vector.digest)
        }
    }

    @Test func blockKeysAgreeWithTheVectors() throws {
        #expect(vectors.blocks.count == 8)
        for vector in vectors.blocks {
            let identity = BlockIdentity(namespaceDigest: bytes(vectors.namespaces[vector.namespace].digest))
            let key: FullKey
            if let hash = vector.hash {
                key = identity.engineKey(hash: bytes(hash))
            } else {
                let parent = bytes(vector.parent ?? "")
                key = identity.canonicalKey(
                    parent: parent.isEmpty ? nil : FullKey(bytes: parent), tokens: vector.tokens ?? [],
                    loraDigest: bytes(vector.lora ?? ""), mediaDigests: (vector.media ?? []).map(bytes))
            }
            #expect(hex(key.bytes) == vector.key)
        }
    }

    @Test func everyFieldChangesTheDigest() throws {
        let fields = vectors.namespaces[0].fields
        let digest = try NamespaceIdentity(fields: fields).digest
        for name in fields.keys {
            var changed = fields
            changed[name] = (fields[name] ?? "") + "x"
            let other = try NamespaceIdentity(fields: changed)
            #expect(other.digest != digest)
            #expect(
                try NamespaceIdentity(fields: fields).differences(from: other).map { $0.hasPrefix(name + ":") } == [
                    true
                ])
        }
    }

    @Test func aBoundaryBetweenFieldsCannotMove() throws {
        var left = vectors.namespaces[0].fields, right = left
        left["model"] = "ab"
        left["tokenizer"] = "c"
        right["model"] = "a"
        right["tokenizer"] = "bc"
        #expect(try NamespaceIdentity(fields: left).digest != NamespaceIdentity(fields: right).digest)
    }

    @Test func aMissingFieldIsNamed() {
        var fields = vectors.namespaces[0].fields
        fields["kv_dtype"] = nil
        #expect(throws: OperatorError.self) { try NamespaceIdentity(fields: fields) }
    }

    @Test func theFirst128BitsNameABlockInMemory() {
        let key = FullKey(bytes: (0..<32).map { UInt8($0) })
        #expect(key.short == BlockKey(high: 0x0001_0203_0405_0607, low: 0x0809_0a0b_0c0d_0e0f))
    }

    @Test func pythonComputesTheSameKeys() throws {
        let top = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.currentDirectoryURL = top
        process.arguments = ["python3", "Tools/python/tests/check_identity.py"]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        #expect(said == "11 vectors agree\n")
    }
}
