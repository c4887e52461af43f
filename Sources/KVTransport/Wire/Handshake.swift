// Who is there: a challenge both ways with a key that client and store share and that never travels. Both ends as plain
// values: frames go in, frames come out. Whatever carries them reads the clock and closes connections.

import Crypto
import KVModel
import KVSystem

/// The secrets' side of the handshake: what both ends compute in the same way.
package enum HandshakeProof {
    private static let clientLabel = Array("holdfast client 1".utf8)
    private static let serverLabel = Array("holdfast server 1".utf8)

    /// What a proof is about: both nonces, the tenant and all that was agreed.
    package static func transcript(hello: [UInt8], challenge: [UInt8]) -> [UInt8] {
        Array(SHA256.hash(data: hello + challenge))
    }

    /// What a client says to show that it knows the key.
    package static func client(_ secret: [UInt8], _ transcript: [UInt8]) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: clientLabel + transcript, using: SymmetricKey(data: secret)))
    }

    /// What a store says to show that it knows the key; it covers what the store grants.
    package static func server(_ secret: [UInt8], _ transcript: [UInt8], grants: [UInt8]) -> [UInt8] {
        Array(
            HMAC<SHA256>.authenticationCode(
                for: serverLabel + transcript + grants, using: SymmetricKey(data: secret)))
    }

    /// Compares in a time that does not depend on where they differ.
    package static func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        for (one, other) in zip(left, right) { difference |= one ^ other }
        return difference == 0
    }

    /// Bytes that nobody can foresee.
    package static func nonce() -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    }
}

/// What a store grants in its welcome.
package struct Grants: Sendable, Equatable {
    /// Requests that the client may have in flight.
    package var credits: UInt16
    /// The store's number for the session.
    package var session: UInt32
    /// The longest body it takes.
    package var bodyBytesMax: UInt32
    /// The longest payload it takes.
    package var payloadBytesMax: UInt32

    /// Grants of their parts.
    package init(credits: UInt16, session: UInt32, bodyBytesMax: UInt32, payloadBytesMax: UInt32) {
        self.credits = credits
        self.session = session
        self.bodyBytesMax = bodyBytesMax
        self.payloadBytesMax = payloadBytesMax
    }

    /// Writes them in 16 bytes.
    package func write(to writer: inout FrameWriter) {
        writer.integer(credits)
        writer.integer(UInt16(0))
        writer.integer(session)
        writer.integer(bodyBytesMax)
        writer.integer(payloadBytesMax)
    }

    /// Reads them from 16 bytes.
    package static func read(_ reader: inout WireReader) throws(FrameError) -> Grants {
        let credits = try reader.integer(UInt16.self, "credits")
        guard try reader.integer(UInt16.self, "reserved") == 0 else { throw reader.error(.reserved("reserved")) }
        return Grants(
            credits: credits, session: try reader.integer(UInt32.self, "session"),
            bodyBytesMax: try reader.integer(UInt32.self, "body limit"),
            payloadBytesMax: try reader.integer(UInt32.self, "payload limit"))
    }
}

/// The store's side.
package struct ServerHandshake {
    /// What to do after a frame.
    package enum Step {
        /// Send the challenge and wait.
        case challenge(body: [UInt8])
        /// It knows the key: send the welcome, and it is a session.
        case welcome(tenant: String, body: [UInt8])
        /// It does not: refuse, later, so that guessing is slow.
        case refuseProof(tenant: String)
        /// It speaks no version that is spoken here: refuse at once, saying so.
        case refuseVersion(String)
    }

    private enum State {
        case awaitsHello
        case awaitsProof(tenant: String, transcript: [UInt8])
        case over
    }

    private var state = State.awaitsHello
    private let grants: Grants
    private let nonce: [UInt8]
    /// Stands in for the secret of a tenant that there is not, so that both ways take the same steps.
    private let decoy: [UInt8]

    /// A handshake that has not begun.
    package init(grants: Grants, nonce: [UInt8], decoy: [UInt8]) {
        self.grants = grants
        self.nonce = nonce
        self.decoy = decoy
    }

    /// Takes the client's next frame.
    package mutating func take(
        _ header: FrameHeader, _ body: [UInt8], secret: (String) -> [UInt8]?
    ) throws(FrameError) -> Step {
        try header.refuseUnused(FrameHeader(header.operation))
        switch (state, header.operation) {
        case (.awaitsHello, .hello): return try takeHello(body)
        case (.awaitsProof(let tenant, let transcript), .proof):
            state = .over
            let known = secret(tenant)
            let key = known ?? decoy
            let isRight = HandshakeProof.isEqual(HandshakeProof.client(key, transcript), body)
            guard isRight, known != nil else { return .refuseProof(tenant: tenant) }
            var writer = FrameWriter()
            grants.write(to: &writer)
            let proof = HandshakeProof.server(key, transcript, grants: writer.bytes)
            return .welcome(tenant: tenant, body: writer.bytes + proof)
        default: throw FrameError(.outOfPlace("operation \(header.operation) before authentication"), at: 5)
        }
    }

    private mutating func takeHello(_ body: [UInt8]) throws(FrameError) -> Step {
        let read = unsafe body.withUnsafeBytes { bytes -> Result<Hello, FrameError> in
            var reader = unsafe WireReader(bytes)
            return Result { () throws(FrameError) in try Hello.read(&reader) }
        }
        let hello = try read.get()
        guard hello.versions.contains(UInt16(WireLimit.version)) else {
            state = .over
            return .refuseVersion(
                "this store speaks version \(WireLimit.version), the client offered \(hello.versions.lowerBound) to "
                    + "\(hello.versions.upperBound)")
        }
        var writer = FrameWriter()
        writer.integer(UInt16(WireLimit.version))
        writer.integer(UInt16(0))
        writer.raw(nonce)
        state = .awaitsProof(
            tenant: hello.tenant,
            transcript: HandshakeProof.transcript(hello: body, challenge: writer.bytes))
        return .challenge(body: writer.bytes)
    }
}

