// What holds for every frame: what is written is read back; what is damaged is refused; and what is taken, however it came
// about, says exactly what its bytes say.

import KVModel
import KVSystem
import KVTransport
import Testing

@Suite struct FramePropertyTests {
    @Test func anAnswerThatIsLongerThanABodyIsRefusedAndNeverCut() {
        let json = Response(.ok, .text(Array(repeating: 0x20, count: WireLimit.bodyBytesMax)))
        #expect(json.fitting.status == .ok)
        let longer = Response(.ok, .text(Array(repeating: 0x20, count: WireLimit.bodyBytesMax + 1))).fitting
        #expect(longer.status == .failed)
        guard case .text(let why) = longer.body else { return #expect(Bool(false)) }
        #expect(String(decoding: why, as: UTF8.self).hasPrefix("the answer has 1048577 bytes"))
    }

    private let vectors: [[UInt8]]

    init() throws { vectors = try FrameVector.all().map { FrameVector.bytes($0.frame) } }

    @Test(arguments: 1...8)
    func whatIsWrittenIsReadBack(seed: UInt64) throws {
        var frames = RandomFrames(seed: seed)
        for _ in 0..<400 {
            let value = frames.next()
            let bytes = value.bytes
            let read = try WireValue(bytes)
            #expect("\(read)" == "\(value)")
            #expect(read.bytes == bytes)
        }
    }

    @Test func everySingleBitFlipIsRefused() {
        var flips = 0
        for frame in vectors {
            var damaged = frame
            for bit in 0..<(8 * frame.count) {
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                #expect(throws: FrameError.self) { _ = try WireValue(damaged) }
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                flips += 1
            }
        }
        #expect(flips > 20_000)
    }

    /// Damage that a wicked peer sealed: every field may say anything, so either it is refused, or the value says the
    /// same bytes again.
    @Test func everySealedBitFlipIsRefusedOrSaysWhatItSays() {
        var taken = 0
        var refused = 0
        for frame in vectors {
            for bit in 0..<(8 * frame.count) {
                var damaged = frame
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                seal(&damaged)
                if isTaken(damaged) { taken += 1 } else { refused += 1 }
            }
        }
        #expect(taken > 1000)
        #expect(refused > 1000)
    }

    @Test func everySealedTruncationIsRefusedOrSaysWhatItSays() {
        var taken = 0
        for frame in vectors {
            for count in 0..<frame.count {
                var cut = Array(frame[0..<count])
                #expect(throws: FrameError.self) { _ = try WireValue(cut) }
                seal(&cut)
                if isTaken(cut) { taken += 1 }
                // Nothing may follow the last field either, but where words or JSON go on to the end.
                var longer = frame
                longer.append(contentsOf: frame[0..<(count % 7 + 1)])
                seal(&longer)
                _ = isTaken(longer)
            }
        }
        // Only words that go on to the end of the body may end earlier.
        #expect(taken > 0)
        #expect(taken < 600)
    }

    @Test(arguments: 1...8)
    func sealedNoiseIsRefusedOrSaysWhatItSays(seed: UInt64) {
        var random = RandomSource(seed: seed)
        var frames = RandomFrames(seed: seed &+ 1000)
        for _ in 0..<2000 {
            var bytes = frames.next().bytes
            for _ in 0...random.below(4) {
                switch random.below(3) {
                case 0: bytes[random.below(bytes.count)] = UInt8(random.below(256))
                case 1:
                    let place = random.below(bytes.count)
                    bytes[place] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)]
                default:
                    guard bytes.count > WireLimit.headerBytes else { continue }
                    let place = WireLimit.headerBytes + random.below(bytes.count - WireLimit.headerBytes)
                    bytes.removeSubrange(place..<min(bytes.count, place + 1 + random.below(40)))
                }
            }
            seal(&bytes)
            _ = isTaken(bytes)
        }
    }

    /// False when it is refused; a failure when its value says other bytes than came.
    private func isTaken(_ bytes: [UInt8]) -> Bool {
        guard let value = try? WireValue(bytes) else { return false }
        #expect(value.bytes == bytes, "\(value)")
        return true
    }

    // MARK: Limits

    @Test func countsThatTheirBytesDoNotBearOutAreRefused() throws {
        let names = vectors.first { $0[5] == KVTransport.Operation.lookUp.rawValue && $0[6] == 0 }
        for count in [4, 16_384, 16_385, 1 << 24, 0xFFFF_FFFF] as [UInt32] {
            var frame = try #require(names)
            for index in 0..<4 { frame[32 + index] = UInt8(truncatingIfNeeded: count >> UInt32(8 * index)) }
            seal(&frame)
            #expect(throws: FrameError.self) { _ = try WireValue(frame) }
        }
    }

    @Test func theLongestBatchIsTakenAndOneMoreIsRefused() throws {
        let name = ObjectName(FullKey(1, 2, 3, 4))
        let longest = Request.lookUp(1, Array(repeating: name, count: WireLimit.batchCountMax))
        #expect(longest.excess == nil)
        let value = WireValue.request(longest, number: 1, namespace: 1, .none, payloadIsInSlot: false)
        var bytes = value.bytes
        #expect(try WireValue(bytes).bytes == bytes)
        #expect(Request.lookUp(1, Array(repeating: name, count: WireLimit.batchCountMax + 1)).excess != nil)
        bytes += bytes[36..<76]
        bytes[32] = 1
        seal(&bytes)
        #expect(throws: FrameError(.tooLong("names", UInt64(WireLimit.batchCountMax + 1)), at: 36)) {
            _ = try WireValue(bytes)
        }
    }

    @Test func textsThatAreTooLongOrNoUTF8AreRefused() throws {
        func open(_ text: [UInt8], count: Int) -> [UInt8] {
            var writer = FrameWriter()
            writer.frame(FrameHeader(.openNamespace, requestNumber: 1)) {
                $0.integer(UInt16(count))
                $0.raw(text)
            }
            return writer.bytes
        }
        let longest = [UInt8](repeating: 0x61, count: WireLimit.textBytesMax)
        #expect(throws: Never.self) { _ = try WireValue(open(longest, count: 256)) }
        #expect(throws: FrameError(.tooLong("namespace", 257), at: 34)) {
            _ = try WireValue(open(longest + [0x61], count: 257))
        }
        #expect(throws: FrameError(.text("namespace"), at: 34)) { _ = try WireValue(open([0xC3, 0x28], count: 2)) }
        #expect(throws: FrameError(.trailing(bytes: 1), at: 35)) { _ = try WireValue(open([0x61, 0x62], count: 1)) }
    }

    @Test func aBodyAboveTheLimitIsRefusedByItsHeader() {
        var header = FrameHeader(.administer, requestNumber: 1)
        header.bodyBytes = UInt32(WireLimit.bodyBytesMax) + 1
        var bytes = [UInt8](repeating: 0, count: WireLimit.headerBytes)
        unsafe bytes.withUnsafeMutableBytes { unsafe header.write(to: $0) }
        #expect(throws: FrameError(.tooLong("body", UInt64(WireLimit.bodyBytesMax) + 1), at: 16)) {
            _ = unsafe try bytes.withUnsafeBytes { unsafe try FrameHeader(reading: $0) }
        }
    }

    @Test func anotherVersionIsToldApartFromGarbage() throws {
        var frame = try #require(vectors.first)
        frame[4] = 2
        // Before the checksum: another version may keep it elsewhere.
        #expect(throws: FrameError(.version(2), at: 4)) { _ = try WireValue(frame) }
        frame[0] = 0
        #expect(throws: FrameError(.magic, at: 0)) { _ = try WireValue(frame) }
    }

    @Test func fieldsThatAKindOfFrameLeavesZeroAreRefusedOtherwise() throws {
        // Byte of the header, by the operations that use it; a reply's own fields are another matter.
        for frame in vectors where frame[6] & 1 == 0 && (0x10...0x42).contains(frame[5]) {
            for place in [7, 12, 14, 24] {
                var changed = frame
                changed[place] ^= 0x01
                seal(&changed)
                let uses = place == 14 && frame[14] | frame[15] != 0 || place == 24 && frame[5] == 0x13
                if !uses { #expect(throws: FrameError.self) { _ = try WireValue(changed) } }
            }
        }
    }
}

