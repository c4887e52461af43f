// Thousands of damaged traces: each is read or refused, in bounded time, and never crashes. The seeds are fixed, so a
// failure repeats. A coverage-guided fuzzer for longer runs is `Tools/fuzz`.

import KVModel
import KVTrace
import Testing

@Suite struct TraceMutationTests {
    /// Small files of every format.
    static let seeds: [[UInt8]] = {
        let trace = randomTrace(seed: 9, requests: 12, blockTokens: 64)
        var texts = [TraceFormat.holdfast, .mooncake, .extents].compactMap { try? text(trace, $0) }
        texts.append(
            "{\"chat_id\":50,\"parent_chat_id\":-1,\"timestamp\":61.114,\"input_length\":33,\"output_length\":3,\"type\":\"text\",\"turn\":1,\"hash_ids\":[5,6,7]}\n"
                + "{\"chat_id\":51,\"parent_chat_id\":50,\"timestamp\":62.5,\"input_length\":33,\"output_length\":3,\"type\":\"text\",\"turn\":2,\"hash_ids\":[5,6,8]}\n"
        )
        texts.append(
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.68,374,44\r\n2023-11-16 18:15:50.9,396,109\r\n"
        )
        texts.append(
            "{\"timestamp\":0,\"input_length\":200,\"output_length\":5,\"session\":\"é\\u00e9\",\"agent\":\"x\",\"turn\":0,\"stop\":\"tool_use\",\"api_ms\":2.5e3,\"think_ms\":null,\"hash_extents\":[[0,2],[9,1]]}\n"
        )
        return texts.map { Array($0.utf8) }
    }()

    /// Pieces that break parsers.
    static let tokens = [
        "-1", "1e999", "18446744073709551615", "99999999999999999999", "0.5", "null", "true", "\"", "\\", "\\u12", "{",
        "}", "[", "]", "[[", "]]", ",", ":", "\n", "\r", "\u{0}", "\u{FEFF}", "é", "[0,4294967295]",
        "[1,18446744073709551615]", "\"timestamp\":", "\"hash_ids\":[1]", "e", ".", "-", "+", "0", "00",
    ].map { Array($0.utf8) }

    private func mutated(_ random: inout RandomSource) -> [UInt8] {
        var bytes = Self.seeds[random.below(Self.seeds.count)]
        for _ in 0...random.below(4) {
            if bytes.isEmpty { break }
            let place = random.below(bytes.count)
            switch random.below(7) {
            case 0: bytes[place] ^= UInt8(1 << random.below(8))
            case 1: bytes[place] = UInt8(random.below(256))
            case 2: bytes.removeSubrange(place..<min(bytes.count, place + 1 + random.below(40)))
            case 3: bytes.insert(contentsOf: Self.tokens[random.below(Self.tokens.count)], at: place)
            case 4: bytes = Array(bytes.prefix(place))
            case 5:
                let end = min(bytes.count, place + 1 + random.below(80))
                bytes.insert(contentsOf: bytes[place..<end], at: random.below(bytes.count))
            default:
                let token = Self.tokens[random.below(Self.tokens.count)]
                bytes.replaceSubrange(place..<min(bytes.count, place + token.count), with: token)
            }
        }
        return bytes
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func damagedTracesAreReadOrRefused(_ seed: UInt64) throws {
        var random = RandomSource(seed: seed)
        var (good, refused, skipped) = (0, 0, 0)
        for _ in 0..<5000 {
            let bytes = mutated(&random)
            // Gzip and zstd are other programs' business here: a child for each of thousands would only cost time.
            if bytes.starts(with: [0x1F, 0x8B]) || bytes.starts(with: [0x28, 0xB5]) { continue }
            var options = TraceReadOptions(lineByteLimit: 1 << 12, referenceLimit: 1 << 16)
            options.skipsBadLines = random.below(2) == 0
            if random.below(4) == 0 { options.format = TraceFormat.allCases[random.below(TraceFormat.allCases.count)] }
            do throws(OperatorError) {
                let trace = try Trace.read(bytes: bytes, name: "x", options: options)
                try requireSound(trace)
                good += 1
                skipped += trace.skippedLineCount
            } catch {
                #expect(!error.what.isEmpty)
                refused += 1
            }
        }
        #expect(good > 500)
        #expect(refused > 500)
        #expect(skipped > 100)
    }

    /// What every reader's result keeps, whatever the file was.
    private func requireSound(_ trace: Trace) throws(OperatorError) {
        var parents = [BlockNumber?](repeating: nil, count: trace.uniqueBlockCount)
        var (seen, references, last) = (0, 0, Instant.zero)
        for request in trace.requests {
            var isSound = request.firstReference == references && request.arrival >= last
            isSound = isSound && request.inputTokens >= 0 && request.outputTokens >= 0
            isSound =
                isSound && Int(request.blockCount) * trace.blockTokens < Int(request.inputTokens) + trace.blockTokens
            var parent = BlockNumber.max
            for block in trace.path(of: request) {
                if Int(block) == seen {
                    parents[seen] = parent
                    seen += 1
                }
                isSound = isSound && Int(block) < seen && parents[Int(block)] == parent
                parent = block
            }
            if !isSound { throw OperatorError("") }
            references += Int(request.blockCount)
            last = request.arrival
        }
        if seen != trace.uniqueBlockCount || references != trace.blocks.count { throw OperatorError("") }
    }
}
