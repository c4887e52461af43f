// How the store reads its own blocks: all of them now and then, slowly, so that damage is found before a reader does; all of
// them at once when an operator asks.

import KVFlash
import KVModel

extension StoreDecisions {
    /// Records looked at in one turn, some 20 µs.
    private static var scrubSlice: Int { 4096 }
    /// From the beginning of a pass to that of the next at least: a store that is read through in a minute rests for the
    /// day. A block is held to be right for weeks; a day finds a drive that begins to fail.
    private static var scrubPassPeriod: Duration { Duration(seconds: 24 * 3600) }
    /// What a block is charged at least, else its whole extents: what a read of a few bytes costs is the read, 150 µs of
    /// processor time over all threads. With 20 MB/s these are 76 reads a second, 1 % of a processor.
    private static var scrubChargeMin: Int { 256 << 10 }
    /// When buffers are short, readers come first.
    private static var scrubPause: Duration { Duration(milliseconds: 100) }

    /// Starts the next read of the scrubber when its rate allows and buffers are not short; in a hurry one a drive.
    ///
    /// - Returns: Whether there is more to look at, at once.
    mutating func startScrub() -> Bool {
        guard scrub.deadline <= now else { return false }
        guard buffers.freeFrames + buffers.copyCount > buffers.frameCount / 4, !isDraining || scrub.isHurried else {
            scrub.nextStart = now + Self.scrubPause
            return false
        }
        var looked = 0
        for drive in scrub.places.indices where !scrub.places[drive].isReading {
            while looked < Self.scrubSlice, !scrub.places[drive].isAtEnd {
                let number = UInt32(scrub.places[drive].cursor)
                if isPresent(number), objects[number].readers < Self.readersMax {
                    guard startScrubbing(number) else {
                        scrub.nextStart = now + Self.scrubPause
                        return false
                    }
                    scrub.places[drive].isReading = true
                }
                looked += 1
                scrub.places[drive].cursor += 1
                if scrub.places[drive].isReading { break }
            }
            if scrub.isReading, !scrub.isHurried { return false }
        }
        // Nothing in this slice is not the end of the pass.
        if scrub.places.contains(where: { !$0.isAtEnd && !$0.isReading }) { return true }
        if scrub.isReading { return false }
        scrub.endPass(at: now, period: settings.scrubBytesPerSecond > 0 ? Self.scrubPassPeriod : nil)
        return scrub.isHurried
    }

    private mutating func startScrubbing(_ number: UInt32) -> Bool {
        let bytes = Int(objects[number].payloadBytes)
        guard let index = newOperation(.scrub) else { return false }
        guard let buffer = buffers.take(buffers.frameCount(for: bytes)) else {
            endOperation(index)
            return false
        }
        operations[Int(index)].object = number
        operations[Int(index)].payloadBytes = bytes
        operations[Int(index)].buffer = buffer
        operations[Int(index)].stage = .atDrive
        objects[number].readers += 1
        let charge = Double(max(Self.scrubChargeMin, extentCount(bytes) * settings.extentBytes))
        let rate = Double(max(1, settings.scrubBytesPerSecond))
        scrub.nextStart = scrub.isHurried ? now : now + Duration(seconds: charge / rate)
        send(tag(of: index), to: drive(of: number))
        return true
    }

    /// A read of the scrubber has ended.
    mutating func endScrubbing(_ number: UInt32) { scrub.places[drive(of: number)].isReading = false }
}

/// Where the scrubber is.
struct ScrubState {
    /// One drive's part of the pass.
    struct Place {
        let first: Int
        let end: Int
        var cursor: Int
        var isReading = false

        var isAtEnd: Bool { cursor == end }
    }

    private(set) var passes = 0
    /// An operator wants passes at full speed, until so many are done.
    private(set) var isHurried = false
    private(set) var hurriedUntilPass = 0
    private var passBegan = Instant.zero
    var places: [Place]
    var nextStart = Instant.distantFuture

    init(_ drives: [DriveState]) {
        places = drives.map { drive in
            let first = Int(drive.base)
            return Place(first: first, end: first + drive.extents.count, cursor: first)
        }
    }

    var isReading: Bool { places.contains(where: \.isReading) }
    /// Extents that the pass has behind it.
    var looked: Int { places.reduce(0) { $0 + $1.cursor - $1.first } }

    /// When there is something to start: nothing while reads are under way whose ends it waits for.
    var deadline: Instant {
        let canStart = isHurried ? places.contains { !$0.isReading && !$0.isAtEnd } || !isReading : !isReading
        return canStart ? nextStart : .distantFuture
    }

    /// The first pass begins at this time.
    mutating func begin(at time: Instant) {
        nextStart = time
        passBegan = time
    }

    /// A whole pass at full speed. One that is hurried already ends first: what it has behind it may have changed since.
    mutating func hurry(at now: Instant) {
        hurriedUntilPass = passes + (isHurried ? 2 : 1)
        guard !isHurried else { return }
        isHurried = true
        rewind()
        begin(at: now)
    }

    /// The process ends: nobody waits for the pass any more.
    mutating func stopHurrying() { isHurried = false }

    /// Everything was read. The next pass begins when the period is over, or never without one.
    mutating func endPass(at now: Instant, period: Duration?) {
        passes += 1
        rewind()
        isHurried = isHurried && passes < hurriedUntilPass
        if isHurried {
            begin(at: now)
        } else if let period {
            begin(at: max(now + Duration(seconds: 1), passBegan + period))
        } else {
            nextStart = .distantFuture
        }
    }

    private mutating func rewind() { for drive in places.indices { places[drive].cursor = places[drive].first } }
}
