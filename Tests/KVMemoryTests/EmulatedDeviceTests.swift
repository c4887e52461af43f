// What stands in for a GPU moves real bytes both ways, in order, checked, and honours the engine's fences.

import KVMemory
import KVModel
import KVSystem
import Testing

@Suite struct EmulatedDeviceTests {
    private static let blockBytes = 192 << 10
    private static let blockCount = 24

    private static func name(_ number: Int) -> ObjectName { ObjectName(FullKey(UInt64(number), 9, 9, 9)) }

    @Test func blocksGoUpAndComeBackAsTheyWere() throws {
        let returns = Returns<DeviceCopies>()
        let host = try MemoryArena(ArenaConfiguration(slotBytes: Self.blockBytes, slotCount: 2 * Self.blockCount))
        let device = try EmulatedDevice(
            slotBytes: Self.blockBytes, slotCount: Self.blockCount, host: host.memory
        ) { returns.take($0) }
        #expect(device.isEmulated)
        var up: [BlockCopy] = []
        for number in 0..<Self.blockCount {
            host.memory.fill(host.slice(number, Self.blockBytes), seed: UInt64(number))
            // Into the slots in another order.
            let slot = (number * 7 + 3) % Self.blockCount
            up.append(
                BlockCopy(
                    from: host.slice(number, Self.blockBytes), to: device.slice(slot, Self.blockBytes),
                    name: Self.name(number)))
        }
        #expect(device.submit(DeviceCopies(tag: 1, direction: .toDevice, copies: up, check: .take)) == .accepted)
        let taken = try #require(returns.next(1))[0]
        #expect(taken.tag == 1 && taken.direction == .toDevice && taken.copies.allSatisfy(\.isWhole))
        let down = taken.copies.enumerated().map { number, copy in
            BlockCopy(
                from: copy.to, to: host.slice(Self.blockCount + number, Self.blockBytes), name: copy.name,
                checksum: copy.checksum)
        }
        #expect(device.submit(DeviceCopies(tag: 2, direction: .toHost, copies: down, check: .compare)) == .accepted)
        let back = try #require(returns.next(1))[0]
        #expect(back.tag == 2 && back.direction == .toHost && back.copies.allSatisfy(\.isWhole))
        for number in 0..<Self.blockCount {
            let there = host.memory.bytes(host.slice(number, Self.blockBytes))
            #expect(host.memory.bytes(host.slice(Self.blockCount + number, Self.blockBytes)) == there)
        }
        device.shutDown()
    }

    @Test func aSlotOverwrittenByTheEngineIsFoundOnItsWayOut() throws {
        let returns = Returns<DeviceCopies>()
        let host = try BlockMemory(byteCount: 2 * Self.blockBytes, wantsHugePages: false)
        let device = try EmulatedDevice(slotBytes: Self.blockBytes, slotCount: 1, host: host) { returns.take($0) }
        host.fill(MemorySlice(offset: 0, count: Self.blockBytes), seed: 1)
        var copy = BlockCopy(
            from: MemorySlice(offset: 0, count: Self.blockBytes), to: device.slice(0, Self.blockBytes),
            name: Self.name(1))
        #expect(device.submit(DeviceCopies(tag: 1, direction: .toDevice, copies: [copy], check: .take)) == .accepted)
        copy = try #require(returns.next(1))[0].copies[0]
        unsafe device.memory[copy.to][100_000] ^= 0x10
        let out = BlockCopy(
            from: copy.to, to: MemorySlice(offset: Self.blockBytes, count: Self.blockBytes), name: copy.name,
            checksum: copy.checksum)
        #expect(device.submit(DeviceCopies(tag: 2, direction: .toHost, copies: [out], check: .compare)) == .accepted)
        #expect(try #require(returns.next(1))[0].copies.map(\.isWhole) == [false])
        device.shutDown()
    }

    @Test func oneDirectionWaitsForItsFenceAndTheOtherGoesOn() throws {
        let returns = Returns<DeviceCopies>()
        let host = try BlockMemory(byteCount: 4096, wantsHugePages: false)
        let device = try EmulatedDevice(slotBytes: 4096, slotCount: 2, host: host) { returns.take($0) }
        let fence = CopyFence()
        let place = MemorySlice(offset: 0, count: 64)
        let out = BlockCopy(from: device.slice(0, 64), to: place)
        let waiting = DeviceCopies(tag: 1, direction: .toHost, copies: [out], check: .none, after: (fence, 3))
        #expect(device.submit(waiting) == .accepted)
        let up = BlockCopy(from: place, to: device.slice(1, 64))
        #expect(device.submit(DeviceCopies(tag: 2, direction: .toDevice, copies: [up], check: .none)) == .accepted)
        #expect(returns.next(1)?.map(\.tag) == [2])
        fence.signal(2)
        unsafe device.memory[device.slice(0, 64)].initializeMemory(as: UInt8.self, repeating: 7)
        fence.signal(3)
        #expect(returns.next(1)?.map(\.tag) == [1])
        #expect(host.bytes(place) == [UInt8](repeating: 7, count: 64))
        device.shutDown()
    }

    @Test func itsMemoryIsItsOwnAndAnotherProcessCanMapIt() throws {
        let host = try BlockMemory(byteCount: 4096, wantsHugePages: false)
        let device = try EmulatedDevice(slotBytes: 4096, slotCount: 3, host: host) { _ in }
        let descriptor = try #require(device.descriptor)
        let engine = try SharedRegion(descriptor: descriptor, byteCount: 2 << 20)
        unsafe device.memory[device.slice(2, 1)][0] = 42
        #expect(unsafe engine.memory[MemorySlice(offset: 2 * 4096, count: 1)][0] == 42)
        device.shutDown()
    }
}
