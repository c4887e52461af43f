// What each format means, on files small enough to check by hand.

import KVModel
import KVTrace
import Testing

@Suite struct TraceReaderTests {
    @Test func mooncakeIdsBecomeNumbersByFirstAppearance() throws {
        let trace = try read(
            mooncake("0", "1100", "[7, 3, 900]") + mooncake("1500.5", "1024", "[7, 3]") + mooncake("1500.5", "1", "[4]")
        )
        #expect(trace.format == .mooncake)
        #expect(trace.blockTokens == 512)
        #expect(trace.blocks == [0, 1, 2, 0, 1, 3])
        #expect(trace.uniqueBlockCount == 4)
        #expect(trace.requests.map(\.arrival.nanoseconds) == [0, 1_500_500_000, 1_500_500_000])
        #expect(trace.requests[1].firstReference == 3)
        #expect(trace.requests[1].blockCount == 2)
        #expect(trace.requests[0].session == -1)
        #expect(trace.requests[0].serviceTime == nil)
    }

    @Test func extentsAreSpelledOut() throws {
        let trace = try read(
            """
            {"timestamp":0,"input_length":200,"output_length":5,"session":4,"agent":"","turn":0,"stop":"tool_use","api_ms":2500,"think_ms":null,"hash_extents":[[0,3]]}
            {"timestamp":9000,"input_length":330,"output_length":5,"session":4,"agent":"","turn":1,"stop":"end_turn","api_ms":null,"think_ms":4000,"hash_extents":[[0,2],[3,3]]}
            {"timestamp":9000,"input_length":330,"output_length":5,"session":4,"agent":"sub","turn":0,"hash_extents":[]}

            """)
        #expect(trace.format == .extents)
        #expect(trace.blocks == [0, 1, 2, 0, 1, 3, 4, 5])
        #expect(trace.requests.map(\.session) == [0, 0, 1])
        #expect(trace.requests.map(\.turn) == [0, 1, 0])
        #expect(trace.requests.map(\.stopReason) == [.toolUse, .endTurn, .unknown])
        #expect(trace.requests[0].serviceTime == Duration(milliseconds: 2500))
        #expect(trace.requests[0].thinkTime == nil)
        #expect(trace.requests[1].serviceTime == nil)
        #expect(trace.requests[1].thinkTime == Duration(milliseconds: 4000))
    }

    @Test func bailianConversationsFollowParents() throws {
        func line(_ chat: Int, _ parent: Int, _ time: String, _ turn: Int) -> String {
            "{\"chat_id\": \(chat), \"parent_chat_id\": \(parent), \"timestamp\": \(time), \"input_length\": 20, "
                + "\"output_length\": 3, \"type\": \"text\", \"turn\": \(turn), \"hash_ids\": [5, 6]}\n"
        }
        let trace = try read(
            line(50, -1, "61.114", 1) + line(70, -1, "61.2", 1) + line(51, 50, "80", 2) + line(52, 51, "81.0000001", 3)
                + line(90, 12345, "82", 6))
        #expect(trace.format == .bailian)
        #expect(trace.blockTokens == 16)
        #expect(trace.requests.map(\.session) == [0, 1, 0, 0, 2])
        #expect(trace.requests.map(\.turn) == [0, 0, 1, 2, 5])
        #expect(trace.requests[0].arrival.nanoseconds == 61_114_000_000)
        #expect(trace.requests[3].arrival.nanoseconds == 81_000_000_100)
    }

    @Test func aBailianBlockIsAnotherOneBehindAnotherBlock() throws {
        func line(_ time: Int, _ ids: [Int]) -> String {
            "{\"chat_id\": \(time), \"parent_chat_id\": -1, \"timestamp\": \(time), \"input_length\": \(16 * ids.count), "
                + "\"output_length\": 3, \"type\": \"text\", \"turn\": 1, \"hash_ids\": \(ids)}\n"
        }
        let trace = try read(line(1, [5, 6, 6]) + line(2, [6, 5]) + line(3, [5, 6, 7]) + line(4, [6, 5]))
        #expect(trace.blocks == [0, 1, 2, 3, 4, 0, 1, 5, 3, 4])
        #expect(trace.uniqueBlockCount == 6)
    }

