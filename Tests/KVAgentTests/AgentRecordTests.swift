// What an agent's report is made of: buckets of time, minutes that are forgotten, and an engine's own page.

import KVAgent
import KVModel
import Testing

@Suite struct AgentRecordTests {
    /// A bucket is found by arithmetic; its end is computed by another.
    @Test func aTimeIsReadAtMostAnEighthTooLong() {
        var random = RandomSource(seed: 20)
        var ends: [Duration] = (0..<TimeHistogram.bucketCount - 1).compactMap { TimeHistogram.bound($0) }
        #expect(zip(ends, ends.dropFirst()).allSatisfy { $0 < $1 })
        #expect(TimeHistogram.bound(TimeHistogram.bucketCount - 1) == nil)
        ends = Array(ends.prefix(40))
        let drawn = (0..<20_000).map { _ in
            Duration(nanoseconds: Int64(1) << Int64(random.below(39)) + Int64(random.below(1_000)))
        }
        for time in ends + drawn {
            var histogram = TimeHistogram()
            histogram.add(time)
            let read = histogram.quantile(0.5)
            #expect(read >= time, "\(time)")
            #expect(read.nanoseconds <= max(1_000, time.nanoseconds / 8 * 9 + 9), "\(time) is read as \(read)")
        }
        var histogram = TimeHistogram()
        for seconds in 1...100 { histogram.add(Duration(seconds: Double(seconds) / 100)) }
        #expect((0.5...0.5625).contains(histogram.quantile(0.5).seconds))
        #expect((0.99...1.12).contains(histogram.quantile(0.99).seconds))
    }

    private func row(_ history: AgentHistory, minute: Int, tokens: UInt64, firstToken: [Double]) -> AgentHistory.Row {
        var row = history.zero
        row.uptime = Duration(seconds: Double(60 * minute))
        row.counts[0] = tokens
        for seconds in firstToken { row.times[0].add(Duration(seconds: seconds)) }
        return row
    }