/// Frames of all kinds, with ordinary and extreme fields.
private struct RandomFrames {
    private var random: RandomSource

    init(seed: UInt64) { random = RandomSource(seed: seed) }

    private mutating func word<Word: FixedWidthInteger & UnsignedInteger>(_: Word.Type = Word.self) -> Word {
        switch random.below(4) {
        case 0: 0
        case 1: .max
        case 2: Word(truncatingIfNeeded: random.below(1000))
        default: Word(truncatingIfNeeded: random.next())
        }
    }
    private mutating func key() -> FullKey { FullKey(word(), word(), word(), word()) }
    private mutating func name() -> ObjectName {
        let count = max(1, word(UInt16.self))
        return ObjectName(key(), group: word(), shard: word() % count, shardCount: count)
    }
    private mutating func names() -> [ObjectName] { (0..<random.below(40)).map { _ in name() } }
    private mutating func text() -> String {
        let letters = Array("abc-/ äß→🙂\0\n")
        return String((0..<random.below(30)).map { _ in letters[random.below(letters.count)] })
    }
    private mutating func metadata() -> ObjectMetadata {
        ObjectMetadata(parent: key(), indexInChain: word(), evictionClass: word(), session: word())
    }
    private mutating func raw() -> [UInt8] { (0..<random.below(200)).map { _ in word() } }
    private mutating func status() -> Status { Status(rawValue: UInt16(random.below(13))) ?? .ok }

