// What only TLS can do wrong: certificates that nobody trusts, versions too old, peers that never finish a handshake.

import CKernel
import Foundation
import KVModel
import KVSystem
import KVTransport
import Testing

@Suite(.serialized) struct TLSTests {
    /// A client of a TLS stage with other files than the stage's own.
    private func client(
        _ stage: ConformanceStage, authority: String? = nil, serverName: String? = nil, chain: String? = nil,
        key: String? = nil
    ) throws -> TestClient {
        let files = try TestCertificates.shared.get()
        let route = try StoreRoute.tls(
            host: "127.0.0.1", port: stage.port,
            TLSClientConfiguration(
                authority: authority ?? files.authority, serverName: serverName, certificateChain: chain,
                privateKey: key))
        return try stage.client(routes: [route])
    }

    @Test func aStoreOfAnotherAuthorityIsNotTrusted() async throws {
        let stage = try ConformanceStage(.tls)
        let files = try TestCertificates.shared.get()
        let client = try client(stage, authority: files.otherAuthority)
        #expect(
            await eventually { client.losses.contains { $0.contains("is not of the authority that is trusted here") } },
            "\(client.losses.first ?? "none")")
        #expect(client.connections.isEmpty && stage.host.openedCount == 0)
        #expect(await eventually { stage.counters.connectionsBroken > 0 })
        await stage.end()
    }

    @Test(arguments: [
        ("store", "store.test", true), ("store", "other.test", false), ("store", "127.0.0.1", false),
        ("address", "127.0.0.1", true), ("store", nil, true),
    ])
    func theNameInTheCertificateIsCompared(certificate: String, name: String?, isRight: Bool) async throws {
        let stage = try ConformanceStage(.tls, certificate: certificate)
        let client = try client(stage, serverName: name)
        if isRight {
            #expect(await eventually { client.connections == [.tls] }, "\(client.losses)")
        } else {
            #expect(
                await eventually { client.losses.contains { $0.contains("stands for another name or address") } },
                "\(client.losses.first ?? "none")")
            #expect(client.connections.isEmpty)
        }
        await stage.end()
    }

    @Test func aClientWithoutACertificateIsRefusedWhereOneIsWanted() async throws {
        let stage = try ConformanceStage(.mutualTLS)
        let files = try TestCertificates.shared.get()
        let none = try client(stage)
        let stranger = try client(stage, chain: files.chain("stranger"), key: files.key("stranger"))
        #expect(
            await eventually { none.losses.contains { $0.contains("wants a certificate of its clients") } },
            "\(none.losses.first ?? "none")")
        #expect(
            await eventually { stranger.losses.contains { $0.contains("does not trust the authority of the client") } },
            "\(stranger.losses.first ?? "none")")
        #expect(none.connections.isEmpty && stranger.connections.isEmpty && stage.host.openedCount == 0)
        await stage.end()
    }

    @Test func plainTextAndOldVersionsAreRefused() async throws {
        let stage = try ConformanceStage(.tls)
        let plain = try RawSession(
            .tcp(host: "127.0.0.1", port: stage.port), memory: BlockMemory(byteCount: 1 << 20))
        #expect(try plain.open() == "ended")
        #expect(await eventually { stage.counters.connectionsBroken == 1 })
        let old = Process()
        old.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        old.arguments = ["openssl", "s_client", "-connect", "127.0.0.1:\(stage.port)", "-tls1_2"]
        old.standardInput = FileHandle.nullDevice
        old.standardOutput = FileHandle.nullDevice
        old.standardError = FileHandle.nullDevice
        try old.run()
        old.waitUntilExit()
        #expect(old.terminationStatus != 0)
        #expect(await eventually { stage.counters.connectionsBroken == 2 })
        #expect(stage.host.openedCount == 0)
        await stage.end()
    }

    @Test func aHandshakeThatIsNeverFinishedEndsAtItsLimit() async throws {
        var limits = ServerLimits.test
        limits.helloLimit = Duration(milliseconds: 200)
        let stage = try ConformanceStage(.tls, limits: limits)
        let silent = try RawSession(
            .tcp(host: "127.0.0.1", port: stage.port), memory: BlockMemory(byteCount: 1 << 20))
        #expect(silent.ends())
        #expect(await eventually { stage.counters.connectionsBroken == 1 })
        await stage.end()
    }

    /// The oldest handshakes make room: who opens connections and says nothing keeps nobody out.
    @Test func aCrowdThatNeverFinishesTheHandshakeKeepsNobodyOut() async throws {
        var limits = ServerLimits.test
        limits.sessionsMax = 4
        limits.unauthenticatedMax = 4
        limits.helloLimit = Duration(seconds: 600)
        let stage = try ConformanceStage(.tls, limits: limits)
        let memory = try BlockMemory(byteCount: 1 << 20)
        var crowd: [RawSession] = []
        for _ in 0..<24 { crowd.append(try RawSession(.tcp(host: "127.0.0.1", port: stage.port), memory: memory)) }
        #expect(await eventually { stage.counters.connectionsBroken == 20 })
        let client = try await stage.openClient()
        #expect(try await client.ask(.stat).status == .ok)
        for raw in crowd { raw.close() }
        await stage.end()
    }

    @Test func aStoreThatNeverFinishesTheHandshakeIsGivenUp() async throws {
        let stage = try ConformanceStage(.tls)
        let listener = try checked(unsafe hf_tcp_listen("127.0.0.1", 0, 8), "listen")
        defer { hf_close(listener) }
        let port = UInt16(try checked(hf_socket_port(listener), "ask for the port"))
        let files = try TestCertificates.shared.get()
        let hole = try StoreRoute.tls(
            host: "127.0.0.1", port: port,
            TLSClientConfiguration(
                authority: files.authority, serverName: nil, certificateChain: nil, privateKey: nil))
        // The connection to the black hole is closed when it is given up, and the next way is tried.
        let client = try stage.client(routes: [hole, stage.route()]) { $0.connectLimit = Duration(milliseconds: 200) }
        try await client.open("n")
        var name = [CChar](repeating: 0, count: 80)
        let accepted = try checked(unsafe hf_accept(listener, &name, name.count), "accept")
        defer { hf_close(accepted) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        var isEnded = false
        #expect(
            await eventually {
                let count = unsafe hf_receive(accepted, &bytes, bytes.count)
                isEnded = isEnded || (count <= 0 && -count != KernelError.wouldBlock)
                return isEnded
            })
        await stage.end()
    }

    @Test func aMissingFileIsNamed() throws {
        let files = try TestCertificates.shared.get()
        let host = try MemoryHost(slotBytes: 4096, slotCount: 1, secrets: [:])
        func start(_ chain: String, _ key: String, _ authority: String?) throws {
            let server = try TLSServer(
                TLSServerConfiguration(
                    address: "127.0.0.1", port: 0, certificateChain: chain, privateKey: key,
                    clientAuthority: authority, laneCount: 1, limits: .test), transport: 2, host: host)
            server.shutDown()
        }
        let missing = files.folder + "/missing.pem"
        #expect(throws: OperatorError.self) { try start(missing, files.key("store"), nil) }
        #expect(throws: OperatorError.self) { try start(files.chain("store"), missing, nil) }
        #expect(throws: OperatorError.self) { try start(files.chain("store"), files.key("store"), missing) }
        #expect(throws: OperatorError.self) { try start(files.chain("store"), files.key("client"), nil) }
        #expect(throws: OperatorError.self) {
            try StoreRoute.tls(
                host: "127.0.0.1", port: 1,
                TLSClientConfiguration(authority: missing, serverName: nil, certificateChain: nil, privateKey: nil))
        }
        try start(files.chain("store"), files.key("store"), files.authority)
    }
}