    @Test func aSpanIsTheDifferenceOfItsEnds() throws {
        let history = AgentHistory(names: ["prompt_tokens"])
        // Two requests a minute, one of 0.1 s and one of 2 s in the third hour, 0.1 s before.
        var told: [Double] = []
        for minute in 1...180 {
            told += minute > 120 ? [0.1, 2] : [0.1, 0.1]
            history.remember(row(history, minute: minute, tokens: UInt64(1000 * minute), firstToken: told))
        }
        func record(_ seconds: Double) -> AgentRecord {
            let now = Duration(seconds: 180 * 60)
            return AgentRecord(
                history.rows(from: now - Duration(seconds: seconds)), of: history, asked: seconds, blockBytes: 4096,
                seen: AgentWatch.Seen())
        }
        let hour = record(3600)
        #expect(hour.spanSeconds == 3600 && hour["prompt_tokens"] == 60_000 && hour.minutes.count == 60)
        let times = try #require(hour.times["first_token"])
        #expect(times.count == 120)
        let (half, most) = (try #require(times.quantile(0.5)), try #require(times.quantile(0.99)))
        #expect((0.1...0.1125).contains(half) && (2...2.25).contains(most), "\(half) \(most)")
        #expect(abs(try #require(times.meanSeconds) - 1.05) < 1e-6)
        #expect(hour.minutes.allSatisfy { $0.seconds == 60 && ($0.firstTokenP99 ?? 0) >= 2 })
        #expect(hour.minutes.last?.endSecondsAgo == 0 && hour.minutes.first?.endSecondsAgo == 3540)
        // Half a minute more begins a minute before.
        #expect(record(3630).spanSeconds == 3660)
        let all = record(86_400)
        #expect(all.spanSeconds == 10_800 && all["prompt_tokens"] == 180_000 && all.askedSeconds == 86_400)
    }

    @Test func afterSixHoursTheOldestMinuteIsForgotten() {
        let history = AgentHistory(names: ["prompt_tokens"])
        for minute in 1...1000 {
            history.remember(row(history, minute: minute, tokens: UInt64(minute), firstToken: []))
        }
        let rows = history.rows(from: .zero)
        #expect(rows.count == AgentHistory.rowsMax)
        #expect(rows.first?.counts == [641] && rows.last?.counts == [1000])
        #expect(history.rows(from: Duration(seconds: 60 * 999 + 30)).map(\.counts) == [[999], [1000]])
    }

    private static let page = """
        # HELP vllm:num_requests_running Number of requests in model execution batches.
        # TYPE vllm:num_requests_running gauge
        vllm:num_requests_running{engine="0",model_name="a, \\"b\\" {c}"} 3.0
        vllm:num_requests_running{engine="1",model_name="a"} 2
        vllm:num_requests_waiting{engine="0"} 7.0 1700000000000
        vllm:kv_cache_usage_perc{engine="0"} 0.25
        vllm:kv_cache_usage_perc{engine="1"} 0.5
        vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 4.0
        vllm:time_to_first_token_seconds_bucket{le="0.5",engine="0"} 9.0
        vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 1e1
        vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1"} 1.0
        vllm:time_to_first_token_seconds_bucket{engine="1",le="0.5"} 1.0
        vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf"} 1.0
        vllm:time_to_first_token_seconds_sum{engine="0"} 3.5
        vllm:time_to_first_token_seconds_count{engine="0"} 10.0
        vllm:time_to_first_token_seconds_created{engine="0"} 1.7e9
        """

    @Test func anEnginesPageIsReadAcrossItsLabels() {
        let page = EngineMetricsPage(Self.page)
        #expect(page.running == 5 && page.waiting == 7 && page.cacheUse == 0.5 && page.firstTokenSum == 3.5)
        #expect(page.firstToken.map(\.bound) == [0.1, 0.5, .infinity])
        #expect(page.firstToken.map(\.count) == [5, 10, 11])
        let other = EngineMetricsPage("sglang:num_running_reqs 4\nsglang:num_queue_reqs 1\nsglang:token_usage 0.1\n")
        #expect(other.running == 4 && other.waiting == 1 && other.cacheUse == 0.1 && other.firstToken.isEmpty)
    }

    @Test func whatMakesNoSenseCostsOnlyItself() {
        let lines = """
            vllm:num_requests_running{ 9
            vllm:num_requests_running NaN
            vllm:num_requests_running{a="x
            vllm:num_requests_waiting
            {} 4
            vllm:time_to_first_token_seconds_bucket{engine="0"} 3
            vllm:time_to_first_token_seconds_bucket{le="soon"} 3
            vllm:time_to_first_token_seconds_bucket{le="1"} -3
            vllm:time_to_first_token_seconds_bucket{le="2"} 1e300
            vllm:num_requests_running 1
            """
        let page = EngineMetricsPage(lines)
        #expect(page.running == 1 && page.waiting == nil && page.firstToken.isEmpty)
        // So many ranks that their counts are more than there are numbers.
        let ranks = (0..<40).map { "vllm:time_to_first_token_seconds_bucket{rank=\"\($0)\",le=\"1\"} 9e17" }
        #expect(EngineMetricsPage(ranks.joined(separator: "\n")).firstToken.map(\.count) == [.max])
        let many = (0..<1000).map { "vllm:time_to_first_token_seconds_bucket{le=\"\($0)\"} 1" }.joined(separator: "\n")
        #expect(EngineMetricsPage(many).firstToken.count == EngineMetricsPage.boundsMax)
        // Cut anywhere, and with any byte changed, it is read without harm.
        let bytes = Array(Self.page.utf8)
        var random = RandomSource(seed: 7)
        for _ in 0..<2000 {
            var damaged = Array(bytes.prefix(random.below(bytes.count)))
            if !damaged.isEmpty {
                damaged[random.below(damaged.count)] = UInt8(random.below(256))
            }
            #expect(EngineMetricsPage(String(decoding: damaged, as: UTF8.self)).firstToken.count <= 4)
        }
    }

    /// An engine's page says what it likes: what is followed of it ends at what a row holds.
    @Test func anAbsurdPageIsFollowedAsFarAsNumbersGo() {
        var follower = EngineTimesFollower()
        func see(_ count: String, _ sum: String) -> UInt64 {
            let name = "vllm:time_to_first_token_seconds"
            let page = EngineMetricsPage("\(name)_bucket{le=\"+Inf\"} \(count)\n\(name)_sum \(sum)\n")
            let isFollowed = follower.take(page)
            #expect(isFollowed)
            return follower.sumMicroseconds
        }
        #expect(see("1", "2") == 0)
        #expect(see("2", "-1e300") == 0)
        #expect(see("3", "4.5") == 4_500_000)
        #expect(see("4", "NaN") == 4_500_000)
        #expect(see("5", "1e300") == 9_000_000_000_000_000_000)
        for sum in ["+Inf", "1e308", "0"] { #expect(see("6", sum) == 9_000_000_000_000_000_000) }
        // Started anew again and again, with as many requests as a page can say.
        for _ in 0..<40 {
            _ = see("9e17", "0")
            _ = see("1", "0")
        }
        #expect(follower.counts[0] == .max)
    }

    private func page(_ counts: [Int], sum: Double, ends: [String] = ["0.1", "0.5", "+Inf"]) -> EngineMetricsPage {
        let name = "vllm:time_to_first_token_seconds"
        let buckets = zip(ends, counts).map { "\(name)_bucket{le=\"\($0)\"} \($1)" }
        return EngineMetricsPage((buckets + ["\(name)_sum \(sum)"]).joined(separator: "\n"))
    }

    @Test func anEngineThatStartsAnewLosesNothingOfTheRecord() {
        var follower = EngineTimesFollower()
        func taken(_ page: EngineMetricsPage) -> Bool { follower.take(page) }
        // What was before the first look is not ours to tell.
        #expect(taken(page([100, 200, 300], sum: 50)))
        #expect(follower.counts.allSatisfy { $0 == 0 } && follower.sum == 0)
        #expect(taken(page([101, 203, 304], sum: 52)))
        #expect(follower.counts.prefix(3) == [1, 2, 1] && follower.sum == 2)
        // Started anew, with two requests since.
        #expect(taken(page([1, 2, 2], sum: 0.5)))
        #expect(follower.counts.prefix(3) == [2, 3, 1] && follower.sum == 2.5)
        // Another version has other buckets: nothing of before can be compared.
        #expect(!taken(page([5, 9], sum: 3, ends: ["1", "+Inf"])))
        #expect(follower.counts.allSatisfy { $0 == 0 } && follower.bounds == [1, .infinity])
        #expect(taken(page([5, 10], sum: 5, ends: ["1", "+Inf"])))
        #expect(follower.counts.prefix(2) == [0, 1])
    }
}
