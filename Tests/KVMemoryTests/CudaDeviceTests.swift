// The GPU's tier against a driver that stands in for NVIDIA's: orders, fences, sharing and failures. `Tools/gpu-check` does the same
// with a GPU.

import Foundation
import Glibc
import KVMemory
import KVModel
import KVSystem
import Testing

@Suite(.enabled(if: StandIn.isPossible, "no C compiler: the stand-in for the GPU's driver cannot be built"))
struct CudaDeviceTests {
    private static let blockBytes = 96 << 10
    private static let blockCount = 32

    private static func name(_ number: Int) -> ObjectName { ObjectName(FullKey(UInt64(number), 4, 4, 4)) }

    /// Node memory and a device beside it, and what comes back.
    private struct Bench {
        let standIn: StandIn
        let driver: CudaDriver
        let host: MemoryArena
        let device: CudaDevice
        let returns = Returns<DeviceCopies>()

        init(limit: KVModel.Duration = Duration(seconds: 20)) throws {
            standIn = try StandIn()
            driver = try CudaDriver(library: standIn.path)
            var arena = ArenaConfiguration(slotBytes: blockBytes, slotCount: 2 * blockCount)
            arena.wantsPinning = false
            host = try MemoryArena(arena)
            device = try CudaDevice(
                driver, slotBytes: blockBytes, slotCount: blockCount, host: host.memory, limit: limit
            ) { [returns] in returns.take($0) }
        }

        /// Copies of blocks from their places in node memory up, or down to the places behind them.
        func copies(_ tag: UInt64, _ direction: DeviceDirection, _ numbers: Range<Int>, _ check: CopyCheck)
            -> DeviceCopies
        {
            let copies = numbers.map { number in
                direction == .toDevice
                    ? BlockCopy(
                        from: host.slice(number, blockBytes), to: device.slice(number, blockBytes), name: name(number))
                    : BlockCopy(
                        from: device.slice(number, blockBytes), to: host.slice(blockCount + number, blockBytes),
                        name: name(number))
            }
            return DeviceCopies(tag: tag, direction: direction, copies: copies, check: check)
        }

        func fill(seed: UInt64) {
            for number in 0..<blockCount {
                host.memory.fill(host.slice(number, blockBytes), seed: seed + UInt64(number))
            }
        }

        func cameBack(_ number: Int) -> Bool {
            host.memory.bytes(host.slice(blockCount + number, blockBytes))
                == host.memory.bytes(host.slice(number, blockBytes))
        }
    }

    @Test func blocksGoUpAndComeBackAsTheyWere() throws {
        let bench = try Bench()
        #expect(bench.device.deviceName == "stand-in 0" && !bench.device.isEmulated)
        bench.fill(seed: 1)
        let all = 0..<Self.blockCount
        #expect(bench.device.submit(bench.copies(1, .toDevice, all, .take)) == .accepted)
        let up = try #require(bench.returns.next(1))[0]
        #expect(up.tag == 1 && up.copies.allSatisfy(\.isWhole))
        var down = bench.copies(2, .toHost, all, .compare)
        for index in down.copies.indices { down.copies[index].checksum = up.copies[index].checksum }
        down.copies[5].checksum ^= 1
        #expect(bench.device.submit(down) == .accepted)
        let back = try #require(bench.returns.next(1))[0]
        #expect(back.copies.enumerated().allSatisfy { $0.element.isWhole == ($0.offset != 5) })
        #expect(all.allSatisfy(bench.cameBack))
        bench.device.shutDown()
    }

    @Test func aBlockThatIsWrongInNodeMemoryNeverReachesTheGPU() throws {
        let bench = try Bench()
        bench.fill(seed: 1)
        var up = bench.copies(1, .toDevice, 0..<2, .take)
        #expect(bench.device.submit(up) == .accepted)
        up = try #require(bench.returns.next(1))[0]
        unsafe bench.host.memory[bench.host.slice(0, 1)][0] ^= 1
        up.check = .compare
        #expect(bench.device.submit(up) == .accepted)
        #expect(try #require(bench.returns.next(1))[0].copies.map(\.isWhole) == [false, true])
        #expect(bench.device.submit(bench.copies(2, .toHost, 0..<1, .none)) == .accepted)
        _ = bench.returns.next(1)
        #expect(!bench.cameBack(0))
        bench.device.shutDown()
    }

    @Test func manySubmissionsComeBackInOrderAndABoundHolds() throws {
        let bench = try Bench()
        bench.fill(seed: 9)
        bench.standIn.stall(true)
        var accepted: [UInt64] = []
        for tag in 1...400 as ClosedRange<UInt64> {
            let number = Int(tag) % Self.blockCount
            if bench.device.submit(bench.copies(tag, .toDevice, number..<(number + 1), .take)) == .accepted {
                accepted.append(tag)
            }
        }
        #expect(accepted == Array(1...256), "a bound of 256 takes 256")
        bench.standIn.stall(false)
        #expect(bench.returns.next(256)?.map(\.tag) == accepted)
        bench.device.shutDown()
    }

