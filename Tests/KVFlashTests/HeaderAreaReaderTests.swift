// What the restart scan makes of reads that end badly.

import KVFlash
import Testing

@Suite struct HeaderAreaReaderTests {
    private static let headerBytes = FlashGeometry.headerBytes

    /// Reads an area of four headers as the kernel answers; the places that were read, and those that could not be.
    private func read(_ answer: (_ attempt: Int, _ request: DeviceRequest) -> Int32) -> (read: Set<Int>, bad: Set<Int>)
    {
        var reader = HeaderAreaReader(areaBytes: 4 * Self.headerBytes)
        var (read, bad): (Set<Int>, Set<Int>) = ([], [])
        var attempt = 0
        while !reader.isDone {
            guard let request = reader.next(readBytes: 4 * Self.headerBytes, depth: 1) else { break }
            let completion = DeviceCompletion(ticket: request.ticket, result: answer(attempt, request))
            attempt += 1
            reader.complete(completion) { place, slice in
                if let slice {
                    read.formUnion(stride(from: place, to: place + slice.count, by: Self.headerBytes))
                } else {
                    bad.insert(place)
                }
            }
        }
        return (read, bad)
    }

    @Test(arguments: [4, 11] as [Int32]) func aReadThatWasInterruptedIsSentAgain(error: Int32) {
        let result = read { attempt, request in attempt < 3 ? -error : Int32(request.byteCount) }
        #expect(result.read.count == 4 && result.bad.isEmpty)
    }

    /// Page by page after a bad sector, too.
    @Test func aPageThatWasInterruptedIsSentAgain() {
        let result = read { attempt, request in
            attempt == 0 ? -5 : attempt == 2 ? -4 : Int32(request.byteCount)
        }
        #expect(result.read.count == 4 && result.bad.isEmpty)
    }

    @Test func aDeviceThatNeverAnswersHasDamagedHeadersAtLast() {
        let result = read { _, _ in -11 }
        #expect(result.read.isEmpty && result.bad.count == 4)
    }
}