    /// Naming contents by 0, 1, 2 and prefixes by 1000 and up says the same, over enough blocks to grow the table.
    @Test func bailianIdsThatNamePrefixesGiveTheSamePaths() throws {
        var random = RandomSource(seed: 7)
        var prefixes: [[Int]: Int] = [:]
        var (contents, chains) = ("", "")
        for time in 0..<400 {
            var path: [Int] = []
            var named: [Int] = []
            for _ in 0..<random.below(30) {
                path.append(random.below(3))
                if prefixes[path] == nil { prefixes[path] = 1000 + prefixes.count }
                named.append(prefixes[path]!)
            }
            func line(_ ids: [Int]) -> String {
                "{\"chat_id\": \(time), \"timestamp\": \(time), \"input_length\": \(16 * ids.count), \"output_length\": 3, "
                    + "\"hash_ids\": \(ids)}\n"
            }
            contents += line(path)
            chains += line(named)
        }
        let (left, right) = (try read(contents), try read(chains))
        #expect(left.uniqueBlockCount == prefixes.count)
        #expect(left.uniqueBlockCount > 1024)
        #expect(left.blocks == right.blocks)
        #expect(left.requests == right.requests)
    }

    @Test func azureHasArrivalsAndLengthsOnly() throws {
        let trace = try read(
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2024-02-28 23:59:59.5000000,374,44\r\n"
                + "2024-02-29 00:00:01.2500001,396,109\r\n2024-03-01T00:00:00+00:00,1,2")
        #expect(trace.format == .azure)
        #expect(trace.blocks.isEmpty)
        #expect(trace.requests.map(\.arrival.nanoseconds) == [0, 1_750_000_100, 86_400_500_000_000])
        #expect(trace.requests.map(\.inputTokens) == [374, 396, 1])
        #expect(trace.requests.map(\.outputTokens) == [44, 109, 2])
    }

    @Test func ownFormatKeepsEverything() throws {
        for seed in 0..<20 as Range<UInt64> {
            var trace = try read(text(randomTrace(seed: seed, requests: 60), .holdfast))
            // The first reading numbers blocks and conversations by first appearance; from then on nothing changes.
            trace.origin = TraceOrigin(
                generator: "a \"quoted\\ thing\" é 🙂\n\u{1}", seed: .max, parameters: [.init(name: "a.b", value: "1.5")]
            )
            var again = try read(text(trace, .holdfast))
            again.sha256 = trace.sha256
            #expect(again == trace)
        }
    }

    @Test func foreignFormatsKeepWhatTheyCanHold() throws {
        let trace = try read(text(randomTrace(seed: 3, requests: 80, blockTokens: 64), .holdfast))
        let extents = try read(text(trace, .extents))
        #expect(extents.blocks == trace.blocks)
        #expect(extents.requests.map(\.session) == trace.requests.map(\.session))
        #expect(extents.requests.map(\.stopReason).count == trace.requests.count)
    }

    @Test func textIdsAreIds() throws {
        let trace = try read(
            mooncake("0", "1000", "[\"9f\", \"a1\"]") + mooncake("1", "1500", "[\"9f\", \"a1\", \"00\"]"))
        #expect(trace.blocks == [0, 1, 0, 1, 2])
        #expect(refusal(mooncake("0", "1000", "[\"9f\", 1]")).contains("numbers in some places and texts in others"))
    }

    @Test func idsOfSixtyFourBitsLoseNothing() throws {
        let trace = try read(
            mooncake("0", "1000", "[18446744073709551615, 18446744073709551614]")
                + mooncake("1", "500", "[18446744073709551615]"))
        #expect(trace.blocks == [0, 1, 0])
        #expect(refusal(mooncake("0", "1", "[18446744073709551616]")).contains("not whole and from 0 to"))
        #expect(refusal(mooncake("0", "1", "[99999999999999999999999]")).contains("not whole and from 0 to"))
    }

    @Test func anotherBlockSizeCanBeSaid() throws {
        let line = mooncake("0", "40", "[1, 2, 3]")
        #expect(refusal(line).contains("--block-tokens"))
        #expect(try read(line, TraceReadOptions(blockTokens: 16)).blockTokens == 16)
        #expect(refusal(line, TraceReadOptions(blockTokens: 0)).contains("block size 0"))
    }

    @Test func clocksThatCountFrom1970StartAtZero() throws {
        let trace = try read(mooncake("1700000000000", "1", "[1]") + mooncake("1700000001000", "1", "[1]"))
        #expect(trace.requests.map(\.arrival.nanoseconds) == [0, 1_000_000_000])
    }