    @Test func nothingIsReadBeforeTheEnginesEvent() throws {
        let bench = try Bench()
        bench.fill(seed: 1)
        // What an engine's kernel does: writes a slot, then its event is done.
        let (handle, number) = bench.standIn.event()
        let event = try bench.device.event(handle: handle)
        #expect(bench.device.wait(for: event, .toHost) == .accepted)
        #expect(bench.device.submit(bench.copies(1, .toHost, 0..<1, .none)) == .accepted)
        #expect(bench.device.submit(bench.copies(2, .toDevice, 0..<1, .none)) == .accepted)
        // The other direction does not wait, and writes what the first is to find.
        #expect(bench.returns.next(1)?.map(\.tag) == [2])
        bench.standIn.complete(number)
        #expect(bench.returns.next(1)?.map(\.tag) == [1])
        #expect(bench.cameBack(0))
        bench.device.shutDown()
    }

    @Test func aDriverThatIgnoresTheEventIsCaughtByTheBytes() throws {
        let bench = try Bench()
        bench.fill(seed: 1)
        bench.standIn.ignoreWaits()
        let (handle, _) = bench.standIn.event()
        #expect(bench.device.wait(for: try bench.device.event(handle: handle), .toHost) == .accepted)
        #expect(bench.device.submit(bench.copies(1, .toHost, 0..<1, .none)) == .accepted)
        #expect(bench.returns.next(1)?.map(\.tag) == [1])
        #expect(!bench.cameBack(0), "the test above could not fail")
        bench.device.shutDown()
    }

    @Test func aFenceOfNodeMemoryHoldsItsDirectionAlone() throws {
        let bench = try Bench()
        bench.fill(seed: 1)
        let fence = CopyFence()
        var held = bench.copies(1, .toDevice, 0..<1, .none)
        held.after = (fence, 2)
        #expect(bench.device.submit(held) == .accepted)
        #expect(bench.device.submit(bench.copies(2, .toDevice, 1..<2, .none)) == .accepted)
        #expect(bench.device.submit(bench.copies(3, .toHost, 1..<2, .none)) == .accepted)
        #expect(bench.returns.next(1)?.map(\.tag) == [3])
        fence.signal(2)
        #expect(bench.returns.next(2)?.map(\.tag) == [1, 2])
        bench.device.shutDown()
    }

    @Test func anErrorOfTheDriverEndsItsUseAndLosesNothing() throws {
        let bench = try Bench()
        bench.fill(seed: 1)
        bench.standIn.failCopies(700)
        #expect(bench.device.submit(bench.copies(1, .toHost, 0..<3, .none)) == .accepted)
        let back = try #require(bench.returns.next(1))[0]
        #expect(back.copies.allSatisfy { !$0.isWhole } && back.mayStillWrite)
        #expect(bench.device.failure == "it cannot copy from the GPU: stand-in error")
        #expect(bench.device.submit(bench.copies(2, .toHost, 0..<1, .none)) == .full)
        bench.device.shutDown()
    }

    @Test func aGPUThatDoesNotAnswerIsLostAtItsDeadline() throws {
        let bench = try Bench(limit: Duration(nanoseconds: 30_000_000))
        bench.fill(seed: 1)
        bench.standIn.stall(true)
        #expect(bench.device.submit(bench.copies(1, .toHost, 0..<1, .none)) == .accepted)
        let back = try #require(bench.returns.next(1))[0]
        #expect(back.mayStillWrite && back.copies.allSatisfy { !$0.isWhole })
        #expect(bench.device.failure?.contains("has not ended in 0.03 s") == true)
        bench.device.shutDown()
    }

