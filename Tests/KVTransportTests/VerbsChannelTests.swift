// The RDMA safety rules, each on real queue pairs.

import KVModel
import KVSystem
import KVTransport
import Testing

extension VerbsTests {
    @Suite(.serialized) struct Channels {
        private func frame(_ number: UInt32) -> FrameHeader { FrameHeader(.stat, requestNumber: number) }

        @Test func addressesAreChosenByKind() throws {
            for name in VerbsDevice.names {
                let byName = try VerbsDevice(VerbsPlace(device: name)).port
                #expect(byName.device == name)
                // In the lab index 0 is a link-local IPv6 address.
                #expect(byName.addressText.split(separator: ".").count == 4)
                let byAddress = try VerbsDevice(VerbsPlace(address: byName.addressText)).port
                #expect(byAddress == byName)
            }
            let error = #expect(throws: OperatorError.self) { try VerbsDevice(VerbsPlace(address: "203.0.113.9")) }
            #expect(error?.description.contains("address") == true)
        }

        @Test func framesOfAllLengthsCrossInOrder() throws {
            let couple = try VerbsCouple()
            let lengths = [0, 1, 100, 4064, 4065, 10_000, 100_000]
            for (index, length) in lengths.enumerated() {
                couple.fromClient.send(frame(UInt32(index))) { $0.raw(repeatElement(UInt8(index + 1), count: length)) }
            }
            #expect(try couple.run { couple.store.frames.count == lengths.count })
            for (index, length) in lengths.enumerated() {
                #expect(couple.store.frames[index].header.requestNumber == UInt32(index))
                #expect(couple.store.frames[index].body == Array(repeating: UInt8(index + 1), count: length))
            }
            #expect(try couple.end())
        }

        @Test func messagesAlwaysMeetAPostedReceive() throws {
            // Six receives an end and a hundred frames both ways at once. A message without a receive would fail the
            // pair: its retry count for "receiver not ready" is 0.
            var settings = VerbsSettings.lab
            settings.receiveCount = 6
            let couple = try VerbsCouple(client: settings)
            for number in 0..<UInt32(100) {
                couple.fromClient.send(frame(number)) { $0.raw(repeatElement(1, count: 3000)) }
                couple.fromStore.send(frame(number)) { $0.raw(repeatElement(2, count: 5000)) }
            }
            #expect(try couple.run { couple.store.frames.count == 100 && couple.client.frames.count == 100 })
            #expect(couple.fromClient.failure == nil)
            #expect(couple.fromStore.failure == nil)
            #expect(couple.store.frames.map(\.header.requestNumber) == Array(0..<100))
            #expect(try couple.end())
        }

        @Test func framesWaitWhileTheReceiverTakesNone() throws {
            let couple = try VerbsCouple()
            couple.store.takesFrames = false
            for number in 0..<UInt32(200) {
                couple.fromClient.send(frame(number)) { $0.raw(repeatElement(7, count: 1000)) }
            }
            let before = couple.fromStore.counters.receiveCompletions
            #expect(try couple.run(seconds: 60) { couple.fromStore.counters.receiveCompletions - before >= 40 })
            #expect(couple.store.frames.isEmpty)
            couple.store.takesFrames = true
            #expect(try couple.run { couple.store.frames.count == 200 })
            #expect(couple.store.frames.map(\.header.requestNumber) == Array(0..<200))
            #expect(try couple.end())
        }

        @Test func payloadsAreWrittenBeforeTheirReply() throws {
            let couple = try VerbsCouple()
            couple.store.fill(0, 1 << 20, seed: 5)
            couple.fromStore.push(
                couple.store.buffer(0, 1 << 20), to: couple.client.slot(1 << 20, 1 << 20), number: 9, frame(9)
            ) { _ in }
            #expect(try couple.run { couple.client.frames.count == 1 })
            // The reply is here, so the payload is.
            #expect(couple.client.holds(1 << 20, 1 << 20, seed: 5))
            #expect(try couple.run { couple.store.pushedNumbers == [9] })
            #expect(couple.fromStore.counters.writes == 1)
            #expect(couple.fromStore.counters.sendDoorbells == 1)
            #expect(couple.fromStore.counters.payloadBytes == 1 << 20)
            #expect(try couple.end())
        }

        @Test func messagesAreCutAtTheSmallerPortsLimit() throws {
            var small = VerbsSettings.lab
            small.messageBytesMax = 64 << 10
            let couple = try VerbsCouple(client: small, store: .lab)
            couple.client.fill(0, 1_000_000, seed: 3)
            couple.fromStore.pull(
                into: couple.store.buffer(0, 1_000_000), from: couple.client.slot(0, 1_000_000), number: 1)
            #expect(try couple.run { couple.store.pulledNumbers == [1] })
            #expect(couple.store.holds(0, 1_000_000, seed: 3))
            #expect(couple.fromStore.counters.reads == 16)
            couple.fromStore.push(
                couple.store.buffer(0, 1_000_000), to: couple.client.slot(2 << 20, 1_000_000), number: 2, frame(2)
            ) { _ in }
            #expect(try couple.run { couple.store.pushedNumbers == [2] })
            #expect(couple.client.holds(2 << 20, 1_000_000, seed: 3))
            #expect(couple.fromStore.counters.writes == 16)
            #expect(try couple.end())
        }

        @Test func aRunOfWritesLongerThanTheQueueGetsThrough() throws {
            var small = VerbsSettings.lab
            small.messageBytesMax = 4096
            small.sendDepth = 8
            let couple = try VerbsCouple(client: small)
            couple.store.fill(0, 1 << 18, seed: 8)
            couple.fromStore.push(
                couple.store.buffer(0, 1 << 18), to: couple.client.slot(0, 1 << 18), number: 1, frame(1)
            ) { _ in }
            #expect(try couple.run { couple.store.pushedNumbers == [1] })
            #expect(couple.client.holds(0, 1 << 18, seed: 8))
            #expect(couple.fromStore.counters.writes == 64)
            #expect(try couple.end())
        }