    mutating func next() -> WireValue {
        switch random.below(10) {
        case 0..<5: request()
        case 5..<8: response()
        case 8:
            .notification([.added(word(), names()), .removed(word(), names()), .overflow(word())][random.below(3)])
        default: other()
        }
    }

    private mutating func request() -> WireValue {
        let handle: NamespaceHandle = word()
        let isInSlot = random.below(2) == 0
        let requests: [Request] = [
            .openNamespace(name: text()), .lookUp(handle, names()), .get(handle, name()),
            .put(handle, name(), metadata(), payloadBytes: Int(word(UInt32.self)), checksum: word()),
            .pin(handle, names(), owner: text(), lifetimeSeconds: word()), .unpin(handle, names(), owner: text()),
            .delete(handle, names()), .list(handle, cursor: word(), countMax: word()), .describe(handle, name()), .stat,
            .subscribe(handle), .reportCorrupt(handle, name()), .administer(verb: text(), arguments: raw()),
            .cancel(requestNumber: word()),
        ]
        let request = requests[random.below(requests.count)]
        var slot = RemoteSlot.none
        var inSlot = false
        switch request {
        case .get: slot = RemoteSlot(address: word(), key: word(), byteCount: word())
        case .put(_, _, _, let payloadBytes, _):
            slot = RemoteSlot(address: word(), key: word(), byteCount: word())
            inSlot = isInSlot && payloadBytes > 0
        default: break
        }
        return .request(
            request, number: word(), namespace: request.namespace, slot, payloadIsInSlot: inSlot)
    }

    private mutating func response() -> WireValue {
        let operation = KVTransport.Operation.allCases.filter(\.isRequest)[random.below(14)]
        let length = Int(word(UInt32.self))
        if random.below(3) == 0 {
            let body = ResponseBody.object(payloadBytes: length, checksum: word(), metadata())
            return .response(
                .get, Response(.ok, body), number: word(), payloadBytes: length,
                isInSlot: length > 0 && random.below(2) == 0)
        }
        let page = (0..<random.below(20)).map { _ in
            ListedObject(name: name(), payloadBytes: word(), flags: word())
        }
        let bodies: [ResponseBody] = [
            .none, .namespace(word()), .presence((0..<random.below(20)).map { _ in word() }),
            .statuses((0..<random.below(20)).map { _ in status() }), .page(page, next: word()), .text(raw()),
        ]
        return .response(
            operation, Response(status(), bodies[random.below(bodies.count)]), number: word(), payloadBytes: 0,
            isInSlot: false)
    }

    private mutating func other() -> WireValue {
        switch random.below(3) {
        case 0:
            let low = word(UInt16.self)
            let hello = Hello(
                versions: low...max(low, word()), nonce: (0..<32).map { _ in word() }, tenant: text())
            return .hello(hello)
        case 1:
            var header = FrameHeader(random.below(2) == 0 ? .goodbye : .refused)
            if header.operation == .refused { header.status = status() }
            let body = raw()
            // As it comes back: with its length and checksum.
            header.bodyBytes = UInt32(body.count)
            header.bodyChecksum = unsafe body.withUnsafeBytes { unsafe headerChecksum($0) }
            return .opaque(header, body)
        default:
            let parameters = VerbsParameters(
                pair: 1 + UInt32(random.below(0xFF_FFFF)), packetNumber: word(UInt32.self) & 0xFF_FFFF,
                address: (0..<16).map { _ in word() }, localIdentifier: UInt32(word(UInt16.self)),
                mtuBytes: 256 << UInt32(random.below(5)), messageBytesMax: max(4096, word()),
                readsAsInitiator: UInt16(random.below(256)), readsAsResponder: UInt16(random.below(256)),
                receiveCount: 4 + UInt16(random.below(4093)), receiveBytes: 256 + UInt32(random.below((1 << 20) - 255)))
            return .parameters(random.below(2) == 0 ? .attach : .attached, parameters)
        }
    }
}