    @Test func layoutOfTheTextDoesNotMatter() throws {
        let plain = try read(mooncake("0", "600", "[1,2]") + mooncake("5", "600", "[1,2]"))
        let odd =
            "\u{FEFF}\r\n  \t\n{ \"hash_ids\":[ 1 ,\t2 ] ,\"extra\":{\"a\":[1,{\"b\":null}],\"c\":\"\\u00e9\\n é\"},"
            + "\"output_length\":1e1,\"input_length\":600.0,\"timestamp\":0}\r\n\r\n"
            + "{\"timestamp\":5,\"input_length\":6e2,\"output_length\":100e-1,\"hash_ids\":[1,2],\"more\":true}"
        let trace = try read(odd)
        #expect(trace.requests == plain.requests)
        #expect(trace.blocks == plain.blocks)
    }

    @Test func theDigestIsOfTheContent() throws {
        let trace = try read(mooncake("0", "1", "[1]"))
        #expect(trace.sha256.count == 64)
        #expect(try read(mooncake("0", "1", "[1]") + "\n").sha256 != trace.sha256)
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        #expect(trace.sha256 != empty)
        // SHA-256 of this line, as `sha256sum` says.
        #expect(
            try read(#"{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1]}"#).sha256
                == "b62d933265c4278c811b4ad8aa924043770c8a897e2e0dd7aaf7ef1a5b87b216")
    }

    @Test func skippedLinesAreCountedAndLeaveNoTrace() throws {
        let good = [
            mooncake("0", "1000", "[1, 2]"), mooncake("5", "1500", "[1, 2, 3]"), mooncake("9", "1500", "[1, 2, 4]"),
        ]
        let bad = [
            "garbage\n", mooncake("1", "1000", "[1]"), mooncake("2", "1024", "[9, 2]"), mooncake("-1", "1", "[8]"),
            mooncake("3", "1500", "[1, 77, 2]"), mooncake("4", "2048", "[60, 61, 62, 60]"),
        ]
        let mixed = good[0] + bad.joined() + good[1] + bad.joined() + good[2]
        let trace = try read(mixed, TraceReadOptions(skipsBadLines: true))
        let clean = try read(good.joined())
        #expect(trace.requests == clean.requests)
        #expect(trace.blocks == clean.blocks)
        #expect(trace.uniqueBlockCount == clean.uniqueBlockCount)
        #expect(trace.skippedLineCount == 2 * bad.count)
    }

    @Test func interningAgreesWithADictionary() throws {
        for seed in 0..<30 as Range<UInt64> {
            let model = randomTrace(seed: seed, requests: 200, blockTokens: 512)
            // Ids of no order at all, so that the table is in use from early on.
            var ids: [UInt64] = []
            var random = RandomSource(seed: seed)
            let keepsNumbers = seed % 3 == 0 ? model.uniqueBlockCount / 2 : 0
            for number in 0..<model.uniqueBlockCount {
                ids.append(number < keepsNumbers ? UInt64(number) : random.next() | 1 << 40)
            }
            var lines = ""
            for request in model.requests {
                let path = model.path(of: request).map { String(ids[Int($0)]) }.joined(separator: ",")
                let tokens = Int(request.blockCount) * 512
                lines += mooncake("\(request.arrival.nanoseconds / 1_000_000)", "\(tokens)", "[\(path)]")
            }
            let trace = try read(lines)
            #expect(trace.blocks == model.blocks)
            #expect(trace.uniqueBlockCount == model.uniqueBlockCount)
        }
    }
}

/// The trace as text in a format.
func text(_ trace: Trace, _ format: TraceFormat) throws -> String {
    let folder = try TemporaryFolder()
    let path = folder.path + "/trace.jsonl"
    try trace.write(to: path, as: format, allowsLoss: true)
    return String(decoding: try bytes(of: path), as: UTF8.self)
}

extension Trace: Equatable {
    /// Equal in everything but the name.
    public static func == (left: Trace, right: Trace) -> Bool {
        left.format == right.format && left.sha256 == right.sha256 && left.blockTokens == right.blockTokens
            && left.requests == right.requests && left.blocks == right.blocks
            && left.uniqueBlockCount == right.uniqueBlockCount && left.origin == right.origin
            && left.skippedLineCount == right.skippedLineCount
    }
}