    @Test func anEngineMapsTheSlotsByTheirDescriptor() throws {
        let bench = try Bench()
        bench.fill(seed: 3)
        #expect(bench.device.submit(bench.copies(1, .toDevice, 0..<4, .none)) == .accepted)
        _ = bench.returns.next(1)
        // 32 blocks of 96 KiB are 3 MiB, and memory comes in pieces of 2 MiB.
        let returns = Returns<DeviceCopies>()
        let engine = try CudaDevice(
            bench.driver, slotBytes: Self.blockBytes, slotCount: Self.blockCount,
            source: .descriptor(try #require(bench.device.descriptor)), host: bench.host.memory
        ) { returns.take($0) }
        #expect(engine.descriptor == nil)
        #expect(engine.submit(bench.copies(1, .toHost, 0..<4, .none)) == .accepted)
        _ = returns.next(1)
        #expect((0..<4).allSatisfy(bench.cameBack))
        engine.shutDown()
        bench.device.shutDown()
    }

    @Test func whatTheDriverRefusesIsSaidInItsWords() throws {
        #expect { try CudaDriver(library: "/nowhere/libcuda.so.1") } throws: { error in
            "\(error)".contains("there is no driver") && "\(error)".contains("its tier is left out")
        }
        let standIn = try StandIn()
        #expect { try CudaDriver(gpu: 3, library: standIn.path) } throws: { error in
            "\(error)".contains("GPU 3 cannot be used: invalid device ordinal")
        }
        let host = try BlockMemory(byteCount: 4096, wantsHugePages: false)
        let driver = try CudaDriver(library: standIn.path)
        #expect {
            _ = try CudaDevice(driver, slotBytes: 1 << 20, slotCount: 4096, host: host) { _ in }
        } throws: { error in
            "\(error)".contains("cannot take 4 GiB of the GPU's memory: out of memory")
        }
    }

    @Test func anArenaIsRegisteredOnceAndAContextLetGo() throws {
        let standIn = try StandIn()
        do {
            let driver = try CudaDriver(library: standIn.path)
            var configuration = ArenaConfiguration(slotBytes: 64 << 10, slotCount: 64)
            configuration.wantsPinning = false
            let done = DispatchSemaphore(value: 0)
            let arena = try MemoryArena(configuration, hooks: [driver.arenaHook]) { if $0.isComplete { done.signal() } }
            #expect(done.wait(timeout: .now() + 30) == .success)
            #expect(arena.status.failures.isEmpty && standIn.registered == arena.byteCount)
            #expect(standIn.contexts == 1)
        }
    }

    @Test func aGPUNamesTheNodeThatItIsAttachedTo() throws {
        let standIn = try StandIn()
        let driver = try CudaDriver(library: standIn.path)
        defer { withExtendedLifetime(standIn) {} }
        #expect(driver.pciAddress == "0000:3b:00.0")
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let place = folder.appendingPathComponent("bus/pci/devices/0000:3b:00.0")
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        #expect(driver.memoryNode(sysfs: folder.path) == nil)
        try "1\n".write(to: place.appendingPathComponent("numa_node"), atomically: true, encoding: .utf8)
        #expect(driver.memoryNode(sysfs: folder.path) == 1)
        // What the kernel says of a machine with one node.
        try "-1\n".write(to: place.appendingPathComponent("numa_node"), atomically: true, encoding: .utf8)
        #expect(driver.memoryNode(sysfs: folder.path) == nil)
    }
}

/// A driver of its own for one test, built when it is needed.
@safe
final class StandIn: @unchecked Sendable {
    let path: String
    private let folder: URL
    private let library: UnsafeMutableRawPointer

    private static let compiler = ["/usr/bin/cc", "/usr/bin/clang", "/usr/bin/gcc"].first {
        FileManager.default.isExecutableFile(atPath: $0)
    }
    static var isPossible: Bool { compiler != nil }

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("cuda-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        path = folder.appendingPathComponent("libcuda.so").path
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("cuda-stand-in.c").path
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(Self.compiler))
        process.arguments = ["-O1", "-shared", "-fPIC", "-pthread", "-o", path, source]
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0)
        unsafe library = try #require(unsafe dlopen(path, RTLD_NOW | RTLD_LOCAL))
    }

    deinit {
        unsafe dlclose(library)
        try? FileManager.default.removeItem(at: folder)
    }

    private func call(_ name: String, _ value: Int32) {
        typealias Function = @convention(c) (Int32) -> Void
        unsafe unsafeBitCast(dlsym(library, name), to: Function.self)(value)
    }

    func stall(_ yes: Bool) { call("stand_in_stall", yes ? 1 : 0) }
    func ignoreWaits() { call("stand_in_ignore_waits", 1) }
    func failCopies(_ error: Int32) { call("stand_in_fail_copies", error) }

    var registered: Int {
        typealias Function = @convention(c) () -> Int
        return unsafe unsafeBitCast(dlsym(library, "stand_in_registered"), to: Function.self)()
    }

    var contexts: Int32 {
        typealias Function = @convention(c) () -> Int32
        return unsafe unsafeBitCast(dlsym(library, "stand_in_contexts"), to: Function.self)()
    }

    /// An event of another process that is not done: its handle, and what `complete` knows it by.
    func event() -> (handle: [UInt8], number: UInt64) {
        typealias Function = @convention(c) (UnsafeMutablePointer<UInt8>) -> UInt64
        var handle = [UInt8](repeating: 0, count: 64)
        let number = unsafe handle.withUnsafeMutableBufferPointer {
            unsafe unsafeBitCast(dlsym(library, "stand_in_event"), to: Function.self)($0.baseAddress!)
        }
        return (handle, number)
    }

    func complete(_ number: UInt64) {
        typealias Function = @convention(c) (UInt64) -> Void
        unsafe unsafeBitCast(dlsym(library, "stand_in_complete"), to: Function.self)(number)
    }
}