/// What a client says first.
package struct Hello {
    /// The versions it speaks.
    package var versions: ClosedRange<UInt16>
    /// 32 bytes that it used never before.
    package var nonce: [UInt8]
    /// Who it says it is.
    package var tenant: String

    /// A hello of its parts.
    package init(versions: ClosedRange<UInt16>, nonce: [UInt8], tenant: String) {
        self.versions = versions
        self.nonce = nonce
        self.tenant = tenant
    }

    /// Its body.
    package var body: [UInt8] {
        var writer = FrameWriter()
        writer.integer(versions.lowerBound)
        writer.integer(versions.upperBound)
        writer.integer(UInt32(0))
        writer.raw(nonce)
        writer.text(tenant)
        return writer.bytes
    }

    /// Reads its body.
    package static func read(_ reader: inout WireReader) throws(FrameError) -> Hello {
        let low = try reader.integer(UInt16.self, "lowest version")
        let high = try reader.integer(UInt16.self, "highest version")
        guard low <= high else { throw reader.error(.value("highest version", UInt64(high))) }
        guard try reader.integer(UInt32.self, "reserved") == 0 else { throw reader.error(.reserved("reserved")) }
        let nonce = try reader.raw(32, "nonce")
        let tenant = try reader.text("tenant")
        try reader.end()
        return Hello(versions: low...high, nonce: nonce, tenant: tenant)
    }
}

/// The client's side.
package struct ClientHandshake {
    /// What to do after a frame.
    package enum Step {
        /// Send the proof and wait.
        case proof(body: [UInt8])
        /// The store knows the key, too: a session, with what it grants.
        case open(Grants)
        /// The store refused, or is not who it should be.
        case refused(String)
    }

    private let secret: [UInt8]
    private let hello: [UInt8]
    private var transcript: [UInt8] = []

    /// A handshake whose first frame is `helloBody`.
    package init(tenant: String, secret: [UInt8], nonce: [UInt8]) {
        self.secret = secret
        let version = UInt16(WireLimit.version)
        hello = Hello(versions: version...version, nonce: nonce, tenant: tenant).body
    }

    /// The body of the first frame.
    package var helloBody: [UInt8] { hello }

    /// Takes the store's next frame.
    package mutating func take(_ header: FrameHeader, _ body: [UInt8]) throws(FrameError) -> Step {
        var used = FrameHeader(header.operation)
        if header.operation == .refused { used.status = header.status }
        try header.refuseUnused(used)
        switch header.operation {
        case .challenge where transcript.isEmpty:
            guard body.count == 36 else { throw FrameError(.truncated("challenge"), at: WireLimit.headerBytes) }
            guard UInt16(body[0]) | UInt16(body[1]) << 8 == UInt16(WireLimit.version) else {
                throw FrameError(.version(body[0]), at: WireLimit.headerBytes)
            }
            transcript = HandshakeProof.transcript(hello: hello, challenge: body)
            return .proof(body: HandshakeProof.client(secret, transcript))
        case .welcome where !transcript.isEmpty:
            guard body.count == 48 else { throw FrameError(.truncated("welcome"), at: WireLimit.headerBytes) }
            let grantBytes = Array(body.prefix(16))
            let proof = HandshakeProof.server(secret, transcript, grants: grantBytes)
            guard HandshakeProof.isEqual(proof, Array(body.suffix(32))) else {
                return .refused("the store does not know the key: it is not the one it should be")
            }
            let grants = unsafe grantBytes.withUnsafeBytes { bytes -> Result<Grants, FrameError> in
                var reader = unsafe WireReader(bytes)
                return Result { () throws(FrameError) in try Grants.read(&reader) }
            }
            return .open(try grants.get())
        case .refused: return .refused(String(decoding: body, as: UTF8.self))
        default: throw FrameError(.outOfPlace("operation \(header.operation) before authentication"), at: 5)
        }
    }
}
