// A poller tells what happened on which descriptor, as often as it was asked to and no longer than it is wanted.

import CKernel
import KVModel
import KVSystem
import Testing

@Suite struct PollerTests {
    /// What happened, looked at without sleeping.
    private func look(_ poller: Poller) -> [UInt64: PollEvents] {
        var batch = PollBatch()
        poller.wait(until: .zero, from: .zero, into: &batch)
        return Dictionary(uniqueKeysWithValues: (0..<batch.count).map { (batch[$0].tag, batch[$0].events) })
    }

    private func pair() throws -> (Int32, Int32) {
        var (one, other): (Int32, Int32) = (0, 0)
        _ = try checked(unsafe hf_socket_pair(&one, &other), "make two sockets")
        return (one, other)
    }

    @Test func itTellsWhatItWasAskedForUntilItIsAskedNoMore() throws {
        let poller = try Poller()
        let (one, other) = try pair()
        defer { for descriptor in [one, other] { hf_close(descriptor) } }
        #expect(poller.add(one, for: .readable, tag: 7))
        #expect(look(poller).isEmpty)
        unsafe [UInt8](repeating: 0, count: 3).withUnsafeBytes { _ = unsafe hf_send(other, $0.baseAddress, 3, 0) }
        #expect(look(poller) == [7: .readable])
        #expect(look(poller) == [7: .readable], "as long as it holds")
        poller.change(one, to: [.readable, .writable], tag: 8)
        #expect(look(poller) == [8: [.readable, .writable]])
        poller.remove(one)
        #expect(look(poller).isEmpty)
    }

    @Test func anEdgeIsToldOnce() throws {
        let poller = try Poller()
        let (one, other) = try pair()
        defer { for descriptor in [one, other] { hf_close(descriptor) } }
        poller.add(one, for: [.writable, .edgeTriggered], tag: 1)
        #expect(look(poller) == [1: .writable])
        #expect(look(poller).isEmpty)
    }

    @Test func readsAndWritesWillSayThatAPeerIsGone() throws {
        let poller = try Poller()
        let (one, other) = try pair()
        defer { hf_close(one) }
        poller.add(one, for: .readable, tag: 1)
        hf_close(other)
        let events = try #require(look(poller)[1])
        #expect(events.contains([.readable, .hungUp, .peerEnded]))
        #expect(events.mayRead && events.mayWrite && events.mayEnd)
        #expect(!PollEvents.readable.mayWrite && !PollEvents.readable.mayEnd && !PollEvents.writable.mayRead)
    }

    @Test func aSignalWakesItByItsTag() throws {
        let poller = try Poller()
        let signal = try WakeSignal()
        poller.add(signal.descriptor, for: .readable, tag: 3)
        signal.prepareToSleep()
        signal.wake()
        var batch = PollBatch()
        poller.wait(until: .distantFuture, from: .zero, into: &batch)
        #expect(batch.contains(tag: 3) && !batch.contains(tag: 0))
        signal.awake()
        poller.wait(until: .zero, from: .zero, into: &batch)
        #expect(batch.count == 0 && !batch.contains(tag: 3), "what an earlier wait brought is forgotten")
    }
}
