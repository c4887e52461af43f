// Whole sessions over verbs and their faults: stores that stall, ends that vanish, keys that are wrong.

import KVModel
import KVSystem
import KVTransport
import Testing

extension VerbsTests {
    @Suite(.serialized) struct Sessions {
        private let name = ObjectName(FullKey(1, 2, 3, 4))
        private let mebibyte = MemorySlice(offset: 0, count: 1 << 20)

        @Test func aQueuePairIsMadeOnlyAfterTheProof() throws {
            let session = try VerbsSession()
            let before = VerbsLiveObjects.now
            try session.client.connect(to: session.server, key: "wrong")
            #expect(session.run { session.client.endReason != nil })
            #expect(session.client.endReason?.contains("refused") == true)
            #expect(session.server.verbsCounters.pairsOpened == 0)
            #expect(VerbsLiveObjects.now == before)
            #expect(session.host.all.isEmpty)
            session.end()
        }

        @Test func payloadsGoBothWays() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            fill(session.client.memory, mebibyte, with: 7)
            session.client.put(1, name, from: mebibyte)
            let put = try #require(session.request())
            _ = session.server.post(.receive(put.id, into: MemorySlice(offset: 4096, count: 1 << 20)))
            #expect(session.run { session.host.received(put.id) != nil })
            #expect(session.host.received(put.id) == .whole)
            #expect(holds(session.host.memory, MemorySlice(offset: 4096, count: 1 << 20), only: 7))
            _ = session.server.post(.reply(put.id, Response(.ok)))
            #expect(session.run { session.client.replies[1]?.status == .ok })

            let slot = MemorySlice(offset: 1 << 20, count: 1 << 20)
            session.client.submit(2, .get(1, name), slot: slot)
            let get = try #require(session.request(1))
            _ = session.server.post(
                .send(get.id, session.object(1 << 20), from: MemorySlice(offset: 4096, count: 1 << 20)))
            #expect(session.run { session.client.replies[2] != nil })
            #expect(holds(session.client.memory, slot, only: 7))
            #expect(session.run { session.host.sent(get.id) == .whole })
            session.end()
            #expect(session.host.closedCount == 1)
        }

