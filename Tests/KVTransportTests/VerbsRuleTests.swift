// Verbs rules that need no device: credits, the exchange of parameters, and what a machine without RDMA says.

import KVModel
import KVSystem
import KVTransport
import Testing

@Suite struct VerbsRuleTests {
    @Test(arguments: 1...20)
    func creditsNeitherOverrunNorDeadlock(seed: UInt64) {
        // Two ends run the credits against each other over two queues of messages; each sends what it may and receives
        // when the draw says so. No message may meet a full end, and both must get all of theirs across.
        var random = RandomSource(seed: seed)
        let counts = [Int(4 + random.next() % 12), Int(4 + random.next() % 12)]
        var credits = [
            VerbsCredits(granted: counts[1], own: counts[0]), VerbsCredits(granted: counts[0], own: counts[1]),
        ]
        var onTheWay: [[(grant: Int, hasContent: Bool)]] = [[], []]
        var left = [Int(1000 + random.next() % 1000), Int(random.next() % 2000)]
        var stalledTurns = 0
        while left[0] > 0 || left[1] > 0 {
            let end = Int(random.next() % 2)
            var didSomething = false
            if random.next() % 2 == 0 {
                if left[end] > 0, credits[end].maySend {
                    left[end] -= 1
                    onTheWay[1 - end].append((credits[end].take(), true))
                    didSomething = true
                } else if credits[end].mustReport(whileWaiting: left[end] > 0) {
                    onTheWay[1 - end].append((credits[end].take(), false))
                    didSomething = true
                }
                #expect(onTheWay[1 - end].count <= counts[1 - end])
            } else if !onTheWay[end].isEmpty {
                let message = onTheWay[end].removeFirst()
                let isTaken = credits[end].receive(message.grant)
                #expect(isTaken)
                credits[end].repost()
                didSomething = true
            }
            stalledTurns = didSomething ? 0 : stalledTurns + 1
            if stalledTurns > 1000 {
                Issue.record("both ends wait for each other")
                return
            }
        }
    }

    @Test func grantsBeyondWhatWasPostedAreRefused() {
        var credits = VerbsCredits(granted: 8, own: 8)
        _ = credits.take()
        let isTakenBeyond = credits.receive(2)
        let isTaken = credits.receive(1)
        #expect(!isTakenBeyond)
        #expect(isTaken)
        #expect(credits.available == 8)
    }

    @Test func queueAgreesWithAnArray() {
        var random = RandomSource(seed: 7)
        var queue = Queue<Int>()
        var model: [Int] = []
        for step in 0..<5000 {
            if random.next() % 5 < 3 {
                queue.append(step)
                model.append(step)
            } else {
                let first = queue.removeFirst()
                #expect(first == (model.isEmpty ? nil : model.removeFirst()))
            }
            #expect(queue.count == model.count)
            #expect(queue.first == model.first)
            #expect(queue.last == model.last)
        }
    }

    private let parameters = VerbsParameters(
        pair: 0x11, packetNumber: 0xABCDEF, address: Array(0..<16), localIdentifier: 0, mtuBytes: 4096,
        messageBytesMax: 8 << 20, readsAsInitiator: 16, readsAsResponder: 128, receiveCount: 64, receiveBytes: 4096)

    private func body(_ parameters: VerbsParameters) -> [UInt8] {
        var writer = FrameWriter()
        parameters.write(to: &writer)
        return writer.bytes
    }

    private func read(_ bytes: [UInt8]) -> Result<VerbsParameters, FrameError> {
        unsafe bytes.withUnsafeBytes { raw in
            do throws(FrameError) {
                var reader = unsafe WireReader(raw)
                return .success(try VerbsParameters(&reader))
            } catch { return .failure(error) }
        }
    }

    @Test func parametersCrossUnchanged() throws {
        let bytes = body(parameters)
        #expect(bytes.count == VerbsParameters.byteCount)
        // The vector of RDMA.md.
        #expect(
            bytes == [0x11, 0, 0, 0, 0xEF, 0xCD, 0xAB, 0] + Array(0..<16) + [0, 0, 0, 0, 0, 0x10, 0, 0]
                + [0, 0, 0x80, 0, 16, 0, 128, 0, 64, 0, 0, 0, 0, 0x10, 0, 0])
        #expect(try read(bytes).get() == parameters)
    }

    @Test func badParametersAreRefused() {
        for count in 0..<VerbsParameters.byteCount {
            #expect(throws: FrameError.self, "cut after \(count)") {
                try read(Array(body(parameters).prefix(count))).get()
            }
        }
        let edits: [(WritableKeyPath<VerbsParameters, UInt32>, UInt32)] = [
            (\.pair, 0), (\.pair, 1 << 24), (\.packetNumber, 1 << 24), (\.mtuBytes, 100), (\.mtuBytes, 65536),
            (\.messageBytesMax, 100), (\.receiveBytes, 1), (\.receiveBytes, 2 << 20), (\.localIdentifier, 1 << 16),
        ]
        for (field, value) in edits {
            var wrong = parameters
            wrong[keyPath: field] = value
            #expect(throws: FrameError.self) { try read(body(wrong)).get() }
        }
        for count in [UInt16(0), 3, 5000] {
            var wrong = parameters
            wrong.receiveCount = count
            #expect(throws: FrameError.self) { try read(body(wrong)).get() }
        }
        #expect(throws: FrameError.self) { try read(body(parameters) + [0]).get() }
    }

    @Test func aDeviceThatIsNotThereIsNamed() {
        let error = #expect(throws: OperatorError.self) { try VerbsDevice(VerbsPlace(device: "no-such-device")) }
        let text = error?.description ?? ""
        #expect(text.contains("no-such-device") || text.contains("kernel"))
        #expect(text.contains("TCP"))
        #expect(VerbsLiveObjects.now.devices >= 0)
    }
}
