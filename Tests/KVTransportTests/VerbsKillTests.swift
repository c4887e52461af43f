// Ends killed with SIGKILL in the middle of RDMA: the other end is a process of its own, which this one starts again as
// the test that plays its part.

import Foundation
import KVModel
import KVSystem
import KVTransport
import Testing

extension VerbsTests {
    @Suite(.serialized) struct Kills {
        private static let partVariable = "HOLDFAST_VERBS_PART"
        private static let placeVariable = "HOLDFAST_VERBS_PLACE"
        private static let name = ObjectName(FullKey(1, 2, 3, 4))
        private static let bytes = 512 << 10
        private static let slotCount = 6

        private static func slot(_ index: Int) -> MemorySlice { MemorySlice(offset: index * bytes, count: bytes) }

        /// Starts this program as the test `part`; `place` tells it where things are.
        private func start(_ part: String, place: String) throws -> Process {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            process.arguments = ["--testing-library", "swift-testing", "--filter", "VerbsTests.Kills.play"]
            process.environment = ProcessInfo.processInfo.environment
                .merging([Self.partVariable: part, Self.placeVariable: place]) { $1 }
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            return process
        }

        /// Not a test of this process: the parts that the others play.
        @Test func playAPart() throws {
            let environment = ProcessInfo.processInfo.environment
            guard let place = environment[Self.placeVariable] else { return }
            switch environment[Self.partVariable] {
            case "client": try playClient(port: try #require(UInt16(place)))
            case "store": try playStore(tellingPortIn: place)
            default: return
            }
        }

        /// Puts all it has, again and again.
        private func playClient(port: UInt16) throws {
            let client = try ScriptedClient()
            let address = try VerbsDevice(VerbsPlace(device: VerbsDevice.names.last!)).port.addressText
            try client.connect(host: address, port: port)
            var number: UInt32 = 0
            while client.endReason == nil {
                client.turn()
                guard client.isOpen, client.replies.count == Int(number) else { continue }
                for index in 0..<Self.slotCount {
                    number += 1
                    client.put(number, Self.name, from: Self.slot(index))
                }
            }
        }

        /// Answers every get with a payload.
        private func playStore(tellingPortIn path: String) throws {
            let session = try VerbsSession(clients: 0)
            fill(session.host.memory, MemorySlice(offset: 0, count: Self.slotCount * Self.bytes), with: 5)
            try "\(session.server.port)".write(toFile: path, atomically: true, encoding: .utf8)
            var answered = 0
            while true {
                for request in session.host.requests.dropFirst(answered) {
                    answered += 1
                    _ = session.server.post(
                        .send(request.id, session.object(Self.bytes), from: Self.slot(answered % Self.slotCount)))
                }
            }
        }

        @Test(arguments: 0..<4)
        func aClientKilledInTheMiddleOfREADsLeavesNothing(readsBefore: Int) throws {
            let session = try VerbsSession(clients: 0)
            let before = VerbsLiveObjects.now
            let process = try start("client", place: "\(session.server.port)")
            defer { process.terminate() }
            #expect(session.run { session.host.requests.count == Self.slotCount })
            let puts = session.host.requests
            for (index, put) in puts.enumerated() {
                _ = session.server.post(.receive(put.id, into: Self.slot(index)))
            }
            // Some READs are through, others are under way.
            #expect(session.run { puts.count { session.host.received($0.id) != nil } >= readsBefore })
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            // Every buffer comes back, whole or not, and the session ends when every put was answered.
            #expect(session.run { puts.allSatisfy { session.host.received($0.id) != nil } })
            #expect(puts.allSatisfy { session.host.received($0.id) != .corrupt })
            for put in puts { _ = session.server.post(.reply(put.id, Response(.ok))) }
            #expect(session.run { session.host.closedCount == 1 })
            #expect(VerbsLiveObjects.now == before)
            session.server.shutDown()
        }

        @Test(arguments: 0..<4)
        func aStoreKilledInTheMiddleOfWRITEsIsSeenAndWritesNoMore(repliesBefore: Int) throws {
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: folder) }
            let file = folder.appendingPathComponent("port")
            let client = try ScriptedClient()
            let process = try start("store", place: file.path)
            defer { process.terminate() }
            func run(_ isDone: () -> Bool) -> Bool {
                let deadline = MonotonicClock.now + Duration(seconds: 60)
                while !isDone() {
                    guard MonotonicClock.now < deadline else { return false }
                    client.turn()
                }
                return true
            }
            var port: UInt16?
            #expect(
                run {
                    port = (try? String(contentsOf: file, encoding: .utf8)).flatMap(UInt16.init)
                    return port != nil
                })
            let address = try VerbsDevice(VerbsPlace(device: VerbsDevice.names.last!)).port.addressText
            try client.connect(host: address, port: try #require(port))
            #expect(run { client.isOpen })
            for index in 0..<Self.slotCount {
                client.submit(UInt32(index + 1), .get(1, Self.name), slot: Self.slot(index))
            }
            #expect(run { client.replies.count >= repliesBefore })
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
            #expect(run { client.endReason != nil })
            // What was answered is whole; what was not may hold anything, and nothing comes any more.
            for index in 0..<Self.slotCount where client.replies[UInt32(index + 1)] != nil {
                #expect(holds(client.memory, Self.slot(index), only: 5))
            }
            for index in 0..<Self.slotCount { fill(client.memory, Self.slot(index), with: 1) }
            let server = try VerbsSession(clients: 0)
            try client.connect(to: server.server)
            #expect(run { client.isOpen })
            #expect((0..<Self.slotCount).allSatisfy { holds(client.memory, Self.slot($0), only: 1) })
            client.close()
            server.end()
        }
    }
}
