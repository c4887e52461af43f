// Which way to a store is tried, and when.

import KVModel
import KVTransport
import Testing

struct RouteScheduleTests {
    private static func at(_ seconds: Double) -> Instant { .zero + Duration(seconds: seconds) }

    /// Two routes; pauses from 1 s to 4 s, a better way every 10 s, 2 s to connect.
    private var schedule: RouteSchedule {
        RouteSchedule(
            StoreClientConfiguration(
                routes: [.tcp(host: "10.0.0.1", port: 1), .tcp(host: "10.0.0.1", port: 2)], tenant: "t", secret: [],
                connectLimit: Duration(seconds: 2), backoff: Duration(seconds: 1), backoffMax: Duration(seconds: 4),
                climbInterval: Duration(seconds: 10)), seed: 7)
    }

    @Test func allRoutesAreTriedBeforeAPauseThatGrows() {
        var schedule = schedule
        var now = Instant.zero
        var pauses: [Double] = []
        for _ in 0..<4 {
            #expect(schedule.due(beside: nil, at: now) == 0)
            #expect(schedule.failed(route: 0, at: now) == false)
            #expect(schedule.due(beside: nil, at: now) == 1)
            #expect(schedule.failed(route: 1, at: now) == true)
            #expect(schedule.due(beside: nil, at: now) == nil)
            let next = schedule.nextTime(beside: nil)
            pauses.append((next - now).seconds)
            now = next
        }
        // Half to the whole of 1, 2, 4 and 4 s.
        for (pause, whole) in zip(pauses, [1.0, 2, 4, 4]) { #expect((whole / 2...whole).contains(pause)) }
        schedule.proved()
        _ = schedule.failed(route: 1, at: now)
        #expect((schedule.nextTime(beside: nil) - now).seconds <= 1)
    }

    @Test func aBetterWayIsTriedFromTimeToTime() {
        var schedule = schedule
        schedule.promoted(at: .zero)
        #expect(schedule.due(beside: (0, false), at: Self.at(100)) == nil)
        #expect(schedule.nextTime(beside: (0, false)) == .distantFuture)
        #expect(schedule.due(beside: (1, false), at: Self.at(9)) == nil)
        #expect(schedule.nextTime(beside: (1, false)) == Self.at(10))
        #expect(schedule.due(beside: (1, false), at: Self.at(10)) == 0)
        #expect(schedule.due(beside: (1, false), at: Self.at(11)) == nil)
    }

    @Test func aSecondConnectionIsBegunBesideASilentOne() {
        var schedule = schedule
        schedule.promoted(at: .zero)
        #expect(schedule.due(beside: (0, true), at: Self.at(3)) == 0)
        // Not again before the first has had its time.
        #expect(schedule.due(beside: (0, true), at: Self.at(4)) == nil)
        #expect(schedule.nextTime(beside: (0, true)) == Self.at(5))
        #expect(schedule.due(beside: (0, true), at: Self.at(5)) == 0)
    }

    @Test func aWayThatBreaksAtOnceGivesTheNextOneAChance() {
        var schedule = schedule
        schedule.promoted(at: .zero)
        schedule.lost(route: 0, isProven: true, at: Self.at(1))
        #expect(schedule.due(beside: nil, at: Self.at(1)) == 1)
        // One that held is tried again at once, the best way first.
        schedule.promoted(at: Self.at(1))
        schedule.lost(route: 1, isProven: true, at: Self.at(20))
        #expect(schedule.due(beside: nil, at: Self.at(20)) == 0)
        // A store that answered nothing right waits.
        schedule.promoted(at: Self.at(20))
        schedule.lost(route: 1, isProven: false, at: Self.at(40))
        #expect(schedule.due(beside: nil, at: Self.at(40)) == nil)
    }
}
