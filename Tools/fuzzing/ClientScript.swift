// A client's connection with a wicked store.

import KVModel
import KVSystem

private let secret = [UInt8](repeating: 9, count: 32)

/// One connection from its begin to its end, and its owner, who checks what it is told.
final class ClientScript: ClientConnectionOwner {
    private static let memory = try? BlockMemory(byteCount: 1 << 18, wantsHugePages: false)
    private static let slotBytes = 1 << 12

    private enum State { case under, ended, over }

    private let sockets = SocketPair()
    private var connection: ClientConnection!
    private var sent = SentFrames()
    private var states: [State] = []
    private(set) var now = Instant(nanoseconds: 1_000_000_000)

    init() {
        guard let memory = Self.memory else { preconditionFailure("no memory is left") }
        let configuration = StoreClientConfiguration(routes: [], tenant: "fuzz", secret: secret)
        connection = ClientConnection(
            StreamLink(sockets.theirs, memory: memory, isConnected: true), routeIndex: 0, configuration: configuration,
            memory: memory, owner: self)
    }

    func run(_ script: inout Script) {
        turn()
        if script.byte() & 3 != 0 { introduce(credits: UInt16(script.byte())) }
        var steps = 0
        while !script.isOver, steps < 64 {
            if case .ended = connection.phase { break }
            steps += 1
            switch script.byte() % 8 {
            case 0, 1: ask(&script)
            case 2, 3, 4: answer(&script)
            case 5: sockets.send(script.frame(isReply: script.byte() & 1 != 0))
            case 6: sockets.send(script.take(Int(script.byte())))
            default:
                now = now + Duration(milliseconds: Int64(script.byte()) * 20)
                _ = connection.cancel(tag: UInt64(script.byte()))
            }
            connection.tick()
            turn()
        }
        connection.end("the script is over")
        precondition(states.allSatisfy { $0 == .over }, "a request or its slot is lost")
        sockets.close()
    }

    /// The handshake of a store that knows the key.
    private func introduce(credits: UInt16) {
        guard let hello = sent.values.last else { preconditionFailure("no hello") }
        var server = ServerHandshake(
            grants: Grants(credits: credits, session: 1, bodyBytesMax: 1 << 20, payloadBytesMax: 1 << 12),
            nonce: [UInt8](repeating: 1, count: 32), decoy: secret)
        guard case .challenge(let challenge)? = try? server.take(hello.header, hello.body, secret: { _ in secret })
        else { preconditionFailure("a hello that is none") }
        say(.challenge, challenge)
        guard let proof = sent.values.last,
            case .welcome(_, let welcome)? = try? server.take(proof.header, proof.body, secret: { _ in secret })
        else { preconditionFailure("a proof that is wrong") }
        say(.welcome, welcome)
        guard case .open = connection.phase else { preconditionFailure("it is not open") }
        connection.handles[1] = 1
        connection.clientHandles[1] = 1
    }

    private func say(_ operation: Operation, _ body: [UInt8]) {
        var writer = FrameWriter()
        writer.frame(FrameHeader(operation)) { $0.raw(body) }
        sockets.send(writer.bytes)
        turn()
    }

    private func ask(_ script: inout Script) {
        guard connection.hasCredit, states.count < 32 else { return }
        let choice = script.byte()
        let name = ObjectName(FullKey(UInt64(choice), 2, 3, 4))
        let slot = MemorySlice(offset: states.count * Self.slotBytes, count: Self.slotBytes)
        let requests: [Request] = [
            .get(1, name), .get(1, name), .put(1, name, ObjectMetadata(), payloadBytes: 16 * Int(choice), checksum: 1),
            .lookUp(1, [name]), .openNamespace(name: "n"), .stat, .list(1, cursor: 0, countMax: 10), .get(9, name),
        ]
        let request = requests[Int(choice % 8)]
        let hasSlot = request.operation == .get || request.operation == .put
        let tag = UInt64(states.count)
        states.append(.under)
        connection.send(
            Errand(
                request: request, owner: .tag(tag), slot: hasSlot ? slot : nil,
                deadline: now + Duration(milliseconds: 1 + Int64(script.byte()) * 20)))
    }

    /// Answers one of the requests that came, rightly or almost.
    private func answer(_ script: inout Script) {
        let asked = sent.values.filter { $0.header.operation.isRequest }
        guard !asked.isEmpty else { return }
        let header = asked[Int(script.byte()) % asked.count].header
        let choice = script.byte()
        let length = Int(script.byte()) * 24
        let bodies: [ResponseBody] = [
            .none, .object(payloadBytes: length, checksum: 0, ObjectMetadata()), .namespace(1), .presence([1]),
            .statuses([.ok]), .page([], next: 0), .text([0x7B, 0x7D]),
            .object(payloadBytes: length, checksum: UInt64(choice), ObjectMetadata()),
        ]
        let response = Response(
            choice & 8 == 0 ? .ok : Status(rawValue: UInt16(choice >> 4) % 13) ?? .ok, bodies[Int(choice % 8)])
        var reply = response.header(header.operation, number: header.requestNumber, payloadBytes: 0, isInSlot: false)
        if case .object = response.body { reply.payloadBytes = UInt32(length) }
        var writer = FrameWriter()
        writer.frame(reply) { response.writeBody(to: &$0) }
        // Sometimes the payload comes later, or never.
        let payload = choice & 128 == 0 ? [UInt8](repeating: choice, count: Int(reply.payloadBytes)) : []
        sockets.send(writer.bytes + payload)
    }

    private func turn() {
        var turns = 0
        repeat {
            connection.link.polled([.readable, .writable])
            connection.turn()
            sent.add(sockets.receive())
            turns += 1
            precondition(turns < 1000, "it never comes to rest")
        } while connection.wantsTurn
    }

    // MARK: What it is told

    func completed(_ errand: Errand, _ response: Response, slotIsFree: Bool, over connection: ClientConnection) {
        guard let tag = errand.tag else { return }
        precondition(states[Int(tag)] == .under, "a request ended twice")
        states[Int(tag)] = slotIsFree ? .over : .ended
        if response.status == .ok, case .get = errand.request {
            guard case .object(let count, _, _) = response.body else { preconditionFailure("a get of nothing") }
            precondition(count <= Self.slotBytes, "more than its slot")
        }
    }

    func slotReturned(_ errand: Errand) {
        // Those without a slot are told as well, and told apart here.
        guard let tag = errand.tag, errand.slot != nil else { return }
        precondition(states[Int(tag)] == .ended, "a slot came back twice")
        states[Int(tag)] = .over
    }

    func notified(_ notification: Notification, over connection: ClientConnection) {}
    func sawCorrupt(_ request: Request) {}
}