        @Test func aWrongChecksumIsFoundByTheReceiver() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            session.client.put(1, name, from: mebibyte, checksum: 1)
            let put = try #require(session.request())
            _ = session.server.post(.receive(put.id, into: mebibyte))
            #expect(session.run { session.host.received(put.id) == .corrupt })
            _ = session.server.post(.reply(put.id, Response(.corrupt)))
            #expect(session.run { session.client.replies[1]?.status == .corrupt })
            session.end()
        }

        @Test func aLateWriteMeetsOnlyItsOwnSlotOrNone() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            fill(session.host.memory, mebibyte, with: 9)
            // The store stalls; the client's deadline passes; the slot is not given to anybody.
            session.client.submit(1, .get(1, name), slot: mebibyte)
            let late = try #require(session.request())
            // Another request of the same session does not wait for it.
            session.client.submit(2, .get(1, name), slot: MemorySlice(offset: 1 << 20, count: 1 << 20))
            let other = try #require(session.request(1))
            _ = session.server.post(.send(other.id, session.object(1 << 20), from: mebibyte))
            #expect(session.run { session.client.replies[2] != nil })
            #expect(session.client.replies[1] == nil)
            #expect(holds(session.client.memory, mebibyte, only: 0))
            // Late, the WRITE lands in the slot that was kept for it, and the reply sets the slot free.
            _ = session.server.post(.send(late.id, session.object(1 << 20), from: mebibyte))
            #expect(session.run { session.client.replies[1] != nil })
            #expect(holds(session.client.memory, mebibyte, only: 9))

            // The same again, but the client gives up its queue pair to have the slot back: nothing lands any more.
            fill(session.client.memory, mebibyte, with: 1)
            session.client.submit(3, .get(1, name), slot: mebibyte)
            let lost = try #require(session.request(2))
            session.client.close()
            _ = session.server.post(.send(lost.id, session.object(1 << 20), from: mebibyte))
            #expect(session.run { session.host.sent(lost.id) == .aborted })
            #expect(session.run { session.host.closedCount == 1 })
            #expect(holds(session.client.memory, mebibyte, only: 1))
            session.end()
        }

        @Test func aStoreThatDiesInTheMiddleOfWritesEndsTheLink() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            for number in 1...UInt32(4) {
                session.client.submit(
                    number, .get(1, name), slot: MemorySlice(offset: Int(number - 1) << 20, count: 1 << 20))
            }
            for index in 0..<4 {
                let get = try #require(session.request(index))
                _ = session.server.post(.send(get.id, session.object(1 << 20), from: mebibyte))
            }
            session.server.shutDown()
            #expect(session.run { session.client.endReason != nil })
            // Every request got its end at the store, and the session was closed.
            #expect(session.host.closedCount == 1)
            #expect(session.host.requests.allSatisfy { session.host.sent($0.id) != nil })
            session.client.vanish()
        }

        @Test func aClientThatDiesInTheMiddleOfReadsLeavesNothing() throws {
            let session = try VerbsSession()
            let before = VerbsLiveObjects.now
            for round in 0..<5 {
                #expect(try session.open())
                for number in 1...UInt32(4) {
                    session.client.put(number, name, from: MemorySlice(offset: Int(number - 1) << 20, count: 1 << 20))
                }
                for index in 0..<4 {
                    let put = try #require(session.request(4 * round + index))
                    _ = session.server.post(.receive(put.id, into: MemorySlice(offset: index << 20, count: 1 << 20)))
                }
                session.client.vanish()
                let puts = session.host.requests.suffix(4)
                #expect(session.run { puts.allSatisfy { session.host.received($0.id) != nil } })
                for put in puts { _ = session.server.post(.reply(put.id, Response(.ok))) }
                #expect(session.run { session.host.closedCount == round + 1 })
            }
            #expect(VerbsLiveObjects.now == before)
            session.end()
        }

        @Test func afterAFailedPairAnotherWorks() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            // A slot with a key that nobody gave out.
            var slot = session.client.port.slot(mebibyte)
            slot.key ^= 0x5555
            session.client.submit(1, .get(1, name), remote: slot)
            let get = try #require(session.request())
            _ = session.server.post(.send(get.id, session.object(1 << 20), from: mebibyte))
            #expect(session.run { session.host.sent(get.id) == .aborted && session.client.endReason != nil })
            #expect(session.run { session.host.closedCount == 1 })
            #expect(try session.open())
            session.client.submit(1, .stat)
            let stat = try #require(session.request(1))
            _ = session.server.post(.reply(stat.id, Response(.ok, .text(Array("{}".utf8)))))
            #expect(session.run { session.client.replies[1]?.status == .ok })
            session.end()
        }

        @Test func aPutFromASlotTooShortEndsItsSessionAlone() throws {
            let session = try VerbsSession(clients: 2)
            #expect(try session.open())
            var slot = session.client.port.slot(mebibyte)
            slot.byteCount = 10
            session.client.submit(
                1, .put(1, name, ObjectMetadata(), payloadBytes: 1 << 20, checksum: 0), remote: slot)
            #expect(session.run { session.host.closedCount == 1 && session.clients[0].endReason != nil })
            #expect(session.host.requests.isEmpty)
            #expect(session.clients[1].endReason == nil)
            session.clients[1].submit(1, .stat)
            let stat = try #require(session.request())
            _ = session.server.post(.reply(stat.id, Response(.ok)))
            #expect(session.run { session.clients[1].replies[1] != nil })
            session.end()
        }

        @Test func garbageEndsItsSessionAlone() throws {
            let session = try VerbsSession(clients: 2)
            #expect(try session.open())
            var header = FrameHeader(.get, requestNumber: 1)
            header.isReply = true
            session.clients[0].link?.queue(header, payload: nil) { $0.raw([1, 2, 3]) }
            #expect(session.run { session.clients[0].endReason != nil && session.host.closedCount == 1 })
            #expect(session.run { session.server.counters.framesMalformed == 1 })
            #expect(session.clients[1].endReason == nil)
            session.end()
        }

        @Test func aStoreWithoutRoomHoldsRequestsBack() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            session.host.takeNoRequests(true)
            for number in 1...UInt32(30) { session.client.submit(number, .stat) }
            #expect(session.run { session.server.verbsCounters.receiveCompletions > 0 })
            #expect(session.host.requests.isEmpty)
            session.host.takeNoRequests(false)
            #expect(session.run { session.host.requests.count == 30 })
            for request in session.host.requests { _ = session.server.post(.reply(request.id, Response(.ok))) }
            #expect(session.run { session.client.replies.count == 30 })
            session.end()
        }

        @Test func aClientThatCannotBeReachedTakesNobodysPlace() throws {
            var limits = ServerLimits.standard
            limits.sessionsMax = 2
            let session = try VerbsSession(limits: limits)
            let before = VerbsLiveObjects.now
            // An address for documentation, to which no route leads (RFC 5737).
            let nowhere: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 203, 0, 113, 7]
            session.client.claimed = VerbsParameters(
                pair: 0x11, packetNumber: 1, address: nowhere, localIdentifier: 0, mtuBytes: 1024,
                messageBytesMax: 1 << 20, readsAsInitiator: 16, readsAsResponder: 16, receiveCount: 64,
                receiveBytes: 4096)
            for round in 1...4 {
                try session.client.connect(to: session.server)
                #expect(session.run { session.client.endReason != nil })
                session.client.vanish()
                #expect(session.run { session.host.closedCount == round })
                #expect(session.run { session.server.verbsCounters.pairsRefused == round })
            }
            #expect(session.run { session.server.counters.connectionsOpen == 0 })
            #expect(VerbsLiveObjects.now == before)
            session.client.claimed = nil
            #expect(try session.open())
            session.end()
        }

        @Test func whoAsksAndTakesNoAnswersIsNotServed() async throws {
            var limits = ServerLimits.standard
            limits.stallLimit = Duration(seconds: 1)
            var few = VerbsSettings.lab
            few.receiveCount = 16
            let session = try VerbsSession(clientSettings: few, limits: limits)
            #expect(try session.open())
            let link = try #require(session.client.link)
            // More messages than the client has receives, which it never posts again.
            session.client.submit(1, .stat)
            _ = link.flush { _ in }
            let first = try #require(session.host.firstRequest(within: Duration(seconds: 60)))
            _ = session.server.post(.reply(first, Response(.ok, .text([UInt8](repeating: 32, count: 200 << 10)))))
            // It asks on, five times in each such limit, as long as it has room to.
            var answered = 1
            for number in 2...UInt32(14) where session.host.closedCount == 0 {
                session.client.submit(number, .stat)
                _ = link.flush { _ in }
                let next = MonotonicClock.now + Duration(milliseconds: 200)
                while MonotonicClock.now < next, session.host.closedCount == 0 {
                    for request in session.host.requests.dropFirst(answered) {
                        _ = session.server.post(.reply(request.id, Response(.ok)))
                        answered += 1
                    }
                }
            }
            #expect(session.host.closedCount == 1)
            // Counters are shown a few times a second.
            #expect(await eventually { session.server.counters.deadlinesPassed == 1 })
            session.end()
        }

        @Test func anAdapterThatCannotBeWaitedForEndsItsSessionsAlone() throws {
            let session = try VerbsSession()
            let before = VerbsLiveObjects.now
            #expect(try session.open())
            let inputOutputError: Int32 = 5
            session.server.completions.armFault.store(inputOutputError, ordering: .relaxed)
            // The request wakes the server's thread, which cannot sleep again.
            session.client.submit(1, .stat)
            let stat = try #require(session.request())
            #expect(session.run { session.client.endReason != nil })
            _ = session.server.post(.reply(stat.id, Response(.ok)))
            #expect(session.run { session.host.closedCount == 1 })
            session.client.vanish()
            #expect(session.run { VerbsLiveObjects.now == before })
            // Whoever comes finds the adapter as it then is.
            session.server.completions.armFault.store(0, ordering: .relaxed)
            #expect(try session.open())
            session.client.put(1, name, from: mebibyte)
            let put = try #require(session.request(1))
            _ = session.server.post(.receive(put.id, into: mebibyte))
            #expect(session.run { session.host.received(put.id) == .whole })
            _ = session.server.post(.reply(put.id, Response(.ok)))
            #expect(session.run { session.client.replies[1]?.status == .ok })
            session.end()
            #expect(session.host.closedCount == 2)
        }

        @Test func aClientWhoseAdapterCannotBeWaitedForGoesAnotherWay() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            session.client.port.completions.armFault.store(5, ordering: .relaxed)
            // It arms the queue when it has nothing to do.
            #expect(
                session.run {
                    _ = session.client.link?.wantsTurn
                    return session.client.endReason != nil
                })
            #expect(session.run { session.host.closedCount == 1 })
            session.client.port.completions.armFault.store(0, ordering: .relaxed)
            #expect(try session.open())
            session.end()
        }

        @Test func aServerWithoutRoomRefusesAndServesTheOthers() throws {
            var limits = ServerLimits.standard
            limits.sessionsMax = 2
            let session = try VerbsSession(clients: 3, limits: limits)
            for client in session.clients.prefix(2) { try client.connect(to: session.server) }
            #expect(session.run { session.clients.prefix(2).allSatisfy(\.isOpen) })
            try session.clients[2].connect(to: session.server)
            #expect(session.run { session.clients[2].endReason != nil })
            #expect(session.run { session.server.verbsCounters.pairsRefused == 1 })
            session.end()
        }

        @Test func sixtyFourClientsAreServedTogether() throws {
            let bytes = 64 << 10
            let before = VerbsLiveObjects.now
            do {
                let session = try VerbsSession(clients: 64, storeBytes: 64 * bytes, clientBytes: 2 * bytes)
                #expect(try session.open())
                for (index, client) in session.clients.enumerated() {
                    fill(client.memory, MemorySlice(offset: 0, count: bytes), with: UInt8(index + 1))
                    client.put(1, name, from: MemorySlice(offset: 0, count: bytes))
                }
                #expect(session.run { session.host.requests.count == 64 })
                let puts = session.host.requests
                for (index, put) in puts.enumerated() {
                    _ = session.server.post(.receive(put.id, into: MemorySlice(offset: index * bytes, count: bytes)))
                }
                #expect(session.run { puts.allSatisfy { session.host.received($0.id) == .whole } })
                for put in puts { _ = session.server.post(.reply(put.id, Response(.ok))) }
                #expect(session.run { session.clients.allSatisfy { $0.replies[1] != nil } })
                // Each gets back what it put, and nobody else's.
                for client in session.clients {
                    client.submit(2, .get(1, name), slot: MemorySlice(offset: bytes, count: bytes))
                }
                #expect(session.run { session.host.requests.count == 128 })
                for get in session.host.requests.suffix(64) {
                    let place = puts.firstIndex { $0.id.session == get.id.session }!
                    _ = session.server.post(
                        .send(get.id, session.object(bytes), from: MemorySlice(offset: place * bytes, count: bytes)))
                }
                #expect(session.run { session.clients.allSatisfy { $0.replies[2] != nil } })
                for (index, client) in session.clients.enumerated() {
                    #expect(holds(client.memory, MemorySlice(offset: bytes, count: bytes), only: UInt8(index + 1)))
                }
                session.end()
                #expect(session.host.openedCount == 64)
                #expect(session.host.closedCount == 64)
            }
            #expect(VerbsLiveObjects.now == before)
        }

        @Test func anIdleServerSleepsAndIsWoken() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            for round in 0..<3 {
                // What comes while it sleeps is told by the event channel; 50 µs after its last work it sleeps again.
                let sleeps = session.server.verbsCounters.sleeps
                session.client.submit(1, .stat)
                let stat = try #require(session.request(round))
                _ = session.server.post(.reply(stat.id, Response(.ok)))
                #expect(session.run { session.client.replies[1] != nil })
                #expect(session.run { session.server.verbsCounters.sleeps > sleeps })
                session.client.replies = [:]
            }
            session.end()
        }
    }
}
