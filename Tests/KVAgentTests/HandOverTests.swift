// Host-owned engines over a real agent: what one writes in place another reads in place, and nothing is copied.

import CKernel
import Foundation
import Glibc
import KVAgent
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite(.serialized) struct HandOverTests: SidecarBench {
    private func withSidecar(
        _ change: (inout AgentConfiguration) -> Void = { _ in }, secret: [UInt8] = [],
        _ body: (AgentSidecar) throws -> Void
    ) throws {
        try withSidecar(of: .host, secret: secret, device: nil, change, body)
    }

    private func engine(_ sidecar: AgentSidecar, _ access: EngineArenaAccess = .writing) throws -> EngineClient {
        let client = try engine(sidecar, kind: "lmcache", .host, access)
        #expect(Sample.wait { client.arena != nil })
        return client
    }

    private func take(
        _ client: EngineClient, _ names: [ObjectName], isVerified: Bool = true, lifetime: Duration = .zero,
        request: EngineTicket = 0
    ) -> EngineLease? {
        let box = Box<EngineLease?>()
        client.take(
            request == 0 ? names : [], first: 0, count: names.count, request: request, isVerified: isVerified,
            lifetime: lifetime
        ) { box.set($0) }
        return box.wait() ?? nil
    }

    /// Writes blocks in place: block i holds the byte `value` + i. How many are kept.
    private func write(_ client: EngineClient, _ names: [ObjectName], value: UInt8 = 1) -> Int {
        var kept = 0
        var first = 0
        while first < names.count {
            guard let reservation = reserve(client, names.count - first) else { return kept }
            let count = reservation.reserved.slots.count
            for index in 0..<count {
                let byte = value &+ UInt8(truncatingIfNeeded: first + index)
                #expect(unsafe reservation.fill(index) { unsafe $0.initializeMemory(as: UInt8.self, repeating: byte) })
            }
            kept += commit(reservation, 0..<count, Array(names[..<(first + count)]))?.keptCount ?? 0
            first += count
        }
        return kept
    }

    private func release(_ lease: EngineLease) -> Bool? {
        let box = Box<Bool?>()
        lease.release { box.set($0) }
        return box.wait() ?? nil
    }

    @Test func whatOneEngineCommitsAnotherReadsInPlaceWithoutACopy() throws {
        try withSidecar { sidecar in
            let (one, other) = (try engine(sidecar), try engine(sidecar, .reading))
            defer { _ = (one.close(), other.close()) }
            let names = Sample.names(1, 6)
            let reservation = try #require(reserve(one, 6))
            #expect(reservation.reserved.slots.count == 6)
            #expect(try status(sidecar).reservedBytes == 6 * Sample.blockBytes)
            for index in 0..<6 {
                #expect(
                    unsafe reservation.fill(index) {
                        unsafe $0.initializeMemory(as: UInt8.self, repeating: UInt8(index + 1))
                    })
            }
            // Visible last: nobody finds what nobody named.
            #expect(take(other, names) == nil)
            #expect(commit(reservation, 0..<4, Array(names[..<4]))?.keptCount == 4)
            #expect(reservation.isInForce)
            #expect(commit(reservation, 4..<6, names)?.keptCount == 2)
            // A reservation ends with its last slot.
            #expect(!reservation.isInForce)
            for isVerified in [true, false] {
                let lease = try #require(take(other, names, isVerified: isVerified))
                #expect(lease.taken.blocks.map(\.slot) == reservation.reserved.slots)
                for index in 0..<6 { #expect(holds(lease, index, UInt8(index + 1))) }
                var copy = [UInt8](repeating: 0, count: Sample.blockBytes)
                #expect(unsafe copy.withUnsafeMutableBytes { unsafe lease.copy(2, named: names[2], to: $0) })
                #expect(copy[0] == 3)
                #expect(unsafe !copy.withUnsafeMutableBytes { unsafe lease.copy(2, named: names[1], to: $0) })
                #expect(release(lease) == true)
                #expect(!lease.isInForce && release(lease) == false)
            }
            let status = try status(sidecar)
            #expect(status.totals["bytes_out_of_engine"] == 0 && status.totals["bytes_into_engine"] == 0)
            #expect(status.handOver["blocks_adopted_total"] == 6 && status.handOver["blocks_lent_total"] == 12)
            #expect(status.handOver["blocks_verified_total"] == 6)
            #expect(status.loans == 0 && status.loanedBytes == 0)
            #expect(
                AgentMetrics.text(sidecar).contains("holdfast_handover_bytes_lent_total \(12 * Sample.blockBytes)\n"))
        }
    }

    @Test func aLeaseIsReadLayerByLayer() throws {
        try withSidecar { sidecar in
            let client = try engine(sidecar)
            defer { client.close() }
            let names = Sample.names(7, 3)
            let reservation = try #require(reserve(client, 3))
            // Two layers: keys in the first half of a block, values in the second. Their bytes say block and layer.
            let quarter = Sample.blockBytes / 4
            for index in 0..<3 {
                _ = unsafe reservation.fill(index) { block in
                    for part in 0..<4 {
                        unsafe UnsafeMutableRawBufferPointer(rebasing: block[part * quarter..<(part + 1) * quarter])
                            .initializeMemory(as: UInt8.self, repeating: UInt8(index * 2 + part % 2))
                    }
                }
            }
            #expect(commit(reservation, 0..<3, names)?.keptCount == 3)
            let layers = (0..<2).map { layer in [0, 2].map { ($0 + layer) * quarter..<($0 + layer + 1) * quarter } }

            let lease = try #require(take(client, names))
            var order: [String] = []
            let count = unsafe lease.readLayers(layers) { layer, block, bytes in
                let isRight = unsafe bytes.count == quarter && bytes.allSatisfy { $0 == UInt8(block * 2 + layer) }
                order.append("\(layer).\(block)\(isRight ? "" : " is wrong")")
            } isRead: {
                order.append("\($0) is read")
            }
            #expect(count == 2)
            #expect(
                order == [
                    "0.0", "0.0", "0.1", "0.1", "0.2", "0.2", "0 is read", "1.0", "1.0", "1.1", "1.1", "1.2", "1.2",
                    "1 is read",
                ])
            // A lease that ends behind the first layer leaves the second unread, though its bytes were looked at.
            var read: [Int] = []
            let one = unsafe lease.readLayers(layers) { layer, block, _ in
                if layer == 1, block == 2, lease.isInForce { #expect(release(lease) == true) }
            } isRead: {
                read.append($0)
            }
            #expect(one == 1 && read == [0])
            #expect(unsafe lease.readLayers(layers, read: { _, _, _ in }, isRead: { _ in }) == 0)
        }
    }

    @Test func aLeaseEndsWithItsRequest() throws {
        try withSidecar { sidecar in
            let client = try engine(sidecar)
            defer { client.close() }
            let names = Sample.names(2, 5)
            #expect(write(client, names) == 5)
            let found = Box<EngineFound>()
            let ticket = client.lookUp(names, promptTokens: 81) { found.set($0) }
            #expect(found.wait()?.hitBlocks == 5)
            let lease = try #require(take(client, names, request: ticket))
            #expect(lease.taken.blocks.count == 5 && lease.isInForce)
            client.finished(EngineRequestEnd(ticket: ticket))
            #expect(Sample.wait { !lease.isInForce })
            let status = try status(sidecar)
            #expect(status.ledger["dram"] == 80 && status.loanedBytes == 0)
        }
    }

    @Test func whatIsHeldTooLongComesBackAndItsHolderSeesIt() throws {
        try withSidecar { sidecar in
            let client = try engine(sidecar)
            defer { client.close() }
            let names = Sample.names(3, 4)
            #expect(write(client, names) == 4)
            let lease = try #require(take(client, names, lifetime: Duration(milliseconds: 20)))
            let reservation = try #require(reserve(client, 4, lifetime: Duration(milliseconds: 20)))
            #expect(Sample.wait { !lease.isInForce && !reservation.isInForce })
            // What was read may be anything: nothing is given out of it, and nothing goes in.
            #expect(unsafe lease.read(0) { _ in true } == nil)
            #expect(unsafe !reservation.fill(0) { _ in })
            #expect(release(lease) == false)
            let late = Sample.names(4, 4)
            #expect(commit(reservation, 0..<4, late)?.keptCount == 0)
            #expect(take(client, late) == nil)
            let status = try status(sidecar)
            #expect(status.handOver["loans_expired_total"] == 2 && status.handOver["stale_words_total"] == 2)
            #expect(status.loans == 0 && status.loanedBytes == 0 && status.dram.usedBytes == 4 * Sample.blockBytes)
        }
    }

    @Test func whatADeadEngineHeldComesBack() throws {
        try withSidecar { sidecar in
            let (one, other) = (try engine(sidecar), try engine(sidecar))
            defer { other.close() }
            let names = Sample.names(5, 4)
            #expect(write(one, names) == 4)
            let lease = try #require(take(one, names))
            let reservation = try #require(reserve(one, 7))
            #expect(try status(sidecar).loanedBytes == 11 * Sample.blockBytes)
            one.abandon()
            #expect(Sample.wait { !lease.isInForce && !reservation.isInForce })
            #expect(Sample.wait { sidecar.view.leaving == 0 })
            let status = try status(sidecar)
            #expect(status.loans == 0 && status.reservedBytes == 0 && status.handOver["loans_orphaned_total"] == 2)
            #expect(status.dram.usedBytes == 4 * Sample.blockBytes)
            #expect(take(other, names)?.taken.blocks.count == 4)
        }
    }

    @Test func aLentSlotIsNeverUsedAgainAndAFullArenaSaysSo() throws {
        try withSidecar({ $0.dram = 1 << 20 }) { sidecar in
            let client = try engine(sidecar)
            defer { client.close() }
            let names = Sample.names(6, 10)
            #expect(write(client, names, value: 100) == 10)
            let lease = try #require(take(client, names))
            #expect(lease.taken.blocks.count == 10)
            // Many times what the arena holds, piece by piece.
            for round in 0..<60 {
                #expect(write(client, Sample.names(UInt64(1_000 + round), 20), value: 1) > 0)
                #expect(lease.isInForce)
                for index in [0, 4, 9] { #expect(holds(lease, index, 100 + UInt8(index))) }
            }
            let all = try #require(reserve(client, 16_384))
            let status = try status(sidecar)
            // 256 slots, 26 of them for what passes through, half of those for engines.
            #expect(all.reserved.slots.count == 3 && status.loanedBytes == 13 * Sample.blockBytes)
            #expect(Set(all.reserved.slots).isDisjoint(with: lease.taken.blocks.map(\.slot)))
            #expect(status.dram.usedBytes <= status.dram.totalBytes)
            for index in 0..<10 { #expect(holds(lease, index, 100 + UInt8(index))) }
        }
    }

    @Test func aCommitOfSlotsThatAreNotItsOwnKeepsNothing() throws {
        try withSidecar { sidecar in
            let (one, other) = (try engine(sidecar), try engine(sidecar))
            defer { _ = (one.close(), other.close()) }
            let mine = try #require(reserve(one, 3)), theirs = try #require(reserve(other, 3))
            let names = Sample.names(7, 2)
            func commit(_ client: EngineClient, _ loan: EngineLoan, _ slots: [UInt32]) -> Int? {
                let box = Box<EngineSaved>()
                client.commit(loan, slots: slots, names) { box.set($0) }
                return box.wait()?.keptCount
            }
            #expect(commit(one, mine.reserved.loan, theirs.reserved.slots.dropLast()) == 0)
            #expect(commit(one, theirs.reserved.loan, theirs.reserved.slots.dropLast()) == 0)
            #expect(commit(one, mine.reserved.loan, [mine.reserved.slots[0], mine.reserved.slots[0]]) == 0)
            #expect(commit(one, mine.reserved.loan, [mine.reserved.slots[0], 4_000_000]) == 0)
            #expect(take(other, names) == nil)
            // Its own are still its own.
            #expect(mine.isInForce && commit(one, mine.reserved.loan, mine.reserved.slots.dropLast()) == 2)
            let released = Box<Bool?>()
            theirs.release { released.set($0) }
            #expect(released.wait() == true)
            #expect(try status(sidecar).reservedBytes == Sample.blockBytes)
        }
    }

    @Test func whatAnEngineScribblesOverIsAMiss() throws {
        try withSidecar { sidecar in
            let (one, other) = (try engine(sidecar), try engine(sidecar, .reading))
            defer { _ = (one.close(), other.close()) }
            let names = Sample.names(8, 6)
            let reservation = try #require(reserve(one, 6))
            #expect(commit(reservation, 0..<6, names)?.keptCount == 6)
            // A mistake of an engine that maps the arena for writing: it goes on after its commit.
            let memory = try #require(sidecar.agent?.memory)
            let slot = Int(reservation.reserved.slots[3]) * Sample.blockBytes
            unsafe memory[MemorySlice(offset: slot, count: 1)][0] ^= 1
            // Without the agent's look at it, the reader's own finds it.
            let lease = try #require(take(other, names, isVerified: false))
            var copy = [UInt8](repeating: 0, count: Sample.blockBytes)
            #expect(unsafe copy.withUnsafeMutableBytes { unsafe lease.copy(2, named: names[2], to: $0) })
            #expect(unsafe !copy.withUnsafeMutableBytes { unsafe lease.copy(3, named: names[3], to: $0) })
            #expect(release(lease) == true)
            #expect(take(other, names)?.taken.blocks.count == 3)
            // Found once, it is nobody's any more.
            #expect(take(other, names, isVerified: false)?.taken.blocks.count == 3)
            #expect(try status(sidecar).handOver["blocks_damaged_total"] == 1)
        }
    }

    @Test func aLeaseBringsUpWhatIsOnlyInTheStore() throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder)
        let names = Sample.names(9, 20)
        try withSidecar(store.name(in:), secret: store.secret) { sidecar in
            let client = try engine(sidecar)
            defer { client.close() }
            #expect(write(client, names, value: 50) == 20)
            #expect(Sample.wait { sidecar.agent?.status.totals["blocks_store_put"] == 20 })
        }
        try withSidecar(store.name(in:), secret: store.secret) { sidecar in
            let client = try engine(sidecar, .reading)
            defer { client.close() }
            let lease = try #require(take(client, names))
            #expect(lease.taken.blocks.count == 20)
            for index in 0..<20 { #expect(holds(lease, index, 50 + UInt8(index))) }
            let status = try status(sidecar)
            #expect(status.totals["blocks_store_get"] == 20 && status.totals["bytes_into_engine"] == 0)
        }
    }

    /// Sends frames over a connection of its own; what the agent refuses them with.
    private func refusal(
        _ sidecar: AgentSidecar, _ ownership: Ownership, _ frames: [EngineFrame]
    ) throws -> (EngineRefusal?, [Int32]) {
        let descriptor = unsafe hf_unix_connect(sidecar.configuration.socket)
        #expect(descriptor >= 0)
        let stream = EngineStream(descriptor)
        stream.bodyBytesMax = EngineProtocol.bodyBytesMax
        var hello = Sample.hello()
        hello.ownership = ownership
        stream.queue(.hello(try Sample.greeting(hello)), at: .zero)
        for frame in frames { stream.queue(frame, at: .zero) }
        #expect(stream.flush())
        var passed: [Int32] = []
        for _ in 0..<10_000 {
            stream.becameReadable()
            stream.beginTurn()
            while case .frame(let header, let body) = try stream.next() {
                switch unsafe try EngineFrame(header, body: body, at: .zero) {
                case .refused(_, let refusal): return (refusal, passed)
                case .arenaOpened: passed = [stream.takeDescriptor(), stream.takeDescriptor()].compactMap { $0 }
                case .pong: return (nil, passed)
                default: break
                }
            }
            usleep(500)
        }
        return (nil, passed)
    }

    @Test func onlyHostOwnedEnginesMapTheArenaAndReadersCannotWrite() throws {
        try withSidecar { sidecar in
            let take = EngineFrame.take(EngineTake(job: 1, names: Sample.names(1, 1), first: 0, count: 1))
            let reserve = EngineFrame.reserve(EngineReserve(job: 2, count: 1))
            let (reading, writing) = (EngineFrame.openArena(isWritable: false), EngineFrame.openArena(isWritable: true))
            func reason(_ ownership: Ownership, _ frames: [EngineFrame]) throws -> String {
                try refusal(sidecar, ownership, frames).0?.reason ?? "none"
            }
            #expect(try reason(.engine, [reading]).contains("owns its host tier"))
            #expect(try reason(.host, [take]).contains("before ARENA"))
            #expect(try reason(.host, [reading, reserve]).contains("for reading"))
            #expect(try reason(.host, [writing, writing]).contains("open already"))
            let (refused, passed) = try refusal(sidecar, .host, [reading, .ping(9, [])])
            #expect(refused == nil && passed.count == 2)
            for descriptor in passed {
                var address: UnsafeMutableRawPointer?
                #expect(unsafe hf_map_shared(descriptor, 4096, 1, &address) == -EACCES)
                #expect(unsafe hf_map_shared(descriptor, 4096, 0, &address) == 0)
                unsafe hf_unmap(address, 4096)
                hf_close(descriptor)
            }
        }
    }

    @Test func leasesAndReservationsDoNotLeakDescriptors() throws {
        try withSidecar { sidecar in
            try engine(sidecar).close()
            #expect(Sample.wait { sidecar.view.engines.isEmpty && sidecar.view.leaving == 0 })
            let before = mappings()
            for _ in 0..<20 { try engine(sidecar).close() }
            #expect(Sample.wait { sidecar.view.engines.isEmpty && sidecar.view.leaving == 0 })
            #expect(mappings() <= before)
        }
    }

    /// Mappings of arenas in this process. Other suites have some of their own, so that only a large number says anything.
    private func mappings() -> Int {
        let maps = (try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8)) ?? ""
        return maps.split(separator: "\n").count { $0.contains("memfd:holdfast-") } / 20
    }
}
