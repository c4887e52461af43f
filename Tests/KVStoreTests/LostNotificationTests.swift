// A subscriber whose transport has no room is told so as soon as there is room: nothing is lost in silence.

import Dispatch
import KVModel
import KVStore
import KVSystem
import KVTransport
import Synchronization
import Testing

/// A transport without room for notifications, until it is told to have some.
private final class DeafServer: SessionServer {
    let address = "deaf"
    let hears = Atomic<Bool>(false)
    private let commands = Mutex<[SessionCommand]>([])
    private let taken = DispatchSemaphore(value: 0)
    private let refused = DispatchSemaphore(value: 0)

    func post(_ command: SessionCommand) -> Acceptance {
        if case .notify = command, !hears.load(ordering: .acquiring) {
            refused.signal()
            return .full
        }
        commands.withLock { $0.append(command) }
        taken.signal()
        return .accepted
    }

    /// The next command that it took; nil when none comes.
    func next() -> SessionCommand? {
        guard taken.wait(timeout: .now() + 60) == .success else { return nil }
        return commands.withLock { $0.removeFirst() }
    }

    /// Whether it refused something.
    func hasRefused() -> Bool { refused.wait(timeout: .now() + 60) == .success }

    func shutDown() {}
}

@Suite struct LostNotificationTests {
    @Test func whatIsLostIsToldAsAnOverflow() throws {
        let bench = try StoreBench()
        let store = try #require(bench.store)
        let server = DeafServer()
        store.serve(server, transport: 9)
        let session = SessionID(transport: 9, number: 1)
        func ask(_ number: UInt32, _ request: Request) {
            _ = store.deliver(.request(RequestID(session: session, number: number), request))
        }
        func put(_ number: UInt32) {
            let name = StoreModelTests.name(Int(number))
            ask(number, .put(1, name, ObjectMetadata(), payloadBytes: 64, checksum: 0))
            guard case .receive(let request, _)? = server.next() else { return #expect(Bool(false)) }
            _ = store.deliver(.received(request, .whole))
        }
        _ = store.deliver(.opened(session, Peer(tenant: "admin", carrier: .loopback, address: "here")))
        ask(1, .openNamespace(name: "n"))
        ask(2, .subscribe(1))
        _ = server.next()
        _ = server.next()
        put(3)
        guard case .reply? = server.next() else { return #expect(Bool(false)) }
        #expect(server.hasRefused())
        server.hears.store(true, ordering: .releasing)
        guard case .notify(_, .overflow(1))? = server.next() else {
            Issue.record("the subscriber never hears that something was lost")
            return
        }
        // And the stream goes on.
        put(4)
        guard case .reply? = server.next() else { return #expect(Bool(false)) }
        guard case .notify(_, .added(1, let names))? = server.next() else { return #expect(Bool(false)) }
        #expect(names.count == 1)
    }
}
