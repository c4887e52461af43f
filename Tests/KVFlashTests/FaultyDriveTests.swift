// Every fault of the faulty drive is told by the checksum or by the outcome, and is answered.

import KVFlash
import KVModel
import KVSystem
import Testing

@Suite struct FaultyDriveTests {
    @Test(arguments: DriveFault.allCases)
    func everyFaultIsSeen(fault: DriveFault) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("drive")
        try FlashDevice.format(path: path, byteCount: 4 << 20, extentBytes: 64 << 10, identity: testIdentity)
        let device = try FlashDevice(path: path)
        let memory = try BlockMemory(byteCount: 1 << 20)
        let box = EventBox()
        let drive = try FaultyDrive(
            seed: 3, perMille: [fault: 300], slowMicroseconds: 10, extentCount: device.geometry.extentCount,
            memory: memory, sink: box.sink
        ) { sink throws(FlashError) in
            try FlashDrive(device, memory: memory, configuration: testConfiguration, sink: sink)
        }
        let slice = MemorySlice(offset: 0, count: 65536)
        var objects: [FlashObject] = []
        var failures = 0
        for number in 0..<20 {
            var object = testObject(
                UInt64(number), payloadBytes: 65536, extents: ExtentList([UInt32(number)]), generation: 1)
            object.checksum = fill(memory, slice, object.name, seed: UInt64(number))
            _ = drive.post(.write(tag: UInt64(number), object, from: slice, isVolatile: false))
            if case .written(_, .done) = try box.next() { objects.append(object) } else { failures += 1 }
        }
        var wrong = 0
        for (number, object) in objects.enumerated() {
            _ = drive.post(.read(tag: UInt64(100 + number), object.extents, into: slice))
            guard case .read(_, .done) = try box.next() else {
                failures += 1
                continue
            }
            if checksum(memory, slice, object.name) != object.checksum { wrong += 1 }
        }
        let met = drive.counts[fault, default: 0]
        #expect(met > 0)
        switch fault {
        case .slow: #expect(wrong + failures == 0)
        case .failed, .noSpace: #expect(failures == met)
        case .dead:
            #expect(failures == met)
            drive.revive()
            for _ in 0..<met {
                guard case .released = try box.next() else { return fail("a buffer that is never released") }
            }
        // Two sectors drawn alike are no fault.
        case .swapped: #expect(wrong > 0 && wrong <= met)
        case .bitFlip, .torn, .truncated, .misdirected, .stale: #expect(wrong == met)
        }
        drive.shutDown()
    }
}
