// The wire is a promise between releases and languages: the committed frames are never computed anew. A change that breaks
// one of these tests breaks every client there is.

import Foundation
import KVModel
import KVSystem
import KVTransport
import Testing

@Suite struct FrameVectorTests {
    private let vectors: [FrameVector]

    init() throws { vectors = try FrameVector.all() }

    @Test func everyOperationHasAFrame() {
        let frames = vectors.map { FrameVector.bytes($0.frame) }
        let seen = Set(frames.map { $0[5] })
        #expect(seen == Set(KVTransport.Operation.allCases.map(\.rawValue)))
        // And replies every kind of body.
        #expect(Set(frames.filter { $0[6] & 1 != 0 }.map { $0[7] }) == Set(0...6))
    }

    @Test func valuesAreWrittenAsTheVectorsSay() {
        for vector in vectors {
            #expect(vector.value.bytes == FrameVector.bytes(vector.frame), "\(vector.what) \(vector.fields)")
        }
    }

    @Test func vectorsAreReadAsWhatTheySay() throws {
        for vector in vectors where vector.what != "challenge" && vector.what != "welcome" {
            let value = try WireValue(FrameVector.bytes(vector.frame))
            var header = "\(value)"
            // An opaque frame keeps its lengths and checksums; the value made of fields has none yet.
            if case .opaque(_, let body) = value { header = "\(body)" }
            var expected = "\(vector.value)"
            if case .opaque(_, let body) = vector.value { expected = "\(body)" }
            #expect(header == expected)
            #expect(value.bytes == FrameVector.bytes(vector.frame))
        }
    }

    @Test func payloadsAgreeWithTheirChecksums() throws {
        var count = 0
        for vector in vectors {
            guard let hex = vector.payload, case .put(_, let name, _, let length, let checksum) = put(vector) else {
                continue
            }
            let payload = FrameVector.bytes(hex)
            #expect(payload.count == length)
            #expect(unsafe payload.withUnsafeBytes { unsafe BlockChecksum.of(name, $0) } == checksum)
            count += 1
        }
        #expect(count == 1)
    }

    private func put(_ vector: FrameVector) -> Request? {
        if case .request(let request, _, _, _, _) = vector.value { return request }
        return nil
    }

    /// Both ends of the handshake say what the vectors say, and a third who does not know the key gets nowhere.
    @Test func theHandshakeAgreesWithTheVectors() throws {
        func body(_ what: String) throws -> [UInt8] {
            let vector = try #require(vectors.first { $0.what == what })
            return Array(FrameVector.bytes(vector.frame).dropFirst(WireLimit.headerBytes))
        }
        let hello = try #require(vectors.first { $0.what == "hello" }?.fields)
        let welcome = try #require(vectors.first { $0.what == "welcome" }?.fields)
        let challenge = try #require(vectors.first { $0.what == "challenge" }?.fields)
        let secret = FrameVector.bytes(welcome.key ?? "")
        var client = ClientHandshake(
            tenant: hello.tenant ?? "", secret: secret, nonce: FrameVector.bytes(hello.random ?? ""))
        #expect(client.helloBody == (try body("hello")))
        let grants = Grants(
            credits: welcome.credits ?? 0, session: welcome.session ?? 0, bodyBytesMax: welcome.bodyBytesMax ?? 0,
            payloadBytesMax: welcome.payloadBytesMax ?? 0)
        var server = ServerHandshake(
            grants: grants, nonce: FrameVector.bytes(challenge.random ?? ""), decoy: [UInt8](repeating: 9, count: 32))
        guard
            case .challenge(let challengeBody) = try server.take(
                FrameHeader(.hello), client.helloBody, secret: { _ in secret })
        else { throw Unexpected() }
        #expect(challengeBody == (try body("challenge")))
        guard case .proof(let proof) = try client.take(FrameHeader(.challenge), challengeBody) else {
            throw Unexpected()
        }
        #expect(proof == (try body("proof")))
        guard
            case .welcome(let tenant, let welcomeBody) = try server.take(
                FrameHeader(.proof), proof, secret: { _ in secret })
        else { throw Unexpected() }
        #expect(tenant == "local")
        #expect(welcomeBody == (try body("welcome")))
        guard case .open(let granted) = try client.take(FrameHeader(.welcome), welcomeBody) else { throw Unexpected() }
        #expect(granted == grants)
        // Grants that somebody changed on the way are noticed.
        var impostor = client
        var changed = welcomeBody
        changed[0] ^= 1
        guard case .refused = try impostor.take(FrameHeader(.welcome), changed) else { throw Unexpected() }
    }

    private struct Unexpected: Error {}

    @Test
    func pythonReadsAndWritesTheSameFrames() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "Tools/python/tests/check_store_frames.py"]
        process.currentDirectoryURL = root
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(said)")
        #expect(said == "\(vectors.count) frames agree\n")
    }
}
