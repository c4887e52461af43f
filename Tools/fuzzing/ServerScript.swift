// A store's connection with a wicked client, and a store behind it that answers when the script says so.

import CKernel
import KVModel
import KVSystem

private let secret = [UInt8](repeating: 7, count: 32)
private let limits = ServerLimits(
    sessionsMax: 4, unauthenticatedMax: 4, credits: 4, payloadBytesMax: 1 << 14, helloLimit: Duration(seconds: 5),
    stallLimit: Duration(seconds: 10), transferLimit: Duration(seconds: 120), outputBytesMax: 1 << 14,
    failureDelay: Duration(milliseconds: 250), failureDelayMax: Duration(seconds: 4))

/// A host that keeps what it must answer, and whose promises are checked.
private final class ScriptedHost: SessionHost, @unchecked Sendable {
    enum Stage { case asked, receiving, received, sending }
    struct Owed {
        var id: RequestID
        var request: Request
        var stage = Stage.asked
    }

    let memory: BlockMemory
    var owed: [Owed] = []
    var isFull = false
    private(set) var openedCount = 0
    private(set) var closedCount = 0

    init() {
        guard let memory = try? BlockMemory(byteCount: 1 << 18, wantsHugePages: false) else {
            preconditionFailure("no memory is left")
        }
        self.memory = memory
    }

    func secret(ofTenant tenant: String) -> [UInt8]? { tenant == "fuzz" ? KVTransport.secret(tenant) : nil }

    func deliver(_ event: SessionEvent) -> Acceptance {
        switch event {
        case .opened: openedCount += 1
        case .closed:
            precondition(owed.isEmpty, "a session is closed that still waits for the store")
            closedCount += 1
        case .request(let id, let request):
            precondition(openedCount == closedCount + 1, "a request of nobody")
            if isFull { return .full }
            precondition(!owed.contains { $0.id == id }, "two requests with one number")
            owed.append(Owed(id: id, request: request))
            precondition(owed.count <= limits.credits, "more requests than credits")
        case .received(let id, _):
            guard let place = owed.firstIndex(where: { $0.id == id && $0.stage == .receiving }) else {
                preconditionFailure("a payload ends that nobody awaits")
            }
            owed[place].stage = .received
        case .sent(let id, _):
            guard let place = owed.firstIndex(where: { $0.id == id && $0.stage == .sending }) else {
                preconditionFailure("a payload was sent twice, or never")
            }
            owed.remove(at: place)
        }
        return .accepted
    }
}

private func secret(_ tenant: String) -> [UInt8] { secret }

/// One connection from its begin to its end.
final class ServerScript {
    private static let host = ScriptedHost()
    private let host = ServerScript.host
    private let sockets = SocketPair()
    private let setting: ServerSetting
    private let connection: StreamConnection
    private var sent = SentFrames()

    init(isKnown: Bool) {
        setting = ServerSetting(host: host, limits: limits, failedTries: FailedTries(limits: limits))
        setting.now = Instant(nanoseconds: 1_000_000_000)
        connection = StreamConnection(
            AcceptedSocket(descriptor: sockets.theirs, carrier: .tcp, address: "127.0.0.1:1"),
            id: SessionID(transport: 1, number: 1), setting: setting)
        if isKnown { introduce() }
    }

    private func introduce() {
        var client = ClientHandshake(tenant: "fuzz", secret: secret, nonce: [UInt8](repeating: 1, count: 32))
        say(.hello, client.helloBody)
        guard let challenge = sent.values.last,
            case .proof(let proof)? = try? client.take(challenge.header, challenge.body)
        else { preconditionFailure("no challenge") }
        say(.proof, proof)
        guard let welcome = sent.values.last, case .open? = try? client.take(welcome.header, welcome.body) else {
            preconditionFailure("no welcome")
        }
    }

    private func say(_ operation: Operation, _ body: [UInt8]) {
        var writer = FrameWriter()
        writer.frame(FrameHeader(operation)) { $0.raw(body) }
        sockets.send(writer.bytes)
        turn()
    }

    func run(_ script: inout Script) {
        var steps = 0
        while !script.isOver, steps < 64, !connection.peer.isOver {
            steps += 1
            switch script.byte() % 8 {
            case 0, 1, 2: sockets.send(script.frame(isReply: false))
            case 3: sockets.send(script.take(Int(script.byte())))
            case 4: answer(&script)
            case 5: host.isFull = script.byte() & 1 != 0
            case 6: setting.now = setting.now + Duration(milliseconds: Int64(script.byte()) * 50)
            default:
                let names = [ObjectName(.none)]
                let told: [Notification] = [.added(1, names), .removed(2, names), .overflow(1)]
                perform(.notify(connection.peer.id, told[Int(script.byte() % 3)]))
            }
            turn()
            connection.tick()
        }
        end()
    }

    /// Answers one of the requests that wait, in one of the ways that a store may.
    private func answer(_ script: inout Script) {
        guard !host.owed.isEmpty else { return }
        let place = Int(script.byte()) % host.owed.count
        let owed = host.owed[place]
        let choice = script.byte()
        switch (owed.request, owed.stage) {
        case (.put(_, _, _, let payloadBytes, _), .asked) where choice & 1 != 0:
            host.owed[place].stage = .receiving
            perform(.receive(owed.id, into: MemorySlice(offset: place << 14, count: payloadBytes)))
        case (.get, .asked) where choice & 1 != 0:
            host.owed[place].stage = .sending
            let count = Int(choice) * 16
            let response = Response(.ok, .object(payloadBytes: count, checksum: 0, ObjectMetadata()))
            perform(.send(owed.id, response, from: MemorySlice(offset: place << 14, count: count)))
        case (_, .asked), (_, .received):
            let status = Status(rawValue: UInt16(choice >> 1) % 13) ?? .ok
            host.owed.remove(at: place)
            perform(.reply(owed.id, choice & 1 != 0 ? .because(status, "words") : Response(status)))
        case (_, .receiving), (_, .sending): break
        }
    }

    private func perform(_ command: SessionCommand) {
        guard !connection.peer.isOver else { return }
        connection.peer.perform(command)
    }

    private func turn() {
        var turns = 0
        connection.stream.isReadable = true
        connection.stream.isWritable = true
        repeat {
            connection.turn()
            sent.add(sockets.receive())
            connection.stream.isWritable = true
            turns += 1
            precondition(turns < 1000, "it never comes to rest")
        } while connection.wantsTurn
    }

    /// The connection goes, and nothing of it stays: each request is answered once, each payload ends once.
    private func end() {
        host.isFull = false
        connection.end()
        while let owed = host.owed.first {
            precondition(owed.stage == .asked || owed.stage == .received, "a payload that never ends")
            host.owed.removeFirst()
            perform(.reply(owed.id, Response(.cancelled)))
        }
        precondition(connection.peer.isOver, "a session that never ends")
        precondition(host.openedCount == host.closedCount, "a session that is not closed, or closed twice")
        sockets.close()
    }
}