        @Test func readsStayWithinWhatThePeerServes() throws {
            var few = VerbsSettings.lab
            few.readsMax = 2
            few.messageBytesMax = 64 << 10
            let couple = try VerbsCouple(client: few, store: .lab)
            couple.client.fill(0, 1 << 20, seed: 4)
            for number in 0..<UInt32(4) {
                couple.fromStore.pull(
                    into: couple.store.buffer(Int(number) << 18, 1 << 18),
                    from: couple.client.slot(Int(number) << 18, 1 << 18), number: number)
            }
            #expect(try couple.run { couple.store.pulledNumbers.count == 4 })
            #expect(couple.store.holds(0, 1 << 20, seed: 4))
            #expect(couple.fromStore.counters.readsOutstandingMax == 2)
            #expect(try couple.end())
        }

        @Test func theStoresMemoryIsNotExposed() throws {
            for isRead in [true, false] {
                let couple = try VerbsCouple()
                couple.store.fill(0, 4096, seed: 1)
                couple.client.fill(0, 4096, seed: 2)
                // A client that guessed address and key of the store's memory right.
                let target = RemoteSlot(
                    address: couple.store.address(0), key: couple.store.region.remoteKey, byteCount: 4096)
                if isRead {
                    couple.fromClient.pull(into: couple.client.buffer(0, 4096), from: target, number: 1)
                } else {
                    couple.fromClient.push(couple.client.buffer(0, 4096), to: target, number: 1, frame(1)) { _ in }
                }
                #expect(try couple.run { couple.fromClient.failure != nil })
                #expect(couple.client.pulledNumbers.isEmpty)
                #expect(couple.client.holds(0, 4096, seed: 2), "the client read the store's memory")
                #expect(couple.store.holds(0, 4096, seed: 1), "the client wrote the store's memory")
                #expect(try couple.end())
            }
        }

        @Test func aKeyOfOneStoreIsUselessOnAnothersPair() throws {
            let couple = try VerbsCouple()
            // The same client's memory, registered for another store in another domain.
            let other = try VerbsDomain(couple.client.device)
            let access: VerbsAccess = [.local, .peerReads, .peerWrites]
            let region = unsafe try VerbsRegion(
                other, couple.client.memory.regions[0], access, keeping: couple.client.memory)
            couple.client.fill(0, 4096, seed: 2)
            couple.store.fill(0, 4096, seed: 1)
            let slot = RemoteSlot(address: couple.client.address(0), key: region.remoteKey, byteCount: 4096)
            couple.fromStore.push(couple.store.buffer(0, 4096), to: slot, number: 1, frame(1)) { _ in }
            #expect(try couple.run { couple.fromStore.failure != nil })
            #expect(couple.client.holds(0, 4096, seed: 2))
            #expect(couple.client.frames.isEmpty)
            #expect(try couple.end())
        }

        @Test func nothingLandsAfterTheClientLeftRTS() throws {
            var impatient = VerbsSettings.lab
            impatient.timeout = 12
            impatient.retryCount = 1
            let couple = try VerbsCouple(client: .lab, store: impatient)
            couple.client.fill(0, 1 << 18, seed: 2)
            couple.store.fill(0, 1 << 18, seed: 1)
            couple.fromClient.fail("the client gives up")
            #expect(try couple.run { couple.fromClient.isDrained })
            // From here on the slot may serve another request.
            couple.fromStore.push(
                couple.store.buffer(0, 1 << 18), to: couple.client.slot(0, 1 << 18), number: 1, frame(1)
            ) { _ in }
            #expect(try couple.run { couple.fromStore.failure != nil && couple.fromStore.isDrained })
            #expect(couple.client.holds(0, 1 << 18, seed: 2))
            #expect(couple.store.pushedNumbers.isEmpty)
            #expect(try couple.end())
        }

        @Test func whatIsPostedComesBackWhenAPairEnds() throws {
            let couple = try VerbsCouple()
            for number in 0..<UInt32(8) {
                couple.fromStore.push(
                    couple.store.buffer(0, 1 << 18), to: couple.client.slot(0, 1 << 18), number: number, frame(number)
                ) { _ in }
                couple.fromStore.pull(
                    into: couple.store.buffer(1 << 20, 1 << 18), from: couple.client.slot(0, 1 << 18),
                    number: 100 + number)
            }
            try couple.store.turn()
            couple.fromStore.fail("cut in the middle")
            #expect(try couple.run { couple.fromStore.isDrained })
            #expect(try couple.end())
        }

        @Test func nothingOfManyPairsIsLeftBehind() throws {
            let before = VerbsLiveObjects.now
            for _ in 0..<20 {
                let couple = try VerbsCouple()
                couple.fromClient.send(frame(1)) { _ in }
                #expect(try couple.run { couple.store.frames.count == 1 })
                #expect(try couple.end())
            }
            #expect(VerbsLiveObjects.now == before)
        }

        @Test func aWrongDMABufferIsRefusedAndLeavesNothing() throws {
            let end = try VerbsEnd.client()
            let before = VerbsLiveObjects.now
            let error = #expect(throws: SystemError.self) {
                _ = try VerbsRegion(
                    end.domain, dmaBuffer: 0, offset: 0, byteCount: 2 << 20, address: 0, [.local, .peerWrites])
            }
            #expect(error?.doing.contains("GPU memory") == true)
            #expect(VerbsLiveObjects.now == before)
        }
    }
}
