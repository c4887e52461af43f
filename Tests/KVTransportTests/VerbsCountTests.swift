// What a block costs the adapter: counts, which hold on every adapter; an emulated one says nothing about speed.

import KVModel
import KVSystem
import KVTransport
import Testing

extension VerbsTests {
    @Suite(.serialized) struct Counts {
        private let name = ObjectName(FullKey(1, 2, 3, 4))
        private let bytes = 1 << 20
        private let rounds = 16

        /// What the store's side has done between two looks.
        private func difference(_ after: VerbsCounters, _ before: VerbsCounters) -> VerbsCounters {
            var difference = VerbsCounters()
            for field in VerbsCounters.fields {
                difference[keyPath: field.path] = after[keyPath: field.path] - before[keyPath: field.path]
            }
            return difference
        }

        /// The counters once they say that this many blocks went.
        private func settled(_ session: VerbsSession, _ path: KeyPath<VerbsCounters, UInt64>, _ count: UInt64)
            -> VerbsCounters
        {
            #expect(session.run { session.server.verbsCounters[keyPath: path] >= count })
            return session.server.verbsCounters
        }

        @Test func aGetNeedsWhatAWriteOfPerftestNeeds() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            session.client.submit(1, .stat)
            _ = session.server.post(.reply(try #require(session.request()).id, Response(.ok)))
            #expect(session.run { session.client.replies[1] != nil })
            let before = settled(session, \.sendCompletions, 1)
            for round in 0..<rounds {
                let number = UInt32(round + 2)
                session.client.submit(number, .get(1, name), slot: MemorySlice(offset: 0, count: bytes))
                let get = try #require(session.request(round + 1))
                _ = session.server.post(
                    .send(get.id, session.object(bytes), from: MemorySlice(offset: 0, count: bytes)))
                #expect(session.run { session.client.replies[number] != nil })
            }
            let cost = difference(settled(session, \.sendCompletions, UInt64(rounds + 1)), before)
            // ib_write_bw: one work request, one doorbell, one completion a message.
            #expect(cost.writes == rounds)
            #expect(cost.sendDoorbells <= rounds)
            #expect(cost.sendCompletions <= rounds)
            #expect(cost.payloadBytes == rounds * bytes)
            #expect(cost.frameBytesCopied < rounds * 256)
            print(
                "get of 1 MiB: \(cost.writes / UInt64(rounds)) WRITE + \(cost.sends / UInt64(rounds)) SEND,",
                "\(cost.sendDoorbells / UInt64(rounds)) doorbell, \(cost.sendCompletions / UInt64(rounds)) completion,",
                "0 payload bytes copied, \(cost.frameBytesCopied / UInt64(rounds)) bytes of frames copied")
            session.end()
        }

        @Test func aPutNeedsWhatAReadOfPerftestNeedsAndItsReply() throws {
            let session = try VerbsSession()
            #expect(try session.open())
            session.client.submit(1, .stat)
            _ = session.server.post(.reply(try #require(session.request()).id, Response(.ok)))
            #expect(session.run { session.client.replies[1] != nil })
            let before = settled(session, \.sendCompletions, 1)
            for round in 0..<rounds {
                let number = UInt32(round + 2)
                session.client.put(number, name, from: MemorySlice(offset: 0, count: bytes))
                let put = try #require(session.request(round + 1))
                _ = session.server.post(.receive(put.id, into: MemorySlice(offset: 0, count: bytes)))
                #expect(session.run { session.host.received(put.id) == .whole })
                _ = session.server.post(.reply(put.id, Response(.ok)))
                #expect(session.run { session.client.replies[number] != nil })
            }
            let cost = difference(settled(session, \.sendCompletions, UInt64(2 * rounds + 1)), before)
            // ib_read_bw: one work request, one doorbell, one completion a message; the reply is one more of each.
            #expect(cost.reads == rounds)
            #expect(cost.sendDoorbells - cost.sends <= rounds)
            #expect(cost.sendCompletions - cost.sends <= rounds)
            #expect(cost.payloadBytes == rounds * bytes)
            #expect(cost.frameBytesCopied < rounds * 256)
            print(
                "put of 1 MiB: \(cost.reads / UInt64(rounds)) READ + \(cost.sends / UInt64(rounds)) SEND,",
                "\(cost.sendDoorbells / UInt64(rounds)) doorbells,",
                "\(cost.sendCompletions / UInt64(rounds)) completions,",
                "0 payload bytes copied, \(cost.frameBytesCopied / UInt64(rounds)) bytes of frames copied")
            session.end()
        }
    }
}
